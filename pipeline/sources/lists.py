"""Lists of image URIs: CSV, TSV, JSON lines or Parquet, with a row for each image.

A relative URI is relative to the list, or to ``source.image_root``. Planning a run reads the list
once, to find repeated keys and broken lines; a read task then reads only the part of the list with
its own rows.
"""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice
from threading import Lock

import fsspec

from pipeline.config import SourceConfig
from pipeline.errors import UsageError, counted
from pipeline.machine import map_in_threads
from pipeline.schema import Status
from pipeline.sources.column_names import (
    column_of_paths,
    has_image_extension,
    is_usual,
    path_in,
)
from pipeline.sources.columns import (
    Columns,
    captions_in,
    choose_columns,
    column_of,
    table_row,
)
from pipeline.sources.input_rows import Row, text_of
from pipeline.sources.keys import Keys, SameImages, told
from pipeline.sources.label_values import label_in, labels_of
from pipeline.sources.listing import SourceFile, version_of
from pipeline.sources.parquet import Visit
from pipeline.sources.read_unit import Facts, Part, Scan, Unit
from pipeline.sources.records import Record, Wanted, read_records
from pipeline.sources.referenced_images import References
from pipeline.storage.location import Location, redact
from pipeline.storage.text import GUESSED

ROWS_PER_PART = 512
_PARTS_LOCK = Lock()  # threads that fetch images of one list wait for one reading of it
_FIRST_RECORDS = 64
_MOST_LABELS = 100_000
"""Distinct labels of a list that are collected; a column with more holds no classes."""


def scan_list(
    location: Location, file: SourceFile, source: SourceConfig, visit: Visit | None
) -> Scan:
    """Cut a list into parts of at most `ROWS_PER_PART` rows.

    Rows that repeat an image are left out, and what they say goes to its first row; only a list
    with such rows, or for `visit`, is read twice.

    Args:
        location: the list.
        file: the list as an entry of the source.
        source: the settings.
        visit: called with number, key and label of every row that is kept.

    Raises:
        UsageError: the list is broken, or lacks a column.
    """
    parts: list[Part] = []
    keys, rows, guesses = Keys(), 0, 0
    labels: set[str] = set()
    image = _image_column(location, file, source)
    columns_of = ColumnsOf(image, source, file.name)
    for record in read_records(location, wanted_by(source, image)):
        columns = columns_of(record)
        keys.add(_key(record, columns, location), path_in(record.values.get(image)) or "")
        if len(labels) <= _MOST_LABELS:
            labels.update(labels_of(label_in(record.values, source, columns.label)))
        rows, guesses = rows + 1, guesses + record.is_guess
        _append(parts, record, image)
    repeats = keys.repeats()
    images = SameImages(repeats)
    again = read_records(location, wanted_by(source, image)) if repeats.same or visit else ()
    for record in again:
        columns = columns_of(record)
        label = label_in(record.values, source, columns.label)
        is_repeat = images.add(record.number, label, captions_in(record.values, columns))
        if visit is not None and not is_repeat:
            visit(record.number, _key(record, columns, location), label)
    notes = [*told(repeats, rows, file.name), *_encoding_notes(parts[0], guesses, file.name)]
    all_labels = frozenset(labels) if len(labels) <= _MOST_LABELS else None
    return Scan(images.placed(parts), Facts(tuple(notes), columns_of.meanings, all_labels))


def read_list(fs: fsspec.AbstractFileSystem, unit: Unit, source: SourceConfig) -> Iterator[Row]:
    """Yield the rows of a part of a list, with the bytes of their images.

    At most `machine.IO_THREADS` images are in memory at a time.
    """
    file, part = unit.files[0], unit.part
    location = Location(fs, file.path)
    if part is None:
        raise ValueError(f"{unit.name}: a list is read in parts")
    records = read_records(location, wanted_by(source, part.image), part)
    reader = _ImageReader(location, file, part, source, ColumnsOf(part.image, source, file.name))
    return map_in_threads(reader.row, (r for r in records if part.wants(r.number)))


def fetch_from_list(location: Location, row: int, source: SourceConfig) -> bytes | None:
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
    image = parts[index].image
    for record in read_records(location, wanted_by(source, image), parts[index]):
        if record.number == row:
            uri = path_in(record.values.get(image))
            return None if uri is None else References.of(location, source).read(uri)
    return None


@lru_cache(maxsize=8)
def _parts(location: Location, image_field: str | None, version: str) -> list[Part]:  # noqa: ARG001
    """All parts of one version of a list, with the rows that repeat an image."""
    source = SourceConfig(format="list", uri=(location.path,), image_field=image_field)
    image = _image_column(location, SourceFile(location.path, location.path, 0), source)
    parts: list[Part] = []
    for record in read_records(location, wanted_by(source, image)):
        _append(parts, record, image)
    return parts


