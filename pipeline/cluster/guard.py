"""Watches one pass of a run from inside Ray Data's loop.

The pass survives dead workers and ends on any other error, of which `explain_end` makes a message.
"""

import errno
import logging
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import ray
from ray.data import Dataset
from ray.exceptions import RayError, RayTaskError

from pipeline.cluster import ray_internals
from pipeline.errors import KEPT, RunError, UsageError
from pipeline.progress.progress import Progress
from pipeline.runs.manifest import RunFolder
from pipeline.schema import Status
from pipeline.storage.location import explain_failure, is_storage_error

MOST_DEATHS = 100
FEWEST_ROWS = 500
_SECONDS_BETWEEN_LOOKS = 1.0
_ERRORS = logging.getLogger(ray_internals.TOLERATED_ERRORS_LOGGER)
_FULL = (errno.ENOSPC, errno.EDQUOT)


class Guard:
    """Lets a pass continue without the blocks whose worker died, and ends it on all other errors.

    Ray Data tolerates either all errors of blocks or none, and reports tolerated ones only in its
    log, so the guard listens to the log. `pipeline.stages.isolated` explains the lost rows later.

    Args:
        actor: the run's `ProgressActor`.
        most_failed: share of failed rows above which the run ends.
        tolerant: whether the pass survives deaths of workers.

    Attributes:
        deaths: number of blocks that were lost because a worker died on every attempt.
    """

    def __init__(self, actor: Any, most_failed: float, *, tolerant: bool) -> None:
        self.actor = actor
        self.most_failed = most_failed
        self.tolerant = tolerant
        self.deaths = 0
        self._fatal: BaseException | None = None
        self._answer: Any = None
        self._last_look = 0.0

    @contextmanager
    def over(self, rows: Dataset) -> Iterator[None]:
        """Watch the execution of a dataset; only the context of this dataset changes."""
        ray_internals.call_at_every_step(rows, self.on_execution_step)
        if not self.tolerant:
            yield
            return
        rows.context.max_errored_blocks = -1
        listener = _Listener(self)
        _ERRORS.addHandler(listener)
        try:
            yield
        finally:
            _ERRORS.removeHandler(listener)
        if self._fatal is not None:
            raise self._fatal

    def on_execution_step(self) -> None:
        """Check the pass; an error that this raises ends the execution.

        Raises:
            RunError: too many rows failed, or too many workers died.
        """
        if self._fatal is not None:
            raise self._fatal
        if self.deaths > MOST_DEATHS:
            raise RunError(
                f"workers died {self.deaths} times, so the cause is probably the machine (memory?) "
                "and not single images. Lower runtime.batch_size or runtime.actors, or set "
                "runtime.isolate=true, and run the same command again to continue."
            )
        self._look()

    def note(self, error: BaseException) -> None:
        """Record the error by which a block was lost."""
        if is_death(error):
            self.deaths += 1
        elif self._fatal is None:
            self._fatal = error

    def _look(self) -> None:
        """Check the counts about once a second, without waiting for them in Ray's own loop."""
        if self._answer is None:
            if time.monotonic() - self._last_look > _SECONDS_BETWEEN_LOOKS:
                self._last_look = time.monotonic()
                self._answer = self.actor.snapshot.remote()
            return
        ready, _ = ray.wait([self._answer], timeout=0)
        if ready:
            progress: Progress = ray.get(self._answer)
            self._answer = None
            refuse_failures(progress.statuses, progress.examples, self.most_failed)


class _Listener(logging.Handler):
    """Receives the log records of errors that Ray Data tolerates."""

    def __init__(self, guard: Guard) -> None:
        super().__init__(logging.ERROR)
        self.guard = guard

    def emit(self, record: logging.LogRecord) -> None:
        """Pass the error of a record to the guard."""
        error = record.exc_info[1] if record.exc_info else None
        if error is not None:
            self.guard.note(error)


def is_death(error: BaseException) -> bool:
    """Whether a worker, an actor or a node died, as opposed to an error that a task raised."""
    return isinstance(error, RayError) and not isinstance(error, RayTaskError)


def refuse_failures(statuses: Counter[str], examples: Mapping[str, str], most: float) -> None:
    """End a run in which too many rows fail.

    Args:
        statuses: number of rows by status.
        examples: a row and its error by status.
        most: share of rows that may fail.

    Raises:
        RunError: a larger share failed, of at least `FEWEST_ROWS` rows.
    """
    rows = statuses.total()
    failures = [(name, n) for name, n in statuses.most_common() if name != Status.OK]
    failed = sum(count for _, count in failures)
    if rows < FEWEST_ROWS or failed <= most * rows:
        return
    named = ", ".join(f"{count:,} {name}" for name, count in failures[:3])
    worst = failures[0][0]
    example = examples.get(worst, "none, these rows failed in an earlier attempt")
    raise RunError(
        f"{failed:,} of {rows:,} rows failed ({failed / rows:.0%}), more than "
        f"runtime.max_failed_fraction ({most:g}): {named}. An example of {worst}: "
        f"{example}. Remove the cause and run the same command again to continue. If these "
        "failures are expected, raise runtime.max_failed_fraction."
    )


def explain_end(error: Exception, folder: RunFolder) -> Exception:
    """The `UsageError` or `RunError` that says what to do; the error itself if there is none."""
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, UsageError | RunError):
            return cause
    for cause in causes:
        if isinstance(cause, OSError) and cause.errno in _FULL:
            return RunError(f"{folder.uri}: the disk is full. Make room. {KEPT}")
    for cause in causes:
        if isinstance(cause, Exception) and is_storage_error(cause):
            return RunError(f"{explain_failure(folder.uri, cause)} {KEPT}")
    if is_death(error):
        return RunError(f"a worker died: {type(error).__name__}: {error} {KEPT}")
    return error


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and in turn the error that it wraps or was raised from."""
    while error is not None:
        yield error
        error = getattr(error, "cause", None) or error.__cause__
