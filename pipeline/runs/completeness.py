"""The summary of a run, counted in its output, and the marker of a complete run."""

import json
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow.dataset as ds

from pipeline.config import SourceConfig
from pipeline.errors import RunError, UsageError
from pipeline.progress.progress import Progress
from pipeline.runs.ledger import Ledger
from pipeline.runs.manifest import RunFolder, digest
from pipeline.runs.parts import arrow_filesystem, committed_parts
from pipeline.runs.resume import remaining_work
from pipeline.runs.retry_rows import drop_repeated
from pipeline.schema import Status
from pipeline.sources.read_unit import Unit
from pipeline.storage.location import redact

_NAMED = 5


@dataclass(frozen=True)
class Summary:
    """The result of a run.

    Attributes:
        output: where it lies.
        statuses: rows of the whole output by status.
        progress: counts of this attempt.
        parts, bytes: Parquet files of the whole output and their size.
        seconds: this attempt took.
        notes: what the user should know (unknown words, the mini model on foreign images).
        already_complete: there was nothing to do.
    """

    output: str
    statuses: Counter[str]
    progress: Progress
    parts: int
    bytes: int
    seconds: float
    notes: tuple[str, ...] = ()
    already_complete: bool = False

    @property
    def rows(self) -> int:
        """Rows of the whole output."""
        return self.statuses.total()

    @property
    def resumed(self) -> int:
        """Rows an earlier attempt had committed."""
        return self.progress.resumed

    @property
    def failures(self) -> dict[str, int]:
        """Rows without maps, by status."""
        return {name: n for name, n in self.statuses.items() if name != Status.OK}


def _files(units: Sequence[Unit]) -> str:
    listing = sorted([file.name, file.size] for unit in units for file in unit.files)
    return digest({"files": listing})


def label_notes(folder: RunFolder, source: SourceConfig) -> tuple[str, ...]:
    """What to know of a table of labels: how many images it has none for."""
    if source.labels is None:
        return ()
    parts = [part.path for part in committed_parts(folder)]
    dataset = ds.dataset(parts, filesystem=arrow_filesystem(folder.images), format="parquet")
    rows = dataset.count_rows()
    missing = dataset.count_rows(filter=ds.field("label").is_null())
    if not missing:
        return ()
    hint = ""
    if missing == rows:
        hint = (
            f" None matched: column {source.labels.key!r} must hold keys, or image ids without "
            "the alias."
        )
    return (f"{missing} of {rows} images have no label in {redact(source.labels.uri)}.{hint}",)


def unread_notes(ledger: Ledger, redo: Collection[str]) -> tuple[str, ...]:
    """What to know of rows, and the rests of shards, that the storage would not give."""
    rows = ledger.statuses[Status.READ_ERROR]
    if not rows:
        return ()
    what = f"{rows} rows could not be read; in a shard such a row stands for all that follows."
    if Status.READ_ERROR in redo:
        return (f"{what} The same command tries again.",)
    return (f"{what} To try again: --set 'runtime.redo=[read_error]'.",)


def is_complete(folder: RunFolder, units: Sequence[Unit], ledger: Ledger) -> bool:
    """Whether an earlier attempt finished, and no file came or changed since."""
    place = folder.complete
    if not place.exists():
        return False
    marker: dict[str, Any] = json.loads(place.read())
    return bool(marker["files"] == _files(units) and marker["rows"] == ledger.rows)


def refuse_unfinished(folder: RunFolder, units: Sequence[Unit], ledger: Ledger) -> None:
    """A run of an earlier version is complete, or cannot be continued.

    Raises:
        UsageError: it is not complete, or files were added or changed.
    """
    if not is_complete(folder, units, ledger):
        raise UsageError(
            f"{folder.uri}: an earlier version of legrad-audit began this run ({ledger.rows:,} "
            "rows are committed) and kept its progress in another way. This version reads its "
            "results but cannot continue it. Continue with that version, or start anew in another "
            "place: --set output=NEW"
        )


def complete(
    ledger: Ledger,
    units: Sequence[Unit],
    notes: list[str],
    tell: Callable[[str], None] = lambda text: None,
) -> None:
    """Write the marker, last: only when every row of the input is committed, and none twice.

    Args:
        ledger: of the run, refreshed.
        units: all of the input.
        notes: takes in what the user should know.
        tell: called with what was repaired.

    Raises:
        RunError: rows are missing.
    """
    folder = ledger.folder
    drop_repeated(ledger, tell)
    work = remaining_work(ledger, units)
    if work.left:
        names = ", ".join(unit.name for unit in work.left[:_NAMED])
        more = ", ..." if len(work.left) > _NAMED else ""
        raise RunError(
            f"{folder.uri}: rows of {len(work.left)} shards are missing ({names}{more}). Run the "
            "same command again, which computes them."
        )
    surplus = ledger.rows - work.rows_done
    if surplus > 0:
        notes.append(f"{surplus} rows are of files or samples that are no longer in the source.")
    ledger.index()
    marker = {
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "rows": ledger.rows,
        "statuses": dict(ledger.statuses),
        "parts": len(ledger.records),
        "bytes": ledger.bytes,
        "shards": len(units),
        "rows_of_shards": work.rows_done,
        "files": _files(units),
    }
    folder.complete.write(json.dumps(marker, indent=2).encode())
