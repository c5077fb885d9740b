"""Turns the error that ended a run, often wrapped by Ray several times, into one message."""

import errno
from collections.abc import Iterator

from pipeline.cluster.guard import is_death
from pipeline.errors import RunError, UsageError
from pipeline.runs.manifest import RunFolder
from pipeline.storage.location import explain_failure, is_storage_error

_FULL = (errno.ENOSPC, errno.EDQUOT)
_AGAIN = "Committed rows are kept: run the same command again to continue."


def explain_end(error: Exception, folder: RunFolder) -> Exception:
    """The `UsageError` or `RunError` that says what to do; the error itself if there is none."""
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, UsageError | RunError):
            return cause
    for cause in causes:
        if isinstance(cause, OSError) and cause.errno in _FULL:
            return RunError(f"{folder.uri}: the disk is full. Make room. {_AGAIN}")
    for cause in causes:
        if isinstance(cause, Exception) and is_storage_error(cause):
            return RunError(f"{explain_failure(folder.uri, cause)} {_AGAIN}")
    if is_death(error):
        return RunError(f"a worker died: {type(error).__name__}: {error} {_AGAIN}")
    return error


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and in turn the error that it wraps or was raised from."""
    while error is not None:
        yield error
        error = getattr(error, "cause", None) or error.__cause__
