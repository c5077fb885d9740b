"""What a run came to, counted in its output, and the marker that says it is complete."""

import json
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow.parquet as pq

from pipeline.config import SourceConfig
from pipeline.errors import RunError
from pipeline.manifest import RunFolder, digest
from pipeline.parts import arrow_filesystem, committed_parts, committed_rows
from pipeline.progress import Progress
from pipeline.schema import Status
from pipeline.sources.datasource import ImageSource
from pipeline.storage import redact


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
        resumed: rows an earlier attempt had committed.
        already_complete: there was nothing to do.
    """

    output: str
    statuses: Counter[str]
    progress: Progress
    parts: int
    bytes: int
    seconds: float
    notes: tuple[str, ...] = ()
    resumed: int = 0
    already_complete: bool = False

    @property
    def rows(self) -> int:
        """Rows of the whole output."""
        return self.statuses.total()

    @property
    def failures(self) -> dict[str, int]:
        """Rows without maps, by status."""
        return {name: n for name, n in self.statuses.items() if name != Status.OK}


def summarise(
    folder: RunFolder,
    progress: Progress,
    seconds: float,
    notes: tuple[str, ...],
    *,
    already_complete: bool = False,
) -> Summary:
    """Count the committed rows by status, and put them beside this attempt's progress."""
    parts = committed_parts(folder)
    filesystem = arrow_filesystem(folder.images)
    statuses: Counter[str] = Counter()
    for part in parts:
        column = pq.read_table(part.path, columns=["status"], filesystem=filesystem)["status"]
        statuses.update(column.to_pylist())
    surplus = statuses.total() - progress.rows_read
    if surplus > 0 and not already_complete:
        notes = (
            *notes,
            f"{surplus} rows are of files or samples that are no longer in the source.",
        )
    return Summary(
        output=folder.uri,
        statuses=statuses,
        progress=progress,
        parts=len(parts),
        bytes=sum(int(part.fs.size(part.path) or 0) for part in parts),
        seconds=seconds,
        notes=notes,
        resumed=progress.resumed,
        already_complete=already_complete,
    )


def label_notes(folder: RunFolder, source: SourceConfig) -> tuple[str, ...]:
    """What to know of a table of labels: how many images it has none for."""
    if source.labels is None:
        return ()
    filesystem = arrow_filesystem(folder.images)
    missing = rows = 0
    for part in committed_parts(folder):
        column = pq.read_table(part.path, columns=["label"], filesystem=filesystem)["label"]
        missing, rows = missing + column.null_count, rows + len(column)
    if not missing:
        return ()
    hint = ""
    if missing == rows:
        hint = (
            f" None matched: column {source.labels.key!r} must hold keys, or image ids without "
            "the alias."
        )
    return (f"{missing} of {rows} images have no label in {redact(source.labels.uri)}.{hint}",)


def _listing(source: ImageSource) -> list[list[Any]]:
    return [[file.name, file.size] for unit in source.units for file in unit.files]


def is_complete(folder: RunFolder, source: ImageSource) -> bool:
    """Whether an earlier attempt finished, and no file came or changed since."""
    place = folder.complete
    if not place.exists():
        return False
    marker: dict[str, Any] = json.loads(place.read())
    same = marker["files"] == digest({"files": _listing(source)})
    return bool(same and marker["rows"] == committed_rows(folder))


def complete(folder: RunFolder, source: ImageSource, summary: Summary) -> None:
    """Marker last: written only when every row that was read is in a committed part.

    Raises:
        RunError: rows are missing.
    """
    read_rows = summary.progress.rows_read
    if summary.rows < read_rows:
        raise RunError(
            f"{summary.output}: {read_rows} rows were read and {summary.rows} are committed. Run "
            "the same command again to do the missing ones."
        )
    marker = {
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "rows": summary.rows,
        "statuses": dict(summary.statuses),
        "parts": summary.parts,
        "bytes": summary.bytes,
        "files": digest({"files": _listing(source)}),
    }
    folder.complete.write(json.dumps(marker, indent=2).encode())
