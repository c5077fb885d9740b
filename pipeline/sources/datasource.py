"""The Ray Data source, whose read tasks each read one large or several small units."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain, islice
from typing import IO, Any, cast

import fsspec
import pyarrow as pa
from ray.data import DataContext
from ray.data.block import BlockMetadata
from ray.data.datasource import Datasource, ReadTask

from pipeline.config import SourceConfig
from pipeline.errors import UsageError, counted
from pipeline.progress.progress import Reporter
from pipeline.schema import BOOK, UNREADABLE, source_schema
from pipeline.sources.choice import draw, forget_wanted_ids, wanted_ids
from pipeline.sources.folder import read_files
from pipeline.sources.input_rows import Row, blocks
from pipeline.sources.labels import Labeller, forget_tables, label_table
from pipeline.sources.listing import SourceFile
from pipeline.sources.lists import read_list
from pipeline.sources.parquet import read_parquet
from pipeline.sources.planning import plan_source
from pipeline.sources.read_unit import Facts, Unit, stand_in
from pipeline.sources.remaining import Remaining, numbered
from pipeline.sources.retry import CompleteStream, reread, unread
from pipeline.sources.webdataset import read_shard
from pipeline.storage.location import open_location, redact

MOST_TASKS = 10_000
"""Read tasks of a run; the driver holds all of them."""
FEWEST_TASKS = 200
"""Units share a task only if at least this many tasks remain to be distributed."""
BYTES_PER_TASK = 16 * 2**20
BYTES_PER_ROW = 32 * 2**10


class ImageSource(Datasource):
    """Rows of `source_schema` from the units of a source.

    Args:
        source: the settings.
        units: the units to read.
        reporter: is told when a unit was read to its end.
        facts: what else planning learned about the source.
    """

    def __init__(
        self,
        source: SourceConfig,
        units: list[Unit],
        reporter: Reporter,
        facts: Facts,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.source = source
        self.units = units
        self.reporter = reporter
        self.facts = facts

    @property
    def bytes_total(self) -> int:
        """Size of all files."""
        return sum(unit.size for unit in self.units)

    @property
    def extent(self) -> str:
        """The amount of data to read, in words."""
        if self.source.format == "list":
            rows = sum(unit.rows or 0 for unit in self.units)
            return f"{counted(rows, 'image')} of a list, in {counted(len(self.units), 'part')}"
        return f"{self.bytes_total / 2**20:.1f} MiB in {counted(len(self.units), 'shard')}"

    def get_name(self) -> str:
        """Shown by Ray as ``Read<name>``."""
        return "Images"

    def estimate_inmemory_data_size(self) -> int | None:
        """Size of the rows, which hold encoded images: about that of the files."""
        return self.bytes_total

    def tasks(self) -> list[list[Unit]]:
        """The units of each read task, in order; small neighbours share a task.

        Every task costs Ray some 35 ms and the driver some memory, whatever it reads.
        """
        weights = [_weight(unit) for unit in self.units]
        most = min(BYTES_PER_TASK, sum(weights) // FEWEST_TASKS)
        count = -(-len(self.units) // MOST_TASKS)
        groups: list[list[Unit]] = []
        weight = 0
        for unit, unit_weight in zip(self.units, weights, strict=True):
            if not groups or (weight + unit_weight > most and len(groups[-1]) >= count):
                groups.append([])
                weight = 0
            groups[-1].append(unit)
            weight += unit_weight
        return groups

    def get_read_tasks(
        self,
        parallelism: int,  # noqa: ARG002 - Ray's signature
        per_task_row_limit: int | None = None,
        data_context: DataContext | None = None,  # noqa: ARG002
    ) -> list[ReadTask]:
        """A read task for each group of `tasks`, whatever parallelism Ray asks for."""
        schema = source_schema(self.source.carry)
        return [
            ReadTask(
                partial(read_units, self.source, units, self.reporter),
                BlockMetadata(
                    num_rows=None,
                    size_bytes=sum(unit.size for unit in units),
                    input_files=tuple(redact(unit.files[0].path) for unit in units),
                    exec_stats=None,
                ),
                schema=schema,
                per_task_row_limit=per_task_row_limit,
            )
            for units in self.tasks()
        ]


def open_source(source: SourceConfig) -> ImageSource:
    """List a source's files and cut them into units; reads no image.

    Raises:
        UsageError: there are no files, the storage refuses, two files have the same name, a list
            is broken, or a table lacks a column.
    """
    forget_tables()
    forget_wanted_ids()
    table = label_table(source)
    if len({type(open_location(uri, source.options).fs) for uri in source.uris}) > 1:
        raise UsageError("source.uri: all places must be in one kind of storage")
    fs = open_location(source.uris[0], source.options).fs
    plan = plan_source(fs, source)
    facts = plan.facts
    if table is not None and table.encoding is not None:
        facts = replace(facts, notes=(*facts.notes, f"source.labels: read as {table.encoding}"))
    return ImageSource(source, plan.units, Reporter(), facts)


def read_units(
    source: SourceConfig, units: Sequence[Unit], reporter: Reporter
) -> Iterator[pa.Table]:
    """The uncommitted rows of units, as blocks of `source_schema`."""
    rows = chain.from_iterable(_uncommitted_rows(source, unit, reporter) for unit in units)
    return _timed(blocks(rows, source.carry), reporter)


def _uncommitted_rows(source: SourceConfig, unit: Unit, reporter: Reporter) -> Iterator[Row]:
    """The rows of a unit that are not committed; the last one carries the unit's end."""
    remaining = Remaining(unit)
    last: Row | None = None
    for row in remaining.of(read_rows(source, unit)):
        if last is not None:
            yield last
        last = row
    end = remaining.end()
    reporter.shard(unit.name, remaining.rows, unit.size, end if last is None else None)
    if last is not None:
        last[BOOK] |= {"end": end}
        yield last


