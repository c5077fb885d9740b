"""Parquet files that contain images, as Hugging Face writes them: one row per image.

A column of struct{bytes, path} or of plain binary holds the images. Where the bytes are null, the
path names a file, relative to the Parquet file.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.config import SourceConfig
from pipeline.schema import BOOK, UNREADABLE, Status
from pipeline.sources.columns import Columns, captions_in, pylist, table_row
from pipeline.sources.image_column import class_names
from pipeline.sources.input_rows import Row, failure, make_row, text_of
from pipeline.sources.keys import Keys, Repeats, SameImages, told
from pipeline.sources.label_values import LabelValue, each_label, label_in
from pipeline.sources.labels import class_name
from pipeline.sources.listing import SourceFile
from pipeline.sources.parquet_file import (
    batch_rows,
    columns_of,
    cut,
    image_of,
    is_broken,
    open_parquet,
)
from pipeline.sources.read_unit import Facts, Part, Scan, Unit, stand_in
from pipeline.sources.referenced_images import References
from pipeline.storage.location import Location

Visit = Callable[[int, str, LabelValue], None]
"""A function of number, key and label of a row."""


def scan_parquet(
    location: Location, file: SourceFile, source: SourceConfig, visit: Visit | None
) -> Scan:
    """Cut a file into parts of neighbouring row groups; reads its footer, and keys where needed.

    Args:
        location: the file.
        file: the file as an entry of the source.
        source: the settings.
        visit: called with number, key and label of every row that is kept.

    Returns:
        The parts, without rows that repeat an image; none for a broken file, for which
        `read_parquet` yields a row with a status.

    Raises:
        UsageError: the file lacks a column.
    """
    try:
        with open_parquet(location) as table:
            columns = columns_of(table, source, file.name)
            parts = list(cut(table.metadata))
            facts = _facts(table.schema_arrow, columns, source)
            if source.key_field is None and visit is None:
                return Scan(parts, facts)
            repeats = _repeats(table, columns)
            images = SameImages(repeats)
            if visit is not None or repeats.same:
                _visit(table, columns, source, images, visit)
    except Exception as error:
        if not is_broken(error):
            raise
        return Scan([])
    notes = told(repeats, table.metadata.num_rows, file.name)
    return Scan(images.placed(parts), replace(facts, notes=notes))


def _facts(schema: pa.Schema, columns: Columns, source: SourceConfig) -> Facts:
    """What the schema says; labels are known only where its metadata names them."""
    names = _class_names(schema, columns, source)
    return Facts(columns=columns.meanings, labels=None if names is None else frozenset(names))


def _class_names(
    schema: pa.Schema, columns: Columns, source: SourceConfig
) -> tuple[str, ...] | None:
    """Names of integer labels in the file's metadata, unless the settings name labels."""
    if columns.label is None or source.labels is not None or source.label_names is not None:
        return None
    return class_names(schema, columns.label)


def read_parquet(fs: fsspec.AbstractFileSystem, unit: Unit, source: SourceConfig) -> Iterator[Row]:
    """Yield the rows of a part of a file, in order.

    At most a batch (`READ_BLOCK_BYTES` of images of average size) and one page of every column are
    in memory. A broken row group gives the rows before the fault and one row with a status for the
    rest. An error of the storage is raised, so that the part is read again.
    """
    file, part = unit.files[0], unit.part
    location = Location(fs, file.path)
    try:
        with open_parquet(location) as table:
            reader = _GroupReader(location, table, unit, source)
            first = 0
            for group in range(table.num_row_groups):
                rows = table.metadata.row_group(group).num_rows
                if part is None or _touches(part, group, range(first, first + rows)):
                    yield from reader.rows(group, first)
                first += rows
    except Exception as error:
        if not is_broken(error):
            raise
        key = UNREADABLE if part is None else f"{UNREADABLE}-from-{unit.first}"
        yield _unreadable(file, source, key, failure(error), stand_in(unit.first))


def fetch_from_parquet(
    location: Location, group: int, row: int, source: SourceConfig
) -> bytes | None:
    """Read the bytes of one image again; reads only the image column of its row group."""
    with open_parquet(location) as table:
        columns = columns_of(table, source, location.path)
        size = batch_rows(table.metadata, group)
        for batch in table.iter_batches(size, row_groups=[group], columns=[columns.image]):
            if row < batch.num_rows:
                data, path = image_of(batch.column(0)[row].as_py())
                if data is None and path is not None:
                    return References.of(location, source).read(path)
                return data
            row -= batch.num_rows
    return None


