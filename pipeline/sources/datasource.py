"""The Ray Data side of a source: units of reading, each one task."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import IO, Any, cast

import fsspec
import pyarrow as pa
from ray.data import DataContext
from ray.data.block import BlockMetadata
from ray.data.datasource import Datasource, ReadTask

from pipeline.config import SourceConfig
from pipeline.errors import UsageError
from pipeline.progress import Reporter
from pipeline.schema import source_schema
from pipeline.sources.folder import chunks, read_files
from pipeline.sources.listing import SourceFile, list_files
from pipeline.sources.retry import Whole, reread, unread
from pipeline.sources.rows import Row, blocks
from pipeline.sources.webdataset import read_shard
from pipeline.storage import locate

FILES_PER_UNIT = 256
BYTES_PER_UNIT = 64 * 2**20


@dataclass(frozen=True)
class Unit:
    """What one read task reads: a tar, or a chunk of a folder's files."""

    name: str
    files: tuple[SourceFile, ...]

    @property
    def size(self) -> int:
        """Bytes of its files."""
        return sum(file.size for file in self.files)


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
                    input_files=tuple(file.path for file in unit.files),
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
        UsageError: nothing is there, the storage refuses, or two files have one name.
    """
    suffixes = (".tar", ".tar.gz", ".tgz") if source.format == "webdataset" else ()
    if len({type(locate(uri, source.options).fs) for uri in source.uri}) > 1:
        raise UsageError("source.uri: all places must be in one kind of storage")
    files = [file for uri in source.uri for file in list_files(uri, source.options, suffixes)]
    source.refuse_same_names([file.name for file in files])
    if source.format == "webdataset":
        units = [Unit(file.name, (file,)) for file in files]
    else:
        groups = chunks(files, FILES_PER_UNIT, BYTES_PER_UNIT)
        units = [Unit(group[0].name, tuple(group)) for group in groups]
    return ImageSource(source, units, Reporter())


def _read_unit(source: SourceConfig, unit: Unit, reporter: Reporter) -> Iterator[pa.Table]:
    rows = 0
    for block in _timed(blocks(read_rows(source, unit), source.carry), reporter):
        rows += block.num_rows
        yield block
    reporter.shard(unit.name, rows, unit.size)


def read_rows(source: SourceConfig, unit: Unit) -> Iterator[Row]:
    """The rows of one unit, through faults of the storage."""
    fs = locate(source.uri[0], source.options).fs
    read = partial(_READERS[source.format], fs, unit, source)
    return reread(read, partial(unread, unit.name, source.id_prefix))


def _timed(tables: Iterator[pa.Table], reporter: Reporter) -> Iterator[pa.Table]:
    """Count the time spent reading, not the time the consumer takes."""
    while True:
        with reporter.timed("read"):
            table = next(tables, None)
        if table is None:
            return
        yield table


def _read_tar(fs: fsspec.AbstractFileSystem, unit: Unit, source: SourceConfig) -> Iterator[Row]:
    file = unit.files[0]
    with fs.open(file.path, "rb") as stream:
        whole = cast(IO[bytes], Whole(stream, file.size))  # all that reading front to back needs
        yield from read_shard(whole, file.name, source.id_prefix, source)


def _read_folder(fs: fsspec.AbstractFileSystem, unit: Unit, source: SourceConfig) -> Iterator[Row]:
    return read_files(fs, unit.files, source.id_prefix)


_READERS: dict[str, Callable[[Any, Unit, SourceConfig], Iterable[Row]]] = {
    "webdataset": _read_tar,
    "folder": _read_folder,
}
