"""The summary of a run, counted from its output, and the marker of a complete run."""

import json
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow.compute as pc
import pyarrow.dataset as ds

from legrad.queries.query import Query
from pipeline.config import SourceConfig, queries_by_label, unmatched_labels
from pipeline.errors import RunError, UsageError
from pipeline.progress.progress import Progress
from pipeline.runs.ledger import Ledger
from pipeline.runs.manifest import RunFolder, digest
from pipeline.runs.parts import committed_parts
from pipeline.runs.resume import remaining_work
from pipeline.runs.retry_rows import drop_repeated
from pipeline.schema import Status
from pipeline.sources.read_unit import Unit
from pipeline.storage.location import arrow_filesystem, redact

_NAMED = 5


@dataclass(frozen=True)
class Summary:
    """The result of a run.

    Attributes:
        output: URI of the output.
        statuses: number of rows of the whole output by status.
        progress: counts of this attempt.
        parts, bytes: number of Parquet files of the whole output, and their size.
        seconds: duration of this attempt.
        notes: notes for the user (unknown words, the mini model on other images than its own).
        already_complete: whether there was nothing to do.
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
        """Number of rows of the whole output."""
        return self.statuses.total()

    @property
    def resumed(self) -> int:
        """Number of rows that earlier attempts had committed."""
        return self.progress.resumed

    @property
    def failures(self) -> dict[str, int]:
        """Number of rows without maps, by status."""
        return {name: n for name, n in self.statuses.items() if name != Status.OK}


def _files_digest(units: Sequence[Unit]) -> str:
    listing = sorted([file.name, file.size] for unit in units for file in unit.files)
    return digest({"files": listing})


def label_notes(folder: RunFolder, source: SourceConfig) -> tuple[str, ...]:
    """Notes for the user on a label table: how many images it has no label for."""
    if source.labels is None:
        return ()
    parts = [part.path for part in committed_parts(folder)]
    dataset = ds.dataset(parts, filesystem=arrow_filesystem(folder.images), format="parquet")
    rows = dataset.count_rows()
    missing = dataset.count_rows(filter=_unlabelled(dataset))
    if not missing:
        return ()
    hint = ""
    if missing == rows:
        hint = (
            f" None matched: column {source.labels.key!r} must hold keys, or image ids without "
            "the alias."
        )
    return (f"{missing} of {rows} images have no label in {redact(source.labels.uri)}.{hint}",)


def query_notes(folder: RunFolder, queries: Sequence[Query]) -> tuple[str, ...]:
    """Notes for the user on class queries whose label no image of the output has."""
    if not queries_by_label(queries):
        return ()
    parts = [part.path for part in committed_parts(folder)]
    dataset = ds.dataset(parts, filesystem=arrow_filesystem(folder.images), format="parquet")
    return unmatched_labels(queries, _labels(dataset))


def _labels(dataset: ds.Dataset) -> set[str]:
    """Every label of an image; a row with a set of labels has them in the column ``labels``."""
    columns = [name for name in ("label", "labels") if name in dataset.schema.names]
    labels: set[str | None] = set()
    for batch in dataset.to_batches(columns=columns):
        single = batch["label"]
        if "labels" in columns:
            labels.update(pc.unique(pc.list_flatten(batch["labels"])).to_pylist())
            single = single.filter(pc.is_null(batch["labels"]))
        labels.update(pc.unique(single).to_pylist())
    return {label for label in labels if label is not None}


def _unlabelled(dataset: ds.Dataset) -> pc.Expression:
    """Rows without a label; an empty set of labels says that the image is of no class."""
    missing = ds.field("label").is_null()
    return missing & ds.field("labels").is_null() if "labels" in dataset.schema.names else missing


def unread_notes(ledger: Ledger, redo: Collection[str]) -> tuple[str, ...]:
    """Notes for the user on rows, and remainders of shards, that could not be read from storage."""
    rows = ledger.statuses[Status.READ_ERROR]
    if not rows:
        return ()
    note = (
        f"{rows} rows could not be read from storage; such a row in a shard represents all rows "
        "after it."
    )
    if Status.READ_ERROR in redo:
        return (f"{note} The same command tries again.",)
    return (f"{note} To try again: --set 'runtime.redo=[read_error]'.",)


def is_complete(folder: RunFolder, units: Sequence[Unit], ledger: Ledger) -> bool:
    """Whether an earlier attempt finished, and no file was added or changed since."""
    marker_file = folder.complete
    if not marker_file.exists():
        return False
    marker: dict[str, Any] = json.loads(marker_file.read())
    return bool(marker["files"] == _files_digest(units) and marker["rows"] == ledger.rows)


def refuse_unfinished(folder: RunFolder, units: Sequence[Unit], ledger: Ledger) -> None:
    """Refuse to continue a run that an earlier version began and did not finish.

    Raises:
        UsageError: the run is not complete, or files were added or changed.
    """
    if not is_complete(folder, units, ledger):
        raise UsageError(
            f"{folder.uri}: an earlier version of legrad-audit began this run ({ledger.rows:,} "
            "rows are committed) and recorded its progress in a different format. This version "
            "reads its results but cannot continue it. Continue with that version, or start "
            "again in another output: --set output=NEW"
        )


def mark_complete(
    ledger: Ledger,
    units: Sequence[Unit],
    notes: list[str],
    report_message: Callable[[str], None] = lambda text: None,
) -> None:
    """Write the completion marker once every row of the input is committed exactly once.

    Args:
        ledger: the refreshed ledger of the run.
        units: all units of the input.
        notes: notes for the user are appended to it.
        report_message: called with a line on each repair.

    Raises:
        RunError: rows are missing.
    """
    folder = ledger.folder
    drop_repeated(ledger, report_message)
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
        notes.append(f"{surplus} rows belong to files or samples that are no longer in the source.")
    ledger.index()
    marker = {
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "rows": ledger.rows,
        "statuses": dict(ledger.statuses),
        "parts": len(ledger.records),
        "bytes": ledger.bytes,
        "shards": len(units),
        "rows_of_shards": work.rows_done,
        "files": _files_digest(units),
    }
    folder.complete.write(json.dumps(marker, indent=2).encode())
