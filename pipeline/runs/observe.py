"""The state of a run, read from its output alone: the committed rows and the run log."""

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
class RunState:
    """The state of a run at one moment.

    Attributes:
        rows, parts, bytes: number of committed rows and parts, and the size of the parts.
        holder: the driver that writes to the output; None if there is none.
        seconds_silent: seconds since the lease last changed, measured on this machine.
        complete: whether the completion marker exists.
        stage: what the last attempt is doing, as a sentence from its log.
        progress: its last counts, see `Progress.as_json`; None before the first.
        outcome: how it ended; None while it runs.
        error: the error that ended it.
    """

    rows: int
    parts: int
    bytes: int
    holder: Holder | None
    seconds_silent: float
    complete: bool
    stage: str = ""
    progress: dict[str, Any] | None = None
    outcome: str | None = None
    error: str | None = None

    @property
    def is_over(self) -> bool:
        """Whether no driver works on the run any more, as far as this machine can tell."""
        return self.holder is None or self.seconds_silent > STALE_SECONDS


def observe(folder: RunFolder, seconds: float) -> Iterator[RunState]:
    """Yield the state of a run every `seconds` seconds, until it is over.

    Raises:
        UsageError: there is no run in the folder, or the storage fails.
    """
    if not folder.manifest.exists() and holder_of(folder) is None:
        raise UsageError(f"{folder.uri}: this folder holds no run (_run/manifest.json is missing)")
    ledger = Ledger(folder)
    last_content, changed = lease_content(folder), time.monotonic()
    while True:
        content = lease_content(folder)
        if content != last_content:
            last_content, changed = content, time.monotonic()
        state = _read_state(folder, ledger, time.monotonic() - changed)
        yield state
        if state.is_over:
            return
        time.sleep(seconds)


def _read_state(folder: RunFolder, ledger: Ledger, seconds_silent: float) -> RunState:
    ledger.refresh()
    events = last_log(folder)
    holder = holder_of(folder)
    end = events[-1] if events and events[-1]["event"] == "end" else {}
    return RunState(
        rows=ledger.rows,
        parts=len(ledger.records),
        bytes=ledger.bytes,
        holder=holder,
        seconds_silent=seconds_silent,
        complete=folder.complete.exists(),
        stage=next((e["text"] for e in reversed(events) if e["event"] == "stage"), ""),
        progress=next((e for e in reversed(events) if e["event"] == "progress"), None),
        outcome=end.get("outcome"),
        error=end.get("error"),
    )


def last_log(folder: RunFolder) -> list[dict[str, Any]]:
    """Events of the last attempt; empty if the run has no log."""
    names = folder.log.files("*.jsonl")
    if not names:
        return []
    lines = folder.log.child(names[-1]).read().decode().splitlines()
    return [json.loads(line) for line in lines]
