"""Rows of images as tables, and the conditions that choose among them.

`Rows` is what the stored rows of a run, several joined runs and a user's own frame have in common.
A condition is SQL text or a pyarrow expression. Both are pushed down: only the columns that a
condition names and the row groups that may match are read.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeAlias

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.errors import UsageError, unknown_name

Where: TypeAlias = "pc.Expression | str | None"
"""A condition on rows: a pyarrow expression, SQL text, or None for all rows."""
Positions = NDArray[np.int64]
ID = "image_id"
_EXAMPLES = (
    "an SQL condition such as \"label = 'dog' and score__leash > 0.3\", or a pyarrow expression "
    "such as pc.field('score__leash') > 0.3 (import pyarrow.compute as pc)"
)


class Rows(ABC):
    """Rows keyed by image_id that can be filtered, selected by id, and read in batches.

    Attributes:
        name: the URI, or another description for messages.
        schema: schema of all columns.
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
        """Some columns of the rows with these ids, in the order of the ids.

        All columns are null, ``image_id`` included, where no row has the id.
        """

    @abstractmethod
    def take(self, positions: Positions, columns: Sequence[str]) -> pa.Table:
        """Some columns of the rows at these positions of `table`, in this order; null where -1."""

    @abstractmethod
    def batches(self, columns: Sequence[str], where: Where, rows: int) -> Iterator[pa.Table]:
        """The content of `table` in batches of at most ``rows`` rows, in bounded memory."""

    @abstractmethod
    def register(self, connection: duckdb.DuckDBPyConnection, view: str) -> None:
        """Make the rows a view of a DuckDB connection."""

    def largest(self, column: str, n: int, columns: Sequence[str], where: Where) -> pa.Table:
        """The rows with the n largest values of a column, largest first, equal ones by image_id.

        Nulls are left out. ``columns`` must include the column and ``image_id``.
        """
        table = self.table(columns, where)
        return first_rows(table.take(pa.array(candidates(table[column], n))), column, n)

    def require(self, columns: Sequence[str]) -> None:
        """Check that all these columns exist.

        Raises:
            UnknownNameError: one does not.
        """
        for column in columns:
            if column not in self.schema.names:
                plain = [name for name in self.schema.names if "__" not in name]
                raise unknown_name("column", column, plain, self.name)


def name_list(names: str | Iterable[str]) -> list[str]:
    """Names as a list; a single name may be given as text."""
    return [names] if isinstance(names, str) else list(names)


def candidates(values: pa.ChunkedArray, n: int) -> Positions:
    """Positions of the n largest values and of all that equal the last of them; NaN is left out."""
    numbers = values.to_numpy()
    positions = np.flatnonzero(~np.isnan(numbers))
    if len(positions) <= n:
        return positions
    least = np.partition(numbers[positions], len(positions) - n)[len(positions) - n]
    chosen: Positions = positions[numbers[positions] >= least]
    return chosen


def first_rows(table: pa.Table, column: str, n: int) -> pa.Table:
    """The n rows with the largest values of a column, largest first, equal ones by image_id."""
    return table.sort_by([(column, "descending"), (ID, "ascending")]).slice(0, n)


def take_or_null(table: pa.Table, positions: Positions) -> pa.Table:
    """The rows at these positions; a row of nulls where a position is -1."""
    return table.take(pa.array(positions, pa.int64(), mask=positions < 0))


def named_columns(condition: pc.Expression, schema: pa.Schema) -> list[str]:
    """Columns that an expression may use: those whose names occur in its text.

    pyarrow does not tell which columns an expression uses. A column too many costs a little
    reading; none is missed.
    """
    text = str(condition)
    return [name for name in schema.names if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text)]


def require_condition(condition: object) -> None:
    """Check the type of a condition.

    Raises:
        UsageError: it is neither an expression nor text.
    """
    if not isinstance(condition, pc.Expression | str | None):
        raise UsageError(
            f"where is a {type(condition).__name__}; expected {_EXAMPLES}. To use a frame of your "
            "own, pass its ids (image_ids=frame.index) or join it (results.join(frame))"
        )


@contextmanager
def explained(condition: object, columns: list[str]) -> Iterator[None]:
    """Turn the errors of DuckDB and pyarrow about a condition into a message with examples.

    Raises:
        UsageError: the condition does not fit the columns.
    """
    try:
        yield
    except (duckdb.ProgrammingError, duckdb.DataError, duckdb.NotSupportedError) as error:
        raise UsageError(f"where={condition!r}: {_short(error)}\n{_hint(columns)}") from error
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
        raise UsageError(f"where={condition}: {_short(error)}\n{_hint(columns)}") from error


def _hint(columns: list[str]) -> str:
    plain = [name for name in columns if "__" not in name]
    scores = [name for name in columns if name.startswith("score__")]
    more = f", ... ({len(scores)} scores)" if len(scores) > 5 else ""
    return (
        f"Expected {_EXAMPLES}. Text in SQL stands in single quotes. Columns: "
        f"{', '.join(plain + scores[:5])}{more}"
    )


def _short(error: Exception) -> str:
    """The error itself and DuckDB's suggestions, without the query text around it."""
    first, *others = str(error).split("\n\nLINE", 1)[0].split("\n")
    suggestions = [line for line in others if line.startswith("Candidate bindings")]
    return " ".join([first, *suggestions])
