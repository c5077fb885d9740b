"""What is there already and what is left to do, decided before the first image is read."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.config import RuntimeConfig
from pipeline.errors import UsageError
from pipeline.progress.progress import Progress
from pipeline.runs.committed_rows import CommittedRows
from pipeline.runs.ledger import INDEXED_FROM, BrokenPartError, Ledger, missing_parts
from pipeline.runs.manifest import RunFolder
from pipeline.runs.parts import DRAFT, strangers
from pipeline.runs.retry_rows import drop_repeated, reopen
from pipeline.sources.read_unit import Unit

_NAMED = 5


@dataclass(frozen=True)
class Work:
    """What is there and what is left.

    Attributes:
        units: all of the input.
        left: what is to be read, with the rows that are committed.
        ledger: rows that are committed.
        rows_done: rows of the units that are not left.
    """

    units: tuple[Unit, ...]
    left: tuple[Unit, ...]
    ledger: Ledger
    rows_done: int

    def before(self) -> Progress:
        """The counts at the start: shards that are skipped count as read."""
        total = sum(unit.size for unit in self.units)
        return Progress(
            bytes_total=total,
            resumed=self.ledger.rows,
            rows_read=self.rows_done,
            bytes_read=total - sum(unit.size for unit in self.left),
        )

    def __str__(self) -> str:
        size = sum(unit.size for unit in self.left)
        return f"{size / 2**20:.1f} MiB in {len(self.left)} shards"


def find_work(
    folder: RunFolder,
    units: Sequence[Unit],
    runtime: RuntimeConfig,
    tell: Callable[[str], None] = lambda text: None,
    redo: Collection[str] = (),
) -> Work:
    """Repair what is damaged, and leave out the rows that earlier attempts committed.

    Args:
        folder: of the run, whose lease is held.
        units: all of the input.
        runtime: of the settings.
        tell: called with what was repaired.
        redo: statuses whose rows are to be done again.

    Raises:
        UsageError: a shard changed since it was read, or a file in ``images/`` is of no run.
    """
    _remove_drafts(folder)
    _refuse_strangers(folder)
    ledger = _sound_ledger(folder, tell)
    if folder.complete.exists():
        for name in missing_parts(folder):
            tell(f"images/{name} is gone; its rows are computed again")
    drop_repeated(ledger, tell)
    reopen(ledger, redo, units)
    ledger.index(INDEXED_FROM)
    _list_input(folder, units)
    rows = CommittedRows(ledger)
    if runtime.changed_shards == "refuse":
        changed = [unit.name for unit in units if rows.has_changed(unit)]
        _refuse_changed(folder, changed)
    return _work(ledger, rows, units)


def remaining_work(ledger: Ledger, units: Sequence[Unit]) -> Work:
    """What is left of some units by the records of the parts; changes nothing."""
    return _work(ledger, CommittedRows(ledger), units)


def _work(ledger: Ledger, rows: CommittedRows, units: Sequence[Unit]) -> Work:
    left, done = [], 0
    for unit in units:
        rest = rows.rest(unit)
        if rest is None:
            done += rows.total(unit)
        else:
            left.append(rest)
            done += len(unit.files) - len(rest.files) if unit.single_images else 0
    return Work(tuple(units), tuple(left), ledger, done)


def _remove_drafts(folder: RunFolder) -> None:
    """Half-written parts of writers that were killed; only a local disk has them."""
    if folder.images.is_local:
        for name in folder.images.files(f".*{DRAFT}"):
            folder.images.child(name).delete()


def _refuse_strangers(folder: RunFolder) -> None:
    names = strangers(folder.images.files())
    if names:
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        raise UsageError(
            f"{folder.uri}: images/{names[0]}{more} is of no run, and whatever reads the folder "
            "would take it for results. Move it elsewhere."
        )


def _sound_ledger(folder: RunFolder, tell: Callable[[str], None]) -> Ledger:
    """The ledger; parts that are no Parquet files are removed, their rows are computed again."""
    ledger = Ledger(folder)
    while True:
        try:
            return ledger.refresh()
        except BrokenPartError as error:
            if not error.is_certain():
                raise
            error.part.delete()
            tell(f"removed {error.part.path}: no sound Parquet file; its rows are computed again")


def _list_input(folder: RunFolder, units: Sequence[Unit]) -> None:
    """Write down what is to be read, for those who look at the output alone."""
    pairs = [(unit.key, shard) for unit in units for shard in unit.shards]
    columns = [pa.array(values, pa.string()) for values in zip(*pairs, strict=True)]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns, names=["unit", "shard"]), sink, compression="zstd")
    folder.input.write(sink.getvalue().to_pybytes())


def _refuse_changed(folder: RunFolder, changed: Sequence[str]) -> None:
    if changed:
        names = ", ".join(changed[:_NAMED]) + (", ..." if len(changed) > _NAMED else "")
        raise UsageError(
            f"{folder.uri}: {len(changed)} shards changed since they were read ({names}); rows of "
            "both versions would be mixed. Choose another place: --set output=NEW, or keep the "
            "rows that are there and add what is new: --set runtime.changed_shards=keep"
        )
