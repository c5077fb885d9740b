"""Which Parquet files of a data set are whole."""

from collections.abc import Sequence
from typing import Any

from pipeline.errors import UsageError
from pipeline.machine import map_in_threads
from pipeline.sources.listing import SourceFile
from pipeline.sources.parquet_file import is_broken, open_parquet
from pipeline.storage.location import Location

_MOST = 1000
_NAMED = 3


def first_whole(fs: Any, tables: Sequence[SourceFile]) -> tuple[SourceFile, list[str]]:
    """The first file with rows, and notes that name files that are broken or have no rows.

    Raises:
        UsageError: no file is whole.
    """
    some = tables[:_MOST]
    counted = list(map_in_threads(lambda file: _rows(fs, file), some))
    rows = dict(zip((file.name for file in some), counted, strict=True))
    broken = [f"{name} ({text})" for name, text in rows.items() if isinstance(text, str)]
    empty = [name for name, count in rows.items() if count == 0]
    whole = [file for file in some if not isinstance(rows[file.name], str)]
    if not whole:
        raise UsageError(f"no Parquet file can be read: {_first(broken)}")
    notes = [f"broken files, each gives a row with a status: {_first(broken)}"] if broken else []
    notes += [f"files without rows: {_first(empty)}"] if empty else []
    return next((file for file in whole if rows[file.name]), whole[0]), notes


def _rows(fs: Any, file: SourceFile) -> int | str:
    """The number of rows of a file, or why it cannot be read."""
    try:
        with open_parquet(Location(fs, file.path)) as table:
            return int(table.metadata.num_rows)
    except Exception as error:
        if not is_broken(error):
            raise
        return str(error)


def _first(texts: Sequence[str]) -> str:
    rest = len(texts) - _NAMED
    return "; ".join(texts[:_NAMED]) + (f" and {rest:,} more" if rest > 0 else "")
