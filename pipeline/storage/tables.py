"""Tables that users hand in, or take away: CSV or Parquet, at a path or any URI."""

import io
import json
from collections.abc import Sequence

import pandas as pd

from pipeline.errors import UsageError
from pipeline.storage.location import Options, locate


def read_table(uri: str, needed: Sequence[str], options: Options | None = None) -> pd.DataFrame:
    """Read a table and check its columns; ids stay text.

    Raises:
        UsageError: it is not there, no table, or lacks a column.
    """
    return parse_table(locate(uri, options).read(), uri, needed)


def parse_table(data: bytes, uri: str, needed: Sequence[str]) -> pd.DataFrame:
    """The same from bytes; the end of the name says of which kind they are."""
    try:
        if uri.endswith((".parquet", ".pq")):
            frame = pd.read_parquet(io.BytesIO(data))
        else:
            frame = pd.read_csv(io.BytesIO(data), dtype=str, keep_default_na=False)
    except ValueError as error:  # pandas' and pyarrow's own are all of this kind
        raise UsageError(f"{uri}: expected a CSV or Parquet table: {error}") from error
    missing = [name for name in needed if name not in frame.columns]
    if missing:
        raise UsageError(
            f"{uri}: no column {missing[0]!r}; expected {', '.join(needed)}, found "
            f"{', '.join(map(str, frame.columns)) or 'none'}"
        )
    return frame


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


def write_table(frame: pd.DataFrame, uri: str, options: Options | None = None) -> None:
    """Write a frame as ``.csv``, ``.parquet`` or ``.json``.

    Raises:
        UsageError: another ending, or the place cannot be written.
    """
    if uri.endswith(".csv"):
        data = frame.to_csv(index=False).encode()
    elif uri.endswith(".parquet"):
        data = frame.to_parquet(index=False)
    elif uri.endswith(".json"):
        data = json.dumps(json.loads(frame.to_json(orient="records")), indent=1).encode()
    else:
        raise UsageError(f"{uri}: expected a name ending in .csv, .parquet or .json")
    locate(uri, options).write(data)
