"""The run log: JSON lines in ``OUT/_run/log/``, one file per attempt.

Object stores cannot append, so the whole file is rewritten with each event. To keep it small, every
other progress line is dropped whenever there are more than `MOST_PROGRESS`.
"""

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from pipeline.config import RunConfig
from pipeline.errors import UsageError
from pipeline.machine import user
from pipeline.progress.progress import Progress
from pipeline.progress.watch import Watch
from pipeline.runs.manifest import SOFTWARE, RunFolder
from pipeline.storage.location import Location, redact

PROGRESS_SECONDS = 10.0
MOST_PROGRESS = 1000
PROGRESS = "progress"


@dataclass
class RunLog:
    """Events of one attempt, written to a file once the output is known to belong to this run.

    Attributes:
        log_file: the file.
        events: the events so far.
    """

    log_file: Location
    events: list[dict[str, Any]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _opened: bool = False
    _last_progress: float = 0.0

    def open(self) -> None:
        """Start to write events to the file, including those so far."""
        self._opened = True
        self._write()

    def add(self, event: str, **values: Any) -> None:
        """Record an event."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        with self._lock:
            self.events.append({"time": now, "event": event, **values})
            self._thin()
        self._write()

    def _write(self) -> None:
        """Write the log.

        A storage error is ignored: if the storage is down, writing a part fails too and reports it.
        """
        with self._lock:
            lines = "".join(json.dumps(event) + "\n" for event in self.events)
            if self._opened:
                with suppress(UsageError):
                    self.log_file.write(lines.encode())

    def recording(self, watch: Watch) -> Watch:
        """A watcher that records each event in this log and passes it on to another watcher."""

        def stage(text: str) -> None:
            watch.stage(text)
            self.add("stage", text=redact(text))

        def progress(counts: Progress) -> None:
            watch.progress(counts)
            self.progress(counts)

        return Watch(stage, progress, watch.note, watch.seconds)

    def progress(self, progress: Progress) -> None:
        """Record the counts, at most every `PROGRESS_SECONDS`."""
        now = time.monotonic()
        if now - self._last_progress < PROGRESS_SECONDS or not progress.rows:
            return
        self._last_progress = now
        self.add(PROGRESS, **progress.as_json())

    def _thin(self) -> None:
        progress_events = [event for event in self.events if event["event"] == PROGRESS]
        if len(progress_events) > MOST_PROGRESS:
            dropped = {id(event) for event in progress_events[1::2]}
            self.events = [event for event in self.events if id(event) not in dropped]


@contextmanager
def logged(folder: RunFolder, run: str, config: RunConfig) -> Iterator[RunLog]:
    """Keep the log of an attempt; its last event says how the block ended.

    Args:
        folder: folder of the run.
        run: id of this attempt, as in the lease.
        config: configuration of the run; storage options are not logged because they may hold
            credentials.
    """
    name = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{run[:8]}.jsonl"
    log = RunLog(folder.log.child(name))
    log.add("start", run=run, **_start_values(config))
    try:
        yield log
    except BaseException as error:
        interrupted = isinstance(error, KeyboardInterrupt | SystemExit)
        text = redact(f"{type(error).__name__}: {error}")
        log.add("end", outcome="interrupted" if interrupted else "failed", error=text)
        raise
    log.add("end", outcome="complete", error=None)


def _start_values(config: RunConfig) -> dict[str, Any]:
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "user": user(),
        "output": redact(config.output),
        "source": [redact(uri) for uri in config.source.uris],
        "model": redact(f"{config.model.name} {config.model.pretrained or ''}".strip()),
        "queries": len(config.queries),
        "runtime": config.runtime.model_dump(mode="json"),
        "software": {name: version(name) for name in SOFTWARE},
    }
