"""What is there already and what is left to do, decided before the first image is read."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

from pipeline.config import RuntimeConfig
from pipeline.progress.progress import Progress
from pipeline.runs.manifest import RunFolder
from pipeline.runs.partial_tables import without_done
from pipeline.runs.parts import Ledger
from pipeline.runs.read_shards import ShardBook
from pipeline.runs.retry_rows import reopen
from pipeline.runs.tidy import tidy
from pipeline.runs.waves import Wave, plan_waves
from pipeline.sources.read_unit import Unit


@dataclass(frozen=True)
class Work:
    """What is there and what is left.

    Attributes:
        units: all of the input.
        waves: what is to be read, wave by wave.
        ledger: rows that are committed.
        book: shards that were read to their end.
    """

    units: tuple[Unit, ...]
    waves: tuple[Wave, ...]
    ledger: Ledger
    book: ShardBook

    def before(self) -> Progress:
        """The counts at the start: shards that are skipped count as read."""
        left = [unit for wave in self.waves for unit in wave.units]
        total = sum(unit.size for unit in self.units)
        return Progress(
            bytes_total=total,
            resumed=self.ledger.rows,
            rows_read=self.book.rows(self.units) - self.book.rows(left),
            bytes_read=total - sum(unit.size for unit in left),
        )


def find_work(
    folder: RunFolder,
    units: Sequence[Unit],
    runtime: RuntimeConfig,
    tell: Callable[[str], None] = lambda text: None,
    redo: Collection[str] = (),
) -> Work:
    """Clear away what earlier attempts left half-done, and skip the shards that they finished.

    Args:
        folder: of the run, whose lease is held.
        units: all of the input.
        runtime: of the settings.
        tell: told what was removed.
        redo: statuses whose rows are to be done again, whatever their shards hold by now.

    Raises:
        UsageError: a shard changed since it was read, or the assignment to waves is lost.
    """
    removed = tidy(folder)
    if removed:
        tell(str(removed))
    book = ShardBook.open(folder)
    reopen(folder, redo, book.forget)  # after tidying: it reads every part
    ledger = Ledger(folder).refresh()
    waves = plan_waves(folder, units, ledger, book, runtime.rows_per_wave)
    every = tuple(unit for wave in waves for unit in wave.units)
    if runtime.changed_shards == "refuse":
        book.refuse_changed(every)
    else:
        book.forget_changed(every)
    committed = ledger.shards()
    unfinished = (book.unfinished(wave.units, committed) for wave in waves)
    left = [tuple(without_done(folder, units, book)) for units in unfinished]
    some = [replace(wave, units=units) for wave, units in zip(waves, left, strict=True) if units]
    return Work(every, tuple(some), ledger, book)
