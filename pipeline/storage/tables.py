"""Read the tables that users provide, and write tables for them.

All tables are read by the same rules: the content decides between CSV and Parquet, between comma,
tab, semicolon and bar, and between UTF-8, UTF-16 and Latin-1; every column is read as text, and an
empty cell is null.
"""

import io
import json
from collections.abc import Sequence

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from pipeline.errors import UsageError
from pipeline.storage.location import Options, open_location, redact
from pipeline.storage.text import as_utf8, delimiter_of


def read_table(uri: str, columns: Sequence[str], options: Options | None = None) -> pd.DataFrame:
    """Read some columns of a table as text; an empty or null cell is the empty string.

    Raises:
        UsageError: the file is missing, is not a table, or lacks a column.
    """
    return parse_table(open_location(uri, options).read(), uri, columns)


def parse_table(data: bytes, uri: str, columns: Sequence[str]) -> pd.DataFrame:
    """Parse the bytes of a table; the result and the errors are those of `read_table`."""
    frame: pd.DataFrame = parse_columns(data, uri, columns).to_pandas()
    return frame.fillna("").astype(str)


def column_names(data: bytes, uri: str) -> list[str]:
    """Names of the columns of a CSV or Parquet file.

    Raises:
        UsageError: the file is not a table.
    """
    try:
        return _parquet_names(data) if data.startswith(b"PAR1") else _csv_names(data)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{redact(uri)}: expected a CSV or Parquet table: {error}") from error


def parse_columns(data: bytes, uri: str, columns: Sequence[str]) -> pa.Table:
    """Parse some columns of a CSV or Parquet file.

    Args:
        data: content of the file.
        uri: its name, for messages.
        columns: names of the columns to read; all must exist.

    Returns:
        A table of these columns as ``large_string``; an empty or null cell is null. A column of
        lists (Parquet) becomes lists of ``large_string``.

    Raises:
        UsageError: the file is not a table, or lacks a column.
    """
    wanted = list(dict.fromkeys(columns))
    parse = _parquet if data.startswith(b"PAR1") else _csv
    names = column_names(data, uri)
    try:
        missing = [name for name in wanted if name not in names]
        if missing:
            raise UsageError(
                f"{redact(uri)}: no column {missing[0]!r}; expected {', '.join(wanted)}, found "
                f"{', '.join(names) or 'none'}"
            )
        table = parse(data, wanted)
        texts = [_as_text(table[name]) for name in wanted]
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{redact(uri)}: expected a CSV or Parquet table: {error}") from error
    return pa.table(texts, names=wanted)


def _as_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        return column.cast(pa.list_(pa.large_string()))
    text = column.cast(pa.large_string())
    return pc.if_else(pc.equal(text, ""), pa.scalar(None, text.type), text)


def _parquet(data: bytes, columns: Sequence[str]) -> pa.Table:
    return pq.read_table(io.BytesIO(data), columns=list(columns))


def _parquet_names(data: bytes) -> list[str]:
    return list(pq.read_schema(io.BytesIO(data)).names)


def _csv(data: bytes, columns: Sequence[str]) -> pa.Table:
    lines, parse_options = _text(data)
    types = dict.fromkeys(columns, pa.large_string())
    return pa.csv.read_csv(
        lines,
        convert_options=pa.csv.ConvertOptions(include_columns=list(columns), column_types=types),
        parse_options=parse_options,
    )


def _csv_names(data: bytes) -> list[str]:
    lines, parse_options = _text(data)
    return list(pa.csv.open_csv(lines, parse_options=parse_options).schema.names)


def _text(data: bytes) -> tuple[io.BytesIO, pa.csv.ParseOptions]:
    """The text in UTF-8, and how it is parsed.

    It gets a final newline, without which pyarrow refuses a table of only a header.
    """
    lines, _ = as_utf8(data)
    delimiter = delimiter_of(lines.split(b"\n", 1)[0].decode())
    options = pa.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True)
    return io.BytesIO(lines if lines.endswith(b"\n") else lines + b"\n"), options


def require_values(frame: pd.DataFrame, columns: Sequence[str], uri: str) -> None:
    """Check that no cell of some columns is empty.

    Raises:
        UsageError: a cell is empty or null; the message names its line.
    """
    for name in columns:
        empty = frame[name].isna() | (frame[name].astype(str).str.strip() == "")
        if empty.any():
            line = int(empty.to_numpy().argmax()) + 2
            raise UsageError(f"{uri}, line {line}: {name} is empty; expected a value in every line")


def require_table_name(uri: str) -> None:
    """Refuse a name that `write_table` cannot write to, before anything is computed.

    Raises:
        UsageError: its ending is none of a table's.
    """
    if not uri.endswith((".csv", ".parquet", ".json")):
        raise UsageError(f"{uri}: expected a name ending in .csv, .parquet or .json")


def write_table(frame: pd.DataFrame, uri: str, options: Options | None = None) -> None:
    """Write a frame, without its index, as ``.csv``, ``.parquet`` or ``.json``.

    Raises:
        UsageError: the name has another ending, or cannot be written to.
    """
    require_table_name(uri)
    if uri.endswith(".csv"):
        data = frame.to_csv(index=False).encode()
    elif uri.endswith(".parquet"):
        data = frame.to_parquet(index=False)
    else:
        data = json.dumps(json.loads(frame.to_json(orient="records")), indent=1).encode()
    open_location(uri, options).write(data)
