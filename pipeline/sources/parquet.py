"""Parquet with images inside, as Hugging Face writes it: one row per image, read batch by batch.

A column of struct{bytes, path} or of plain binary holds the images. Where the bytes are null, the
path names a file, relative to the Parquet file.
"""

from collections.abc import Callable, Iterator
from typing import Any

import fsspec
import pyarrow.parquet as pq

from pipeline.config import SourceConfig
from pipeline.errors import UsageError
from pipeline.schema import BOOK, UNREADABLE, Status
from pipeline.sources.columns import Columns, pylist, table_row
from pipeline.sources.keys import Keys, with_repeats
from pipeline.sources.labels import class_name
from pipeline.sources.listing import SourceFile
from pipeline.sources.parquet_file import (
    batch_rows,
    class_names,
    columns_of,
    cut,
    image_of,
    is_broken,
    open_parquet,
)
from pipeline.sources.read_unit import Part, Unit, stand_in
from pipeline.sources.referenced_images import read_referenced
from pipeline.sources.rows import Row, failure, make_row, text_of
from pipeline.storage.location import Location, Options

Visit = Callable[[int, str, str | None], None]
"""Called with number, key and label of every row of a file."""


def scan_parquet(
    place: Location, file: SourceFile, source: SourceConfig, visit: Visit | None
) -> list[Part]:
    """Cut a file into parts of neighbouring row groups; reads its footer, and keys where needed.

    Args:
        place: of the file.
        file: the same, as it is named.
        source: the settings.
        visit: called with number, key and label of every row.

    Returns:
        The parts; none for a broken file, for which its reader makes a row.

    Raises:
        UsageError: it lacks a column.
    """
    try:
        with open_parquet(place) as table:
            columns = columns_of(table.schema_arrow, source, file.name)
            parts = list(cut(table.metadata))
            if source.key_field is None and visit is None:
                return parts
            repeats = _visit(table, columns, visit)
    except Exception as error:
        if not is_broken(error):
            raise
        return []
    return with_repeats(parts, repeats)


def read_parquet(fs: fsspec.AbstractFileSystem, unit: Unit, source: SourceConfig) -> Iterator[Row]:
    """Rows of a part of a file, in its order.

    Holds at most a batch (`BLOCK_BYTES` of images of average size) and one page of every column.
    A row group that is broken gives the rows before the fault and one row with a status for the
    rest. An error of the storage is raised: the part is to be read again.
    """
    file, part = unit.files[0], unit.part
    place = Location(fs, file.path)
    try:
        with open_parquet(place) as table:
            columns = columns_of(table.schema_arrow, source, file.name)
            first = 0
            for group in range(table.num_row_groups):
                rows = table.metadata.row_group(group).num_rows
                if part is None or _touches(part, group, range(first, first + rows)):
                    yield from _GroupReader(place, table, columns, file, part, source).rows(
                        group, first
                    )
                first += rows
    except Exception as error:
        if not is_broken(error):
            raise
        number = stand_in(unit.first)
        yield _unreadable(file, source, UNREADABLE, failure(error), number)


def fetch_from_parquet(
    place: Location, group: int, row: int, image_field: str | None, options: Options
) -> bytes | None:
    """The bytes of one image again: of its row group, only the image column is read."""
    source = SourceConfig(format="parquet", uri=(place.path,), image_field=image_field)
    with open_parquet(place) as table:
        columns = columns_of(table.schema_arrow, source, place.path)
        size = batch_rows(table.metadata, group)
        seen = 0
        batches = table.iter_batches(size, row_groups=[group], columns=[columns.image])
        for batch in batches:
            if row < seen + batch.num_rows:
                value = batch.column(0)[row - seen].as_py()
                data, path = image_of(value)
                return (
                    data
                    if data is not None or path is None
                    else read_referenced(place, path, options)
                )
            seen += batch.num_rows
    return None


def _touches(part: Part, group: int, rows: range) -> bool:
    return group in part.groups and (part.chosen is None or any(map(part.wants, rows)))


class _GroupReader:
    """Reads the row groups of an open file."""

    def __init__(
        self,
        place: Location,
        table: pq.ParquetFile,
        columns: Columns,
        file: SourceFile,
        part: Part | None,
        source: SourceConfig,
    ) -> None:
        self.place = place
        self.table = table
        self.columns = columns
        self.file = file
        self.part = part
        self.source = source
        own = source.labels is None and source.label_names is None
        self.names = class_names(table.schema_arrow, source.label_field) if own else None

    def rows(self, group: int, first: int) -> Iterator[Row]:
        """Rows of one group, whose first has the number ``first`` within the file."""
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
            what = f"row group {group} after {done} of {total} rows: {failure(error)}"
            key, number = f"{UNREADABLE}-{group}", stand_in(first, within=True)
            yield _unreadable(self.file, self.source, key, what, number)

    def _wants(self, number: int) -> bool:
        return self.part is None or self.part.wants(number)

    def _row(self, values: dict[str, Any], group: int, row: int, number: int) -> Row:
        key = text_of(values[self.columns.key]) if self.columns.key else str(number)
        prefix, data = self.source.id_prefix, values[self.columns.image]
        found = table_row(
            prefix, self.file.name, number, key, values, self.columns, self.part, self.source
        )
        if self.names and found["label"] is not None:
            found["label"] = class_name(found["label"], self.names)
        found |= {"row_group": group, "row": row}
        data, path = image_of(data)
        if data is None and path is not None:
            return found | _neighbour(self.place, path, self.source)
        if data is None:
            return found | {"status": Status.NO_IMAGE, "error": "neither bytes nor path"}
        return found | {"bytes": data}


def _neighbour(place: Location, path: str, source: SourceConfig) -> Row:
    try:
        return {"bytes": read_referenced(place, path, source.options)}
    except UsageError as error:
        return {"status": Status.READ_ERROR, "error": str(error)[:500]}


def _visit(table: pq.ParquetFile, columns: Columns, visit: Visit | None) -> dict[int, int]:
    keys, number = Keys(), 0
    if not columns.identifying:
        for row in range(table.metadata.num_rows if visit else 0):
            visit(row, str(row), None)  # type: ignore[misc]
        return {}
    for batch in table.iter_batches(columns=columns.identifying):
        for values in pylist(batch):
            key = text_of(values[columns.key]) if columns.key else str(number)
            key = f"#{number}" if key is None else key
            if columns.key:
                keys.add(key)
            if visit is not None:
                visit(number, key, text_of(values[columns.label]) if columns.label else None)
            number += 1
    return keys.repeats()


def _unreadable(file: SourceFile, source: SourceConfig, key: str, why: str, number: int) -> Row:
    image_id = f"{source.id_prefix}{file.name}/{key}"
    values = {"status": Status.SHARD_ERROR, "error": why[:500], BOOK: number}
    return make_row(image_id, file.name, key, **values)
