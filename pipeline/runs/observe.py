"""The state of a run, read from its output alone: what is committed, and what its log says."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pipeline.errors import UsageError
from pipeline.runs.lease import STALE_SECONDS, Holder, holder_of, lease_content
from pipeline.runs.ledger import Ledger
from pipeline.runs.manifest import RunFolder


@dataclass(frozen=True)
class Sight:
    """One look at a run.

    Attributes:
        rows, parts, bytes: committed.
        holder: who writes; None where nobody does.
        silent: seconds without a sign of the holder, by our own clock.
        complete: whether the completion marker is there.
        stage: what the last attempt does, in its own words.
        progress: its last counts, see `Progress.as_json`; None before the first.
        outcome: how it ended; None while it goes on.
        error: what ended it.
    """

    rows: int
    parts: int
    bytes: int
    holder: Holder | None
    silent: float
    complete: bool
    stage: str = ""
    progress: dict[str, Any] | None = None
    outcome: str | None = None
    error: str | None = None

    @property
    def over(self) -> bool:
        """Whether nobody works on it any more, as far as can be told."""
        return self.holder is None or self.silent > STALE_SECONDS


def observe(folder: RunFolder, seconds: float) -> Iterator[Sight]:
    """Look every so many seconds, until the run is over.

    Raises:
        UsageError: no run is there, or the storage refuses.
    """
    if not folder.manifest.exists() and holder_of(folder) is None:
        raise UsageError(f"{folder.uri}: no run there (_run/manifest.json is missing)")
    ledger = Ledger(folder)
    beat, changed = lease_content(folder), time.monotonic()
    while True:
        seen = lease_content(folder)
        if seen != beat:
            beat, changed = seen, time.monotonic()
        sight = _look(folder, ledger, time.monotonic() - changed)
        yield sight
        if sight.over:
            return
        time.sleep(seconds)


def _look(folder: RunFolder, ledger: Ledger, silent: float) -> Sight:
    ledger.refresh()
    events = last_log(folder)
    holder = holder_of(folder)
    end = events[-1] if events and events[-1]["event"] == "end" else {}
    return Sight(
        rows=ledger.rows,
        parts=len(ledger.records),
        bytes=ledger.bytes,
        holder=holder,
        silent=silent,
        complete=folder.complete.exists(),
        stage=next((e["text"] for e in reversed(events) if e["event"] == "stage"), ""),
        progress=next((e for e in reversed(events) if e["event"] == "progress"), None),
        outcome=end.get("outcome"),
        error=end.get("error"),
    )


def last_log(folder: RunFolder) -> list[dict[str, Any]]:
    """Events of the last attempt; none of a run that kept no log."""
    names = folder.log.files("*.jsonl")
    if not names:
        return []
    lines = folder.log.child(names[-1]).read().decode().splitlines()
    return [json.loads(line) for line in lines]
