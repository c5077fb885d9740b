"""Records of a list (CSV, TSV, JSON lines or Parquet), and where in its file each of them is.

pandas and pyarrow read CSV faster but do not say which bytes of the file hold a record, which a
read task must know to read only its part.
"""

import csv
import io
import json
import posixpath
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import IO, Any

import pyarrow as pa

from pipeline.errors import UsageError
from pipeline.sources.columns import pylist
from pipeline.sources.parquet_file import is_broken, open_parquet
from pipeline.sources.read_unit import Part, TextForm
from pipeline.storage.location import Location, explain_failure, is_storage_error, redact
from pipeline.storage.text import decode, delimiter_of, encoding_of

_BATCH_ROWS = 4096
Wanted = Callable[[Sequence[str]], Sequence[str]]
"""A function that takes names of columns and returns those that are needed."""


@dataclass(frozen=True)
class Record:
    """One record of a table.

    Attributes:
        number: number of the record within the file, from 0.
        values: value of each column.
        span: offsets of its first byte and of the byte after its last (text).
        form: how its text is written.
        is_guess: whether the encoding of its text is a guess.
        groups: the row group that holds it (Parquet).
        loose: whether other records may have other columns (JSON lines).
    """

    number: int
    values: dict[str, Any]
    span: tuple[int, int] = (0, 0)
    form: TextForm = field(default_factory=TextForm)
    is_guess: bool = False
    groups: tuple[int, ...] = ()
    loose: bool = False


def read_records(location: Location, wanted: Wanted, part: Part | None = None) -> Iterator[Record]:
    """Yield the records of a file or of a part of it, in order; a few thousand are in memory.

    Args:
        location: the file; the ending of its name decides how it is read.
        wanted: says which of some columns are needed; others are read where that costs nothing.
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
    advice = conversion(redact(location.path))
    raise UsageError(f"{redact(location.path)}: a list is {' or '.join(LIST_SUFFIXES)}{advice}")


def conversion(path: str) -> str:
    """What to type to make a list of a file of another kind; empty if it is none of the usual."""
    stem, ending = posixpath.splitext(path)
    command = _COMMANDS.get(ending.lower(), "")
    return f". Convert it: {command.format(path=path, stem=stem)}" if command else ""


def _parquet(location: Location, wanted: Wanted, part: Part | None) -> Iterator[Record]:
    with open_parquet(location) as table:
        names = table.schema_arrow.names
        columns = list(wanted(names)) or names
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
    wanted: Wanted,  # noqa: ARG001 - lines are read whole
    part: Part | None,
) -> Iterator[Record]:
    if part is not None:
        start, stop = part.span
        data = location.read_range(start, stop)
        lines = _Lines(io.BytesIO(data), start, part.form.encoding, location.path)
        yield from parse(lines, part.first, part.form)
        return
    with location.fs.open(location.path, "rb") as opened:
        can_seek = getattr(opened, "size", 0) is not None  # not on a server without ranges or sizes
        stream = opened if can_seek else io.BytesIO(opened.read())
        encoding = encoding_of(stream.read(2))
        stream.seek(0)
        yield from parse(_Lines(stream, 0, encoding, location.path), 0, None)


class _Lines:
    """The lines of a stream as text, with the offset in the file up to which they were read.

    Attributes:
        offset: bytes of the file that were read.
        is_guess: whether the encoding of a line was a guess; the reader sets it back.
    """

    def __init__(self, stream: IO[bytes], offset: int, encoding: str, name: str) -> None:
        self.offset = offset
        self.encoding = encoding
        self.is_guess = False
        self.name = redact(name)
        self._stream = stream

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        line = self._line()
        if not line:
            raise StopIteration
        text, is_guess = decode(line, self.encoding)
        self.is_guess |= is_guess
        text = text.removeprefix("\ufeff") if self.offset == 0 else text
        self.offset += len(line)
        return text

    def _line(self) -> bytes:
        """The bytes of a line; a newline of UTF-16 has two, which others have too."""
        line = self._stream.readline()
        if self.encoding == "utf-8":
            return line
        newline = "\n".encode(self.encoding)
        while line and (len(line) % 2 or not line.endswith(newline)):
            rest = self._stream.read(1) if len(line) % 2 else self._stream.readline()
            if not rest:
                break
            line += rest
        return line


def _csv(lines: _Lines, first: int, form: TextForm | None) -> Iterator[Record]:
    if form is None:
        header = next(lines, "")
        delimiter = delimiter_of(header)
        reader = csv.reader(chain([header], lines), delimiter=delimiter, strict=True)
        names = tuple(name.strip() for name in next(reader, []))
        form = TextForm(names, delimiter, lines.encoding)
    else:
        reader = csv.reader(lines, delimiter=form.delimiter, strict=True)
    number, start = first, lines.offset
    for values in reader:
        span, start = (start, lines.offset), lines.offset
        if values:  # an empty line is no record
            short = [value or None for value in values]
            short += [None] * (len(form.names) - len(values))
            record = dict(zip(form.names, short, strict=False))
            yield Record(number, record, span, form, lines.is_guess)
            number += 1
        lines.is_guess = False


def _json_lines(lines: _Lines, first: int, form: TextForm | None) -> Iterator[Record]:
    form = form or TextForm(encoding=lines.encoding)
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
        yield Record(number, value, span, form, lines.is_guess, loose=True)
        number, lines.is_guess = number + 1, False


_COMMANDS = {
    ".gz": "gunzip --keep {path}",
    ".bz2": "bunzip2 --keep {path}",
    ".xz": "unxz --keep {path}",
    ".zst": "unzstd {path}",
    ".json": "python -c \"import pandas as p; p.read_json('{path}').to_json('{stem}.jsonl', "
    "orient='records', lines=True)\"",
    ".txt": "python -c \"import pandas as p; p.read_csv('{path}', sep=' ', header=None, "
    "names=['image', 'label']).to_csv('{stem}.csv', index=False)\"",
    ".xlsx": "python -c \"import pandas as p; p.read_excel('{path}').to_csv('{stem}.csv', "
    'index=False)"',
}
_Parser = Callable[[_Lines, int, TextForm | None], Iterator[Record]]
_Reader = Callable[[Location, Wanted, Part | None], Iterator[Record]]
_READERS: dict[tuple[str, ...], _Reader] = {
    (".csv", ".tsv"): partial(_text, _csv),
    (".jsonl", ".ndjson"): partial(_text, _json_lines),
    (".parquet",): _parquet,
}
LIST_SUFFIXES = tuple(suffix for suffixes in _READERS for suffix in suffixes)
