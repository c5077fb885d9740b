"""Lists of image URIs: CSV, JSON lines or Parquet, with a row for each image.

A relative URI is relative to the list. Planning a run reads the list once, to find repeated keys
and broken lines; a read task then reads only the part of the list with its own rows.
"""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from threading import Lock

import fsspec

from pipeline.config import SourceConfig
from pipeline.errors import UsageError
from pipeline.machine import map_in_threads
from pipeline.schema import Status
from pipeline.sources.columns import Columns, choose_columns, column_of, table_row
from pipeline.sources.input_rows import Row, text_of
from pipeline.sources.keys import Keys, with_repeats
from pipeline.sources.label_values import label_in
from pipeline.sources.listing import SourceFile, version_of
from pipeline.sources.parquet import Visit
from pipeline.sources.read_unit import Part, Unit
from pipeline.sources.records import Record, read_records
from pipeline.sources.referenced_images import read_referenced, referenced_values
from pipeline.storage.location import Location, Options, redact

ROWS_PER_PART = 512
_PARTS_LOCK = Lock()  # threads that fetch images of one list wait for one reading of it
_USUAL_NAMES = ("image", "uri", "url", "image_uri", "image_url", "image_path", "path", "file_name")


def scan_list(
    location: Location, file: SourceFile, source: SourceConfig, visit: Visit | None
) -> list[Part]:
    """Cut a list into parts of at most `ROWS_PER_PART` rows.

    Args:
        location: the list.
        file: the list as an entry of the source.
        source: the settings.
        visit: called with number, key and label of every row.

    Raises:
        UsageError: the list is broken, or lacks a column.
    """
    parts: list[Part] = []
    keys, named = Keys(), False
    for record in read_records(location, _wanted(source)):
        columns = list_columns(record, source, file.name)
        key = _key(record, columns, location)
        keys.add(key)
        named = named or _uri(record, columns) is not None
        if visit is not None:
            visit(record.number, key, label_in(record.values, source, columns.label))
        _append(parts, record)
    if not named:
        raise UsageError(
            f"{file.name}: no row names an image; looked for a column "
            f"{source.image_field or ', '.join(_USUAL_NAMES)}. Name it in source.image_field"
        )
    return with_repeats(parts, keys.repeats())


def read_list(fs: fsspec.AbstractFileSystem, unit: Unit, source: SourceConfig) -> Iterator[Row]:
    """Yield the rows of a part of a list, with the bytes of their images.

    At most `machine.IO_THREADS` images are in memory at a time.
    """
    file, part = unit.files[0], unit.part
    location = Location(fs, file.path)
    records = read_records(location, _wanted(source), part)
    reader = _ImageReader(location, file, part, source)
    return map_in_threads(reader.row, (r for r in records if part is None or part.wants(r.number)))


def fetch_from_list(
    location: Location, row: int, source: SourceConfig, options: Options
) -> bytes | None:
    """Read the bytes of one image again: look up its URI in the list, then read the URI.

    The list is read once in a process, to find which of its bytes hold which rows.
    """
    info = location.fs.info(location.path)
    version = f"{version_of(info)} {info.get('size')}"
    with _PARTS_LOCK:
        parts = _parts(location, source.image_field, version)
    index = bisect_right(parts, row, key=lambda part: part.first) - 1
    if index < 0:
        return None
    for record in read_records(location, _wanted(source), parts[index]):
        if record.number == row:
            uri = _uri(record, list_columns(record, source, location.path))
            return None if uri is None else read_referenced(location, uri, options)
    return None


@lru_cache(maxsize=8)
def _parts(location: Location, image_field: str | None, version: str) -> list[Part]:  # noqa: ARG001
    """The parts of one version of a list."""
    source = SourceConfig(format="list", uri=(location.path,), image_field=image_field)
    return scan_list(location, SourceFile(location.path, location.path, 0), source, None)


def list_columns(record: Record, source: SourceConfig, where: str) -> Columns:
    """The columns to read; a JSON line need not have every field.

    Raises:
        UsageError: there is no column of URIs, or a column named in the settings is missing.
    """
    image = source.image_field or next((n for n in _USUAL_NAMES if n in record.values), None)
    names = list(record.values)
    if record.loose:
        image = image or _USUAL_NAMES[0]
        names += [image, source.label_field, source.caption_field]
        names += [*source.carry, *source.label_columns]
        names += [source.key_field] if source.key_field else []
    return choose_columns(list(dict.fromkeys(names)), image, source, where)


@dataclass(frozen=True)
class _ImageReader:
    """Reads the images that a list names."""

    location: Location
    file: SourceFile
    part: Part | None
    source: SourceConfig

    def row(self, record: Record) -> Row:
        """The row of one image; an image that cannot be read gives a row with a status."""
        columns = list_columns(record, self.source, self.file.name)
        key = _key(record, columns, self.location)
        row = table_row(
            self.file.name, record.number, key, record.values, columns, self.part, self.source
        )
        uri = _uri(record, columns)
        if uri is None:
            return row | {"status": Status.NO_IMAGE, "error": f"no URI in {columns.image!r}"}
        row |= referenced_values(self.location, uri, self.source.options)
        if "bytes" in row:
            row |= {"source_offset": 0, "source_length": len(row["bytes"])}
        return row


def _append(parts: list[Part], record: Record) -> None:
    """Add a record to the last part, or to a new one if that is full or of another row group.

    The sizes of images are unknown before they are read, so every row counts as one byte.
    """
    last = parts[-1] if parts else None
    if last is None or last.rows == ROWS_PER_PART or last.groups != record.groups:
        parts.append(Part(record.number, 1, 1, record.groups, record.span, record.names))
        return
    rows, span = last.rows + 1, (last.span[0], record.span[1])
    parts[-1] = replace(last, rows=rows, bytes=rows, span=span)


def _wanted(source: SourceConfig) -> list[str]:
    """The columns that may be needed; a wide table can have many more."""
    named = (source.image_field, source.key_field, source.caption_field)
    label = (source.label_field, column_of(source.label_field), *source.label_columns)
    names = (*named, *label, *_USUAL_NAMES, *source.carry)
    return [name for name in names if name is not None]


def _uri(record: Record, columns: Columns) -> str | None:
    value = record.values.get(columns.image)
    if isinstance(value, dict):
        value = value.get("path")
    return text_of(value)


def _key(record: Record, columns: Columns, location: Location) -> str:
    """The value of the key column, else the URI without secrets and query, else the number."""
    if columns.key:
        key = text_of(record.values.get(columns.key))
    else:
        key = redact(_uri(record, columns) or "")
        key = key.split("?", 1)[0] if location.is_web else key
    return key or f"#{record.number}"
