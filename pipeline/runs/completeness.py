"""What a run came to, counted in its output, and the marker that says it is complete."""

import json
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow.dataset as ds

from pipeline.config import SourceConfig
from pipeline.errors import RunError
from pipeline.progress.progress import Progress
from pipeline.runs.duplicates import parts_by_wave, repeated_ids
from pipeline.runs.manifest import RunFolder, digest
from pipeline.runs.parts import Ledger, arrow_filesystem, committed_parts
from pipeline.runs.read_shards import ShardBook
from pipeline.schema import Status
from pipeline.sources.read_unit import Unit
from pipeline.storage.location import redact

_NAMED = 5


@dataclass(frozen=True)
class Summary:
    """What a run came to.

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


def reconcile(folder: RunFolder, units: Sequence[Unit], ledger: Ledger, book: ShardBook) -> None:
    """Every row that was read is committed, and none twice.

    Raises:
        RunError: rows are missing, or doubled.
    """
    committed = ledger.shards()
    faults = book.faults(units, committed)
    if faults:
        raise RunError(
            f"{folder.uri}: {len(faults)} shards do not add up ({_some(faults)}). Run the same "
            "command again to do the missing ones."
        )
    doubled = _doubled(folder)
    if doubled:
        raise RunError(
            f"{folder.uri}: {len(doubled)} images stand there twice ({_some(doubled)}); two runs "
            "may have written at once. Delete one of the two parts in images/ and run the same "
            "command again: it does anew what is missing."
        )


def complete(
    folder: RunFolder, units: Sequence[Unit], ledger: Ledger, book: ShardBook, notes: list[str]
) -> None:
    """Marker last: written only when the rows of every shard are in committed parts, once each.

    Args:
        folder, units, ledger, book: of the run, all of its input.
        notes: rows of shards that are no longer there are told here.

    Raises:
        RunError: rows are missing, or doubled.
    """
    reconcile(folder, units, ledger, book)
    surplus = sum(book.surplus(units, ledger.shards()).values())
    if surplus:
        notes.append(f"{surplus} rows are of files or samples that are no longer in the source.")
    marker = {
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "rows": ledger.rows,
        "statuses": dict(ledger.statuses),
        "parts": len(ledger.counts),
        "bytes": ledger.bytes,
        "shards": len(units),
        "rows_of_shards": ledger.rows - surplus,
        "files": _files(units),
    }
    folder.complete.write(json.dumps(marker, indent=2).encode())
    book.settle()


def _doubled(folder: RunFolder) -> list[str]:
    """Ids that stand more than once, with their parts."""
    return [
        f"{image_id} in {' and '.join(dict.fromkeys(parts))}"
        for wave in parts_by_wave(folder)
        for image_id, parts in repeated_ids(wave).items()
    ]


def _some(texts: Sequence[str]) -> str:
    return "; ".join(texts[:_NAMED]) + ("; ..." if len(texts) > _NAMED else "")
