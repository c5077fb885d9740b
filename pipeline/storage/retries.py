"""Which storage errors are transient, and how often and how long a call is retried (tenacity).

Every layer that retries uses the list here. From the lowest: botocore retries a request, s3fs a
response body that breaks off, `call_with_retries` one of our calls, `pipeline.sources.retry` the
reading of a shard, and Ray a write task.
"""

import errno
import re
import time
import traceback
from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any, ParamSpec, TypeVar

from tenacity import (
    Retrying,
    retry_if_exception,
    stop_after_attempt,
    wait_exponential,
    wait_random_exponential,
)

P = ParamSpec("P")
T = TypeVar("T")

ATTEMPTS = 6
_PAUSE = wait_exponential(0.3, max=18) + wait_random_exponential(0.4, max=24)
"""Between attempts: about 0.5 s, doubling, up to about 30 s; the random part keeps the workers of a
cluster from returning all at once."""
_ERRNOS = (
    *("EINTR", "EIO", "EAGAIN", "EBUSY", "EPIPE", "ESTALE", "ENETDOWN", "ENETUNREACH"),
    *("ENETRESET", "ECONNABORTED", "ECONNRESET", "ETIMEDOUT", "ECONNREFUSED", "EHOSTDOWN"),
    *("EHOSTUNREACH", "EREMOTEIO"),
)
"""Names, because not every system has all of them."""
TRANSIENT = (
    rf"\[Errno ({'|'.join(str(getattr(errno, n)) for n in _ERRNOS if hasattr(errno, n))})\]",
    # Names of exception classes as `traceback` prints them; s3fs, aiohttp and botocore have many.
    r"^[\w.]*(Timeout|Connection|Connect|Disconnect|IncompleteRead|ClientPayload|ClientOS"
    r"|ResponseParser|ResponseStreaming|HTTPClient|BadStatusLine)\w*(:|$)",
    r"An error occurred \((429|5\d\d|SlowDown|InternalError|ServiceUnavailable|RequestTimeout"
    r"|Throttling\w*)\)",
    r"^[\w.]*(ClientResponseError|HTTPError): (HTTP Error )?(429|5\d\d)\b",
    r"^[\w.]*HttpError: .*\b(429|5\d\d)$",  # gcsfs
    r"reduce your request rate|name resolution",
)
"""Patterns of transient errors, in the form in which Ray matches them: ``Class: message``."""
_PERMANENT = (PermissionError, FileNotFoundError, IsADirectoryError, NotADirectoryError)
_S3 = {
    "retries": {"mode": "standard", "max_attempts": 8},
    "connect_timeout": 10,
    "read_timeout": 30,
}


def is_transient(error: BaseException) -> bool:
    """Whether the same call may well succeed a little later."""
    if isinstance(error, _PERMANENT):
        return False
    text = "".join(traceback.format_exception_only(error)).strip()
    if any(re.search(pattern, text) for pattern in TRANSIENT):
        return True
    cause = error.__cause__
    return cause is not None and is_transient(cause)


def retrying(sleep: Callable[[float], None] = time.sleep) -> Retrying:
    """At most `ATTEMPTS` attempts while errors are transient; the last error is raised as it is.

    Args:
        sleep: waits for some seconds; tests replace it.
    """
    return Retrying(
        sleep=sleep,
        stop=stop_after_attempt(ATTEMPTS),
        wait=_PAUSE,
        retry=retry_if_exception(is_transient),
        reraise=True,
    )


def call_with_retries(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function; repeat the call after a transient error, as `retrying` says."""
    return retrying()(call, *args, **kwargs)


def with_client_defaults(protocol: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Storage options, completed by our defaults where the user's options say nothing.

    For S3 these are botocore's standard retries, timeouts, and no cached listings, because another
    process may have written since. They are copied deeply: botocore changes what it receives.
    """
    if protocol not in ("s3", "s3a"):
        return dict(options)
    client = deepcopy(_S3) | dict(options.get("config_kwargs") or {})
    return {"use_listings_cache": False, **options, "config_kwargs": client}