def _weight(unit: Unit) -> int:
    """Approximate bytes to read; the images that a list names are not counted in its size."""
    rows = unit.part.rows if unit.part else len(unit.files)
    return max(unit.size, rows * BYTES_PER_ROW)


def read_rows(source: SourceConfig, unit: Unit) -> Iterator[Row]:
    """The rows of one unit in spite of storage faults, each with its position in its shard."""
    fs = open_location(source.uris[0], source.options).fs
    read = partial(_READERS[source.format], fs, unit, source)
    number = stand_in(unit.first)
    substitute = partial(unread, unit.name, unit.files[0].name, source.id_prefix, number)
    rows = map(Labeller(source), reread(read, substitute))
    wanted = wanted_ids(source)
    return numbered(unit, rows if wanted is None else wanted.rows(rows))


def _timed(tables: Iterator[pa.Table], reporter: Reporter) -> Iterator[pa.Table]:
    """Count the time spent reading, not the time the consumer takes."""
    while True:
        with reporter.timed("read"):
            table = next(tables, None)
        if table is None:
            return
        yield table


def _read_tars(fs: fsspec.AbstractFileSystem, unit: Unit, source: SourceConfig) -> Iterator[Row]:
    rows: list[Iterable[Row]] = []
    for number, file in enumerate(unit.files):
        count = unit.quotas[number] if unit.quotas else None
        rows.append(_read_shard(fs, file, source, count))
    return islice(chain.from_iterable(rows), unit.limit)


def _read_shard(
    fs: fsspec.AbstractFileSystem, file: SourceFile, source: SourceConfig, count: int | None
) -> Iterator[Row]:
    """The samples of a tar, all or ``count`` drawn ones, in spite of storage faults."""
    read = partial(_read_tar, fs, file, source)
    if count is not None:
        read = partial(draw, read, count, source.sample_seed, _is_stand_in)
    return reread(read, partial(unread, file.name, file.name, source.id_prefix, stand_in(0)))


def _is_stand_in(row: Row) -> bool:
    """Whether a row stands for the part of its shard that could not be read."""
    return bool(row["key"] == UNREADABLE)


def _read_tar(
    fs: fsspec.AbstractFileSystem, file: SourceFile, source: SourceConfig
) -> Iterator[Row]:
    with fs.open(file.path, "rb") as stream:
        whole = cast(IO[bytes], CompleteStream(stream, file.size))  # has what `read_shard` calls
        rows = read_shard(whole, file.name, source.id_prefix, source)
        yield from (row | {BOOK: number} for number, row in enumerate(rows))


def _read_folder(fs: fsspec.AbstractFileSystem, unit: Unit, source: SourceConfig) -> Iterator[Row]:
    return read_files(fs, unit.files, source)


_READERS: dict[str, Callable[[Any, Unit, SourceConfig], Iterable[Row]]] = {
    "webdataset": _read_tars,
    "folder": _read_folder,
    "parquet": read_parquet,
    "list": read_list,
}
