"""Rows of images as tables: what a run, several joined runs and a user's frame have in common."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import TypeAlias

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.results.errors import unknown

Where: TypeAlias = "pc.Expression | str | None"
"""Which rows: a pyarrow expression, an SQL condition, or all."""
ID = "image_id"


class Rows(ABC):
    """Rows keyed by image_id that can be filtered, chosen by id, and read in batches.

    Attributes:
        name: for messages: the URI, or what else it is.
        schema: of all columns.
    """

    name: str
    schema: pa.Schema

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def table(self, columns: Sequence[str], where: Where = None) -> pa.Table:
        """Some columns of the rows that match, in the order of the files."""

    @abstractmethod
    def select(self, ids: Sequence[str], columns: Sequence[str]) -> pa.Table:
        """Some columns of the rows with some ids, in their order; null where there is no row.

        A column ``image_id`` holds null where there is no row, too.
        """

    @abstractmethod
    def batches(self, columns: Sequence[str], where: Where, rows: int) -> Iterator[pa.Table]:
        """`table` in pieces of at most ``rows`` rows, in bounded memory."""

    @abstractmethod
    def register(self, connection: duckdb.DuckDBPyConnection, view: str) -> None:
        """Make the rows a view of a DuckDB connection."""

    def largest(self, column: str, n: int, columns: Sequence[str], where: Where) -> pa.Table:
        """The rows with the n largest values of a column, largest first, equal ones by image_id.

        Nulls are left out. The column and ``image_id`` are among the ``columns``.
        """
        found = self.table(columns, where)
        return first_of(found.take(pa.array(candidates(found[column], n))), column, n)

    def require(self, columns: Sequence[str]) -> None:
        """Raises: UnknownNameError: a column is not there."""
        for column in columns:
            if column not in self.schema.names:
                light = [name for name in self.schema.names if "__" not in name]
                raise unknown("column", column, light, self.name)


def candidates(values: pa.ChunkedArray, n: int) -> NDArray[np.int64]:
    """Places of the n largest values and of those that equal the last of them; no NaN."""
    numbers = values.to_numpy()
    places = np.flatnonzero(~np.isnan(numbers))
    if len(places) <= n:
        return places
    least = np.partition(numbers[places], len(places) - n)[len(places) - n]
    found: NDArray[np.int64] = places[numbers[places] >= least]
    return found


def first_of(table: pa.Table, column: str, n: int) -> pa.Table:
    """The n rows with the largest values of a column, largest first, equal ones by image_id."""
    return table.sort_by([(column, "descending"), (ID, "ascending")]).slice(0, n)


def absent_as_null(table: pa.Table, places: NDArray[np.int64]) -> pa.Table:
    """Rows at some places; null where the place is -1."""
    return table.take(pa.array(places, pa.int64(), mask=places < 0))
