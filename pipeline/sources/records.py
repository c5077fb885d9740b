"""Records of a list (CSV, JSON lines or Parquet), and where in its file each of them is.

pandas and pyarrow read CSV faster but do not say which bytes of the file hold a record, which a
read task must know to read only its part.
"""

import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import IO, Any

import pyarrow as pa

from pipeline.errors import UsageError
from pipeline.sources.columns import pylist
from pipeline.sources.parquet_file import is_broken, open_parquet
from pipeline.sources.read_unit import Part
from pipeline.storage.location import Location, explain_failure, is_storage_error, redact

_BATCH_ROWS = 4096
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Record:
    """One record of a table.

    Attributes:
        number: number of the record within the file, from 0.
        values: value of each column.
        span: offsets of its first byte and of the byte after its last (text).
        names: names of the columns (CSV).
        groups: the row group that holds it (Parquet).
        loose: whether other records may have other columns (JSON lines).
    """

    number: int
    values: dict[str, Any]
    span: tuple[int, int] = (0, 0)
    names: tuple[str, ...] = ()
    groups: tuple[int, ...] = ()
    loose: bool = False


def read_records(
    location: Location, wanted: Sequence[str], part: Part | None = None
) -> Iterator[Record]:
    """Yield the records of a file or of a part of it, in order; a few thousand are in memory.

    Args:
        location: the file; the ending of its name decides how it is read.
        wanted: columns that are needed; others are read only where that costs nothing.
        part: the part to read; default all.

    Raises:
        UsageError: the file is broken, or its name has another ending.
    """
    try:
        yield from _reader(location)(location, wanted, part)
    except Exception as error:
        if is_broken(error) or isinstance(error, csv.Error):
            raise UsageError(f"{redact(location.path)}: {type(error).__name__}: {error}") from error
        if isinstance(error, UsageError) or not is_storage_error(error):
            raise
        raise explain_failure(location.path, error) from error


def _reader(location: Location) -> "_Reader":
    name = (location.path.split("?", 1)[0] if location.is_web else location.path).lower()
    for suffixes, reader in _READERS.items():
        if name.endswith(suffixes):
            return reader
    raise UsageError(f"{redact(location.path)}: a list is {' or '.join(LIST_SUFFIXES)}")


def _parquet(location: Location, wanted: Sequence[str], part: Part | None) -> Iterator[Record]:
    with open_parquet(location) as table:
        names = table.schema_arrow.names
        columns = [name for name in names if name in wanted] or names
        first = 0
        for group in range(table.num_row_groups):
            rows = table.metadata.row_group(group).num_rows
            if part is None or group in part.groups:
                number = first
                for batch in table.iter_batches(_BATCH_ROWS, [group], columns):
                    yield from _of_batch(batch, number, group, part)
                    number += batch.num_rows
            first += rows


def _of_batch(batch: pa.RecordBatch, first: int, group: int, part: Part | None) -> Iterator[Record]:
    start, stop = 0, batch.num_rows
    if part is not None:
        start, stop = max(0, part.first - first), min(stop, part.first + part.rows - first)
    if start < stop:
        values = pylist(batch.slice(start, stop - start))
        for row, value in enumerate(values, start):
            yield Record(first + row, value, groups=(group,))


def _text(
    parse: "_Parser",
    location: Location,
    wanted: Sequence[str],  # noqa: ARG001 - lines are read whole
    part: Part | None,
) -> Iterator[Record]:
    if part is not None:
        start, stop = part.span
        data = location.fs.cat_file(location.path, start=start, end=stop)
        yield from parse(_Lines(io.BytesIO(data), start, location.path), part.first, part.names)
        return
    with location.fs.open(location.path, "rb") as stream:
        yield from parse(_Lines(stream, 0, location.path), 0, ())


class _Lines:
    """The lines of a stream as text, with the offset in the file up to which they were read."""

    def __init__(self, stream: IO[bytes], offset: int, name: str) -> None:
        self.stream = stream
        self.offset = offset
        self.name = redact(name)

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        line = self.stream.readline()
        if not line:
            raise StopIteration
        text = line.removeprefix(_BOM) if self.offset == 0 else line
        self.offset += len(line)
        return text.decode("utf-8", "backslashreplace")


def _csv(lines: _Lines, first: int, names: tuple[str, ...]) -> Iterator[Record]:
    reader = csv.reader(lines, strict=True)
    names = names or tuple(name.strip() for name in next(reader, []))
    number, start = first, lines.offset
    for values in reader:
        span, start = (start, lines.offset), lines.offset
        if values:  # an empty line is no record
            short = [value or None for value in values] + [None] * (len(names) - len(values))
            record = dict(zip(names, short, strict=False))
            yield Record(number, record, span, names)
            number += 1


def _json_lines(lines: _Lines, first: int, names: tuple[str, ...]) -> Iterator[Record]:
    number, start = first, lines.offset
    for line in lines:
        span, start = (start, lines.offset), lines.offset
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UsageError(f"{lines.name}: record {number} is not valid JSON: {error}") from error
        if not isinstance(value, dict):
            raise UsageError(f"{lines.name}: record {number} is not a JSON object")
        yield Record(number, value, span, names, loose=True)
        number += 1


_Parser = Callable[[_Lines, int, tuple[str, ...]], Iterator[Record]]
_Reader = Callable[[Location, Sequence[str], Part | None], Iterator[Record]]
_READERS: dict[tuple[str, ...], _Reader] = {
    (".csv",): partial(_text, _csv),
    (".jsonl", ".ndjson"): partial(_text, _json_lines),
    (".parquet",): _parquet,
}
LIST_SUFFIXES = tuple(suffix for suffixes in _READERS for suffix in suffixes)