def _touches(part: Part, group: int, rows: range) -> bool:
    return group in part.groups and (part.chosen is None or any(map(part.wants, rows)))


class _GroupReader:
    """Reads the row groups of an open file."""

    def __init__(
        self, location: Location, table: pq.ParquetFile, unit: Unit, source: SourceConfig
    ) -> None:
        self.location = location
        self.table = table
        self.file = unit.files[0]
        self.part = unit.part
        self.source = source
        self.columns = columns_of(table, source, self.file.name)
        self.class_names = _class_names(table.schema_arrow, self.columns, source)

    def rows(self, group: int, first: int) -> Iterator[Row]:
        """Yield the rows of a group whose first row has the number ``first`` within the file."""
        size = batch_rows(self.table.metadata, group)
        done = 0
        try:
            for batch in self.table.iter_batches(size, [group], self.columns.names):
                wanted = [i for i in range(batch.num_rows) if self._wants(first + done + i)]
                chosen = batch if len(wanted) == batch.num_rows else batch.take(wanted)
                for i, values in zip(wanted, pylist(chosen), strict=True):
                    yield self._row(values, group, done + i, first + done + i)
                done += batch.num_rows
        except Exception as error:
            if not is_broken(error):
                raise
            total = self.table.metadata.row_group(group).num_rows
            reason = f"row group {group} after {done} of {total} rows: {failure(error)}"
            key, number = f"{UNREADABLE}-{group}", stand_in(first, within=True)
            yield _unreadable(self.file, self.source, key, reason, number)

    def _wants(self, number: int) -> bool:
        return self.part is None or self.part.wants(number)

    def _row(self, values: dict[str, Any], group: int, row_in_group: int, number: int) -> Row:
        values = {**self.columns.folders, **values}
        key = text_of(values[self.columns.key]) if self.columns.key else str(number)
        row = table_row(self.file.name, number, key, values, self.columns, self.part, self.source)
        if self.class_names:
            row["label"] = each_label(row["label"], partial(class_name, names=self.class_names))
        row |= {"row_group": group, "row": row_in_group}
        data, path = image_of(values[self.columns.image])
        if data is None and path is not None:
            return row | References.of(self.location, self.source).values(path)
        if data is None:
            return row | {"status": Status.NO_IMAGE, "error": "neither bytes nor path"}
        return row | {"bytes": data}


def _repeats(table: pq.ParquetFile, columns: Columns) -> Repeats:
    """The repeated keys; the same key with another path is another image."""
    if columns.key is None:
        return Repeats()
    keys = Keys()
    path = f"{columns.image}.path"  # of struct{bytes, path}; its bytes are not read
    for number, values in _numbered(table, [columns.key, path]):
        image = values.get(columns.image)
        keys.add(_key(values, columns, number), text_of(image and image.get("path")) or "")
    return keys.repeats()


def _visit(
    table: pq.ParquetFile,
    columns: Columns,
    source: SourceConfig,
    images: SameImages,
    visit: Visit | None,
) -> None:
    """Collect what is said about images in several rows, and call ``visit`` for every other row."""
    wanted = [*columns.identifying, *([columns.caption] if columns.caption else [])]
    names = _class_names(table.schema_arrow, columns, source)
    for number, own_values in _numbered(table, wanted):
        values = {**columns.folders, **own_values}
        label = label_in(values, source, columns.label)
        if names:
            label = each_label(label, partial(class_name, names=names))
        is_repeat = images.add(number, label, captions_in(values, columns))
        if visit is not None and not is_repeat:
            visit(number, _key(values, columns, number), label)


def _numbered(
    table: pq.ParquetFile, columns: Sequence[str]
) -> Iterator[tuple[int, dict[str, Any]]]:
    """The number and some values of every row; names of columns that do not exist are ignored."""
    number = 0
    for batch in table.iter_batches(columns=list(columns)):
        rows = pylist(batch) if batch.num_columns else ({} for _ in range(batch.num_rows))
        for values in rows:
            yield number, values
            number += 1


def _key(values: Mapping[str, Any], columns: Columns, number: int) -> str:
    if columns.key is None:
        return str(number)
    return text_of(values[columns.key]) or f"#{number}"


def _unreadable(file: SourceFile, source: SourceConfig, key: str, error: str, number: int) -> Row:
    image_id = f"{source.id_prefix}{file.name}/{key}"
    values = {"status": Status.SHARD_ERROR, "error": error[:500], BOOK: number}
    return make_row(image_id, file.name, key, **values)
