"""Which rows are committed and what is left to do, decided before the first image is read."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.config import RuntimeConfig
from pipeline.errors import UsageError, counted
from pipeline.progress.progress import Progress
from pipeline.runs.committed_rows import CommittedRows
from pipeline.runs.ledger import FEWEST_UNINDEXED, BrokenPartError, Ledger, missing_parts
from pipeline.runs.manifest import RunFolder
from pipeline.runs.parts import DRAFT, refuse_foreign_files
from pipeline.runs.retry_rows import drop_repeated, remove_rows_with_status
from pipeline.sources.read_unit import Unit

_NAMED = 5


@dataclass(frozen=True)
class Work:
    """The committed rows and the work that is left.

    Attributes:
        units: all units of the input.
        left: units that still have rows to read; each also carries its committed rows, which are
            skipped.
        ledger: ledger of the committed rows.
        rows_done: rows of the units, or single files, that need no more reading.
    """

    units: tuple[Unit, ...]
    left: tuple[Unit, ...]
    ledger: Ledger
    rows_done: int

    def initial_progress(self) -> Progress:
        """The counts at the start of an attempt; skipped shards count as read."""
        total = sum(unit.size for unit in self.units)
        return Progress(
            bytes_total=total,
            resumed=self.ledger.rows,
            rows_read=self.rows_done,
            bytes_read=total - sum(unit.size for unit in self.left),
        )

    def __str__(self) -> str:
        size = sum(unit.size for unit in self.left)
        return f"{size / 2**20:.1f} MiB in {counted(len(self.left), 'shard')}"


def find_work(
    folder: RunFolder,
    units: Sequence[Unit],
    runtime: RuntimeConfig,
    report_message: Callable[[str], None] = lambda text: None,
    redo: Collection[str] = (),
) -> Work:
    """Repair damaged parts and find the rows that no earlier attempt committed.

    Args:
        folder: folder of a run whose lease is held.
        units: all units of the input.
        runtime: the runtime settings.
        report_message: called with a line on each repair.
        redo: statuses whose rows are processed again.

    Raises:
        UsageError: a shard changed since it was read, or a Parquet file in ``images/`` was not
            written by a run.
    """
    _remove_drafts(folder)
    refuse_foreign_files(folder)
    ledger = _repaired_ledger(folder, report_message)
    if folder.complete.exists():
        for name in missing_parts(folder):
            report_message(f"images/{name} no longer exists; its rows are computed again")
    drop_repeated(ledger, report_message)
    remove_rows_with_status(ledger, redo, units)
    ledger.index(FEWEST_UNINDEXED)
    _list_input(folder, units)
    rows = CommittedRows(ledger)
    if runtime.changed_shards == "refuse":
        changed = [unit.name for unit in units if rows.has_changed(unit)]
        _refuse_changed(folder, changed)
    return _work(ledger, rows, units)


def remaining_work(ledger: Ledger, units: Sequence[Unit]) -> Work:
    """Work left in the given units according to the records in the parts. Changes nothing."""
    return _work(ledger, CommittedRows(ledger), units)


def _work(ledger: Ledger, rows: CommittedRows, units: Sequence[Unit]) -> Work:
    left, rows_done = [], 0
    for unit in units:
        remaining = rows.remaining(unit)
        if remaining is None:
            rows_done += rows.row_count(unit)
        else:
            left.append(remaining)
            rows_done += len(unit.files) - len(remaining.files) if unit.single_images else 0
    return Work(tuple(units), tuple(left), ledger, rows_done)


def _remove_drafts(folder: RunFolder) -> None:
    """Delete half-written parts of writers that were killed; only a local disk has them."""
    if folder.images.is_local:
        for name in folder.images.files(f".*{DRAFT}"):
            folder.images.child(name).delete()


def _repaired_ledger(folder: RunFolder, report_message: Callable[[str], None]) -> Ledger:
    """Read the ledger, and delete parts that are not valid Parquet: their rows are left to do."""
    ledger = Ledger(folder)
    while True:
        try:
            return ledger.refresh()
        except BrokenPartError as error:
            if not error.is_certain():
                raise
            error.part.delete()
            report_message(
                f"removed {error.part.path}: not a valid Parquet file; its rows are computed again"
            )


def _list_input(folder: RunFolder, units: Sequence[Unit]) -> None:
    """Record the units of the input and their shards, for checks that see only the output."""
    pairs = [(unit.key, shard) for unit in units for shard in unit.shards]
    columns = [pa.array(values, pa.string()) for values in zip(*pairs, strict=True)]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns, names=["unit", "shard"]), sink, compression="zstd")
    folder.input.write(sink.getvalue().to_pybytes())


def _refuse_changed(folder: RunFolder, changed: Sequence[str]) -> None:
    if changed:
        names = ", ".join(changed[:_NAMED]) + (", ..." if len(changed) > _NAMED else "")
        raise UsageError(
            f"{folder.uri}: {counted(len(changed), 'shard')} changed since the last run ({names}); "
            "rows of both versions would be mixed. Choose another output: --set output=NEW, or "
            "keep the committed rows and add the new ones: --set runtime.changed_shards=keep"
        )
