"""Which storage errors are worth another try, and how often; every layer asks here.

The layers, from the bottom: botocore retries a request, s3fs a body that breaks off, `again` a call
of ours, `pipeline.sources.retry` a shard, Ray a part or a commit.
"""

import errno
import random
import re
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

ATTEMPTS = 6
LONGEST_PAUSE = 30.0
_ERRNOS = (
    *(errno.EINTR, errno.EIO, errno.EAGAIN, errno.EBUSY, errno.EPIPE, errno.ESTALE),
    *(errno.ENETDOWN, errno.ENETUNREACH, errno.ENETRESET, errno.ECONNABORTED, errno.ECONNRESET),
    *(errno.ETIMEDOUT, errno.ECONNREFUSED, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.EREMOTEIO),
)
TRANSIENT = (
    rf"\[Errno ({'|'.join(map(str, _ERRNOS))})\]",
    # The class of an exception, as `traceback` prints it. s3fs, aiohttp and botocore name many.
    r"^[\w.]*(Timeout|Connection|Connect|Disconnect|IncompleteRead|ClientPayload|ClientOS"
    r"|ResponseParser|ResponseStreaming|HTTPClient|BadStatusLine)\w*(:|$)",
    r"An error occurred \((429|5\d\d|SlowDown|InternalError|ServiceUnavailable|RequestTimeout"
    r"|Throttling\w*)\)",
    r"^[\w.]*(ClientResponseError|HTTPError): (HTTP Error )?(429|5\d\d)\b",
    r"^[\w.]*HttpError: .*\b(429|5\d\d)$",  # gcsfs
    r"reduce your request rate|name resolution",
)
"""Patterns of errors that pass, in the form in which Ray matches them: ``Class: message``."""
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


def pauses(attempts: int = ATTEMPTS) -> Iterator[float]:
    """Seconds to wait before each further attempt: doubling from about 0.5, with jitter."""
    for number in range(attempts - 1):
        yield min(LONGEST_PAUSE, 0.5 * 2**number) * random.uniform(0.6, 1.4)  # noqa: S311


def again(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call, and call again after a transient error, at most `ATTEMPTS` times."""
    for pause in pauses():
        try:
            return call(*args, **kwargs)
        except Exception as error:
            if not is_transient(error):
                raise
        time.sleep(pause)
    return call(*args, **kwargs)


def patient(protocol: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Storage options with our patience where the user's say nothing.

    S3: botocore's standard retries, timeouts, and no cached listings: another process may have
    written since. The defaults are copied in depth: botocore rewrites what it is given.
    """
    if protocol not in ("s3", "s3a"):
        return dict(options)
    client = deepcopy(_S3) | dict(options.get("config_kwargs") or {})
    return {"use_listings_cache": False, **options, "config_kwargs": client}