class ColumnsOf:
    """The columns to read of each record of a list, chosen once for all with the same names.

    Args:
        image: the column of the images.
        source: the settings.
        where: the list, for messages.
    """

    def __init__(self, image: str, source: SourceConfig, where: str) -> None:
        self.image = image
        self.source = source
        self.where = where
        self._chosen: dict[tuple[str, ...], Columns] = {}

    def __call__(self, record: Record) -> Columns:
        """The columns of a record; a JSON line need not have every field.

        Raises:
            UsageError: a column named in the settings is missing.
        """
        names = tuple(record.values)
        if names not in self._chosen:
            optional = self._settings() if record.loose else []
            every = list(dict.fromkeys([*names, *optional]))
            self._chosen[names] = choose_columns(every, self.image, self.source, self.where)
        return self._chosen[names]

    @property
    def meanings(self) -> dict[str, str]:
        """Names of the columns of all records so far, by what they hold."""
        return {what: name for c in self._chosen.values() for what, name in c.meanings.items()}

    def _settings(self) -> list[str]:
        """The fields that the settings name."""
        source, chosen = self.source, self.source.model_fields_set
        fields = {
            "key_field": source.key_field,
            "label_field": source.label_field,
            "caption_field": source.caption_field,
        }
        named = [name for setting, name in fields.items() if setting in chosen and name is not None]
        return [self.image, *named, *source.carry, *source.label_columns]


def wanted_by(source: SourceConfig, image: str | None) -> Wanted:
    """Says which columns may be needed; a wide table can have many more."""
    fields = {image, source.key_field, source.label_field, column_of(source.label_field)}
    fields |= {source.caption_field, *source.carry, *source.label_columns}
    return lambda names: [name for name in names if name in fields or is_usual(name)]


def _image_column(location: Location, file: SourceFile, source: SourceConfig) -> str:
    """The column that names the images.

    Raises:
        UsageError: there is none, or the list has no rows or no header.
    """
    first = list(islice(read_records(location, list), _FIRST_RECORDS))
    names = list(dict.fromkeys(name for record in first for name in record.values))
    has = f"it has {', '.join(map(repr, names)) or 'no rows'}"
    if source.image_field is not None:
        if source.image_field not in names and not (first and first[0].loose):
            raise UsageError(
                f"source.image_field: {file.name} has no column {source.image_field!r}; {has}"
            )
        return source.image_field
    if any(map(has_image_extension, names)):
        raise UsageError(
            f"{file.name}: the first line {names} looks like an image and not like the names of "
            "columns. Put a line such as image,label before it"
        )
    image = column_of_paths([record.values for record in first])
    if image is None:
        raise UsageError(
            f"{file.name}: no column names images by a path or URI; {has}. Name it in "
            "source.image_field"
        )
    return image


def _encoding_notes(part: Part, guesses: int, where: str) -> list[str]:
    """Notes on a list that is not in UTF-8."""
    if part.form.encoding != "utf-8":
        return [f"{where}: read as {part.form.encoding.upper()}"]
    return [f"{where}: {counted(guesses, 'row')} read as {GUESSED}"] if guesses else []


@dataclass(frozen=True)
class _ImageReader:
    """Reads the images that a list names."""

    location: Location
    file: SourceFile
    part: Part
    source: SourceConfig
    columns_of: ColumnsOf

    def row(self, record: Record) -> Row:
        """The row of one image; an image that cannot be read gives a row with a status."""
        columns = self.columns_of(record)
        key = _key(record, columns, self.location)
        row = table_row(
            self.file.name, record.number, key, record.values, columns, self.part, self.source
        )
        uri = path_in(record.values.get(columns.image))
        if uri is None:
            return row | {"status": Status.NO_IMAGE, "error": f"no URI in {columns.image!r}"}
        row |= References.of(self.location, self.source).values(uri)
        if "bytes" in row:
            row |= {"source_offset": 0, "source_length": len(row["bytes"])}
        return row


def _append(parts: list[Part], record: Record, image: str) -> None:
    """Add a record to the last part, or to a new one if that is full or of another row group.

    The sizes of images are unknown before they are read, so every row counts as one byte.
    """
    last = parts[-1] if parts else None
    if last is None or last.rows == ROWS_PER_PART or last.groups != record.groups:
        parts.append(Part(record.number, 1, 1, record.groups, record.span, record.form, image))
        return
    rows, span = last.rows + 1, (last.span[0], record.span[1])
    parts[-1] = replace(last, rows=rows, bytes=rows, span=span)


def _key(record: Record, columns: Columns, location: Location) -> str:
    """The value of the key column, else the URI without secrets and query, else the number."""
    if columns.key:
        key = text_of(record.values.get(columns.key))
    else:
        key = redact(path_in(record.values.get(columns.image)) or "")
        key = key.split("?", 1)[0] if location.is_web else key
    return key or f"#{record.number}"
