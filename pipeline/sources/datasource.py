"""The Ray Data side of a source: units of reading, each one task."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain, islice
from typing import IO, Any, cast

import fsspec
import pyarrow as pa
from ray.data import DataContext
from ray.data.block import BlockMetadata
from ray.data.datasource import Datasource, ReadTask

from pipeline.config import SourceConfig
from pipeline.errors import UsageError
from pipeline.progress.progress import Reporter
from pipeline.schema import UNREADABLE, source_schema
from pipeline.sources.choice import draw, forget_wanted_ids, wanted_ids
from pipeline.sources.folder import read_files
from pipeline.sources.labels import Labeller, forget_tables, label_table
from pipeline.sources.listing import SourceFile
from pipeline.sources.lists import read_list
from pipeline.sources.parquet import read_parquet
from pipeline.sources.planning import choose_files, plan_units
from pipeline.sources.read_unit import Unit
from pipeline.sources.retry import Whole, reread, unread
from pipeline.sources.rows import Row, blocks
from pipeline.sources.webdataset import read_shard
from pipeline.storage.location import open_location, redact


class ImageSource(Datasource):
    """Rows of `source_schema` from the units of a source.

    Args:
        source: the settings.
        units: what to read.
        reporter: told when a unit was read to its end.
    """

    def __init__(self, source: SourceConfig, units: list[Unit], reporter: Reporter) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.source = source
        self.units = units
        self.reporter = reporter

    @property
    def bytes_total(self) -> int:
        """Size of all files."""
        return sum(unit.size for unit in self.units)

    @property
    def extent(self) -> str:
        """How much there is to read, in words."""
        parts = [unit.part for unit in self.units]
        if self.source.format == "list":
            rows = sum(part.rows for part in parts if part is not None)
            return f"{rows:,} images of a list, in {len(parts)} parts"
        return f"{self.bytes_total / 2**20:.1f} MiB in {len(parts)} shards"

    def with_reporter(self, reporter: Reporter) -> "ImageSource":
        """The same source, reporting to an actor."""
        return ImageSource(self.source, self.units, reporter)

    def get_name(self) -> str:
        """Shown by Ray as ``Read<name>``."""
        return "Images"

    def estimate_inmemory_data_size(self) -> int | None:
        """Bytes travel encoded: as many as the files hold."""
        return self.bytes_total

    def get_read_tasks(
        self,
        parallelism: int,  # noqa: ARG002 - Ray's signature
        per_task_row_limit: int | None = None,
        data_context: DataContext | None = None,  # noqa: ARG002
    ) -> list[ReadTask]:
        """One task a unit, whatever parallelism Ray asks for."""
        schema = source_schema(self.source.carry)
        return [
            ReadTask(
                partial(_read_unit, self.source, unit, self.reporter),
                BlockMetadata(
                    num_rows=None,
                    size_bytes=unit.size,
                    input_files=tuple(redact(file.path) for file in unit.files),
                    exec_stats=None,
                ),
                schema=schema,
                per_task_row_limit=per_task_row_limit,
            )
            for unit in self.units
        ]


def open_source(source: SourceConfig) -> ImageSource:
    """List a source's files and cut them into units; reads no image.

    Raises:
        UsageError: nothing is there, the storage refuses, two files have one name, a list is
            broken, or a table has no such columns.
    """
    forget_tables()
    forget_wanted_ids()
    label_table(source)
    if len({type(open_location(uri, source.options).fs) for uri in source.uris}) > 1:
        raise UsageError("source.uri: all places must be in one kind of storage")
    fs = open_location(source.uris[0], source.options).fs
    units = plan_units(fs, choose_files(source), Labeller(source))
    return ImageSource(source, units, Reporter())


def _read_unit(source: SourceConfig, unit: Unit, reporter: Reporter) -> Iterator[pa.Table]:
    count = unit.given
    for block in _timed(blocks(read_rows(source, unit), source.carry), reporter):
        count += block.num_rows
        yield block
    reporter.shard(unit.name, count, unit.size)


def read_rows(source: SourceConfig, unit: Unit) -> Iterator[Row]:
    """The rows of one unit, through faults of the storage."""
    fs = open_location(source.uris[0], source.options).fs
    read = partial(_READERS[source.format], fs, unit, source)
    stand_in = partial(unread, unit.name, unit.files[0].name, source.id_prefix)
    rows = map(Labeller(source), reread(read, stand_in))
    wanted = wanted_ids(source)
    return rows if wanted is None else wanted.rows(rows)


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
    """All samples of a tar, or so many drawn, through faults of the storage."""
    read = partial(_read_tar, fs, file, source)
    if count is not None:
        read = partial(draw, read, count, source.sample_seed, _tells)
    return reread(read, partial(unread, file.name, file.name, source.id_prefix))


def _tells(row: Row) -> bool:
    """Whether a row stands for all that could not be read of its shard."""
    return bool(row["key"] == UNREADABLE)


def _read_tar(
    fs: fsspec.AbstractFileSystem, file: SourceFile, source: SourceConfig
) -> Iterator[Row]:
    with fs.open(file.path, "rb") as stream:
        whole = cast(IO[bytes], Whole(stream, file.size))  # all that reading front to back needs
        yield from read_shard(whole, file.name, source.id_prefix, source)


def _read_folder(fs: fsspec.AbstractFileSystem, unit: Unit, source: SourceConfig) -> Iterator[Row]:
    return read_files(fs, unit.files, source.id_prefix)


_READERS: dict[str, Callable[[Any, Unit, SourceConfig], Iterable[Row]]] = {
    "webdataset": _read_tars,
    "folder": _read_folder,
    "parquet": read_parquet,
    "list": read_list,
}
