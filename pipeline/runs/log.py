"""The run log: JSON lines in ``OUT/_run/log/``, a file an attempt.

Object stores cannot append, so the file is written anew now and then. It stays small: of very many
progress lines every second one is dropped, again and again.
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

SECONDS = 10.0
MOST_PROGRESS = 1000
PROGRESS = "progress"


@dataclass
class RunLog:
    """Events of one attempt; written once the output is known to be this run's.

    Attributes:
        place: the file.
        events: so far.
    """

    place: Location
    events: list[dict[str, Any]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _opened: bool = False
    _noted: float = 0.0

    def open(self) -> None:
        """From now on events are written, those before as well."""
        self._opened = True
        self._write()

    def add(self, event: str, **values: Any) -> None:
        """Note an event."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        with self._lock:
            self.events.append({"time": now, "event": event, **values})
            self._thin()
        self._write()

    def _write(self) -> None:
        """A storage that refuses costs the log, not the run: what matters meets it as well."""
        with self._lock:
            lines = "".join(json.dumps(event) + "\n" for event in self.events)
            if self._opened:
                with suppress(UsageError):
                    self.place.write(lines.encode())

    def over(self, watch: Watch) -> Watch:
        """A watcher that writes down what it hands on."""

        def stage(text: str) -> None:
            watch.stage(text)
            self.add("stage", text=redact(text))

        def progress(counts: Progress) -> None:
            watch.progress(counts)
            self.progress(counts)

        return Watch(stage, progress, watch.seconds)

    def progress(self, progress: Progress) -> None:
        """Note the counts, at most every `SECONDS`."""
        now = time.monotonic()
        if now - self._noted < SECONDS or not progress.rows:
            return
        self._noted = now
        self.add(PROGRESS, **progress.as_json())

    def _thin(self) -> None:
        some = [event for event in self.events if event["event"] == PROGRESS]
        if len(some) > MOST_PROGRESS:
            dropped = {id(event) for event in some[1::2]}
            self.events = [event for event in self.events if id(event) not in dropped]


@contextmanager
def logged(folder: RunFolder, run: str, config: RunConfig) -> Iterator[RunLog]:
    """The log of an attempt, which ends with how the block ended.

    Args:
        folder: of the run.
        run: id of this attempt, the lease's.
        config: of the run; options are not written, they may hold credentials.
    """
    name = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{run[:8]}.jsonl"
    log = RunLog(folder.log.child(name))
    log.add("start", run=run, **_start(config))
    try:
        yield log
    except BaseException as error:
        human = isinstance(error, KeyboardInterrupt | SystemExit)
        text = redact(f"{type(error).__name__}: {error}")
        log.add("end", outcome="interrupted" if human else "failed", error=text)
        raise
    log.add("end", outcome="complete", error=None)


def _start(config: RunConfig) -> dict[str, Any]:
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
