"""SQL on results: DuckDB with the rows as a view, and a function that decodes maps.

Files in object storage are read by pyarrow and handed over, because DuckDB with a registered fsspec
file system took as long for an average of all rows and 2 to 4 times as long for a selection of rows
or maps (100,000 rows in one file on a local S3 server).
"""

import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.fs
from numpy.typing import NDArray

from pipeline.errors import UsageError
from pipeline.results.decoding import as_array, decode_arrays

if TYPE_CHECKING:
    from pipeline.results.rows import Rows

VIEW = "images"
DECODE = "decode_map"
_NUMBER = "#"
_LOCKED: dict[str, Any] = {
    "enable_external_access": "false",
    "python_enable_replacements": "false",
    "lock_configuration": "true",
}
_GLOB = re.compile(r"[*?\[]")


def connect() -> duckdb.DuckDBPyConnection:
    """An in-memory connection that knows `decode_map`: (cells blob, peak) -> FLOAT[h * w]."""
    connection = duckdb.connect()
    with suppress(duckdb.InvalidInputException):  # a notebook without ipywidgets has none
        connection.execute("set enable_progress_bar = false")
    # as text, because the module of these constants differs between DuckDB 1 and 2
    how: dict[str, Any] = {"type": "arrow", "null_handling": "special"}
    connection.create_function(DECODE, _decode_map, ["BLOB", "FLOAT"], "FLOAT[]", **how)
    return connection


def register_dataset(
    connection: duckdb.DuckDBPyConnection, view: str, dataset: ds.FileSystemDataset
) -> None:
    """Make a dataset a view; DuckDB opens local files itself."""
    if reads_itself(dataset):
        create_view(connection, view, "*", scan(dataset))
    else:
        connection.register(view, dataset)


def create_view(
    connection: duckdb.DuckDBPyConnection, view: str, columns: str, source: str
) -> None:
    """Create a view of some columns of a source."""
    query = f"select {columns} from {source}"  # noqa: S608 - reads only
    connection.execute(f"create view {quoted(view)} as {query}")


def matching(
    connection: duckdb.DuckDBPyConnection, columns: str, source: str, where: str
) -> pa.Table:
    """Some columns of the rows that match a condition; it may call the source `VIEW`."""
    query = f"select {columns} from {source} {VIEW} where ({where}\n)"  # noqa: S608 - see above
    return connection.sql(query).to_arrow_table()


def rows_where(rows: "Rows", where: str) -> NDArray[np.bool_]:
    """(n,) whether each row matches a condition that a stranger may have written.

    The condition sees the columns that it names, in memory, and can neither open a file nor write.

    Raises:
        UsageError: it does not fit the columns.
    """
    folded = where.casefold()
    named = [name for name in rows.schema.names if name.casefold() in folded]
    table = rows.table(list(dict.fromkeys(["image_id", *named])))
    numbered = table.append_column(_NUMBER, pa.array(np.arange(len(table))))
    with duckdb.connect(config=_LOCKED) as connection:
        connection.register(VIEW, numbered)
        try:
            found = matching(connection, quoted(_NUMBER), VIEW, where)[_NUMBER]
        except (duckdb.Error, KeyError) as error:  # no such column: it is more than a condition
            raise UsageError(
                f"condition {where!r}: {str(error).split(chr(10), 1)[0]}. Expected one such as "
                "width >= 512, or label = 'dog' and score__leash > 0.3; text in SQL is written in "
                "single quotes"
            ) from error
    result = np.zeros(len(table), bool)
    result[found.to_numpy()] = True
    return result


def reads_itself(dataset: ds.FileSystemDataset) -> bool:
    """Whether DuckDB can open the files: local ones whose paths it does not take for patterns."""
    local = isinstance(dataset.filesystem, pyarrow.fs.LocalFileSystem)
    return local and not any(_GLOB.search(path) for path in dataset.files)


def scan(dataset: ds.FileSystemDataset, options: str = "") -> str:
    """The table function that reads the files of a dataset."""
    files = ", ".join("'" + path.replace("'", "''") + "'" for path in dataset.files)
    return f"read_parquet([{files}], hive_partitioning = false{options})"


def quoted(name: str) -> str:
    """A name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def _decode_map(cells: pa.ChunkedArray, peaks: pa.ChunkedArray) -> pa.Array:
    """list<float> (n,), row-major; null where there is no map."""
    stored, maxima = as_array(cells), as_array(peaks)
    valid = pc.and_(stored.is_valid(), maxima.is_valid()).to_numpy(zero_copy_only=False)
    size = pc.max(pc.binary_length(stored)).as_py() or 0
    maps = decode_arrays(stored.cast(pa.binary(size)), maxima, (1, size)) if size else None
    values = np.zeros((0,), np.float32) if maps is None else maps[valid].reshape(-1)
    offsets = np.concatenate([[0], np.cumsum(valid * size)]).astype(np.int32)
    mask = pa.array(~valid)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values), mask=mask)


def answer(rows: "Rows", query: str) -> pd.DataFrame:
    """The result of a query on the view `VIEW`.

    Raises:
        UsageError: DuckDB rejects the query, or it selects nothing.
    """
    with connect() as connection:
        rows.register(connection, VIEW)
        try:
            relation = connection.sql(query)
            if relation is None:
                raise UsageError(f"sql({query!r}): expected a query that selects rows")
            frame: pd.DataFrame = relation.to_arrow_table().to_pandas()
        except duckdb.Error as error:
            raise UsageError(
                f"sql({query!r}): {error}\nThe table is {VIEW}; its columns: "
                f"{', '.join(rows.schema.names[:40])}"
            ) from error
    return frame
