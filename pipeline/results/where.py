"""Conditions on rows, pushed down: only the columns they name and the row groups they may hold are
read.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import UsageError

_EXAMPLES = (
    "an SQL condition such as \"label = 'dog' and score__leash > 0.3\", or a pyarrow expression "
    "such as pc.field('score__leash') > 0.3 (import pyarrow.compute as pc)"
)


def named_columns(condition: pc.Expression, schema: pa.Schema) -> list[str]:
    """Columns that an expression may name: those whose names stand in its text.

    One too many costs a little reading, none is missed.
    """
    text = str(condition)
    return [name for name in schema.names if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text)]


def require_condition(condition: object) -> None:
    """Raises: UsageError: it is neither an expression nor text."""
    if not isinstance(condition, pc.Expression | str | None):
        raise UsageError(
            f"where is a {type(condition).__name__}; expected {_EXAMPLES}. Of a frame of your own "
            "take the ids (image_ids=frame.index), or join it: results.join(frame)"
        )


@contextmanager
def explained(condition: object, columns: list[str]) -> Iterator[None]:
    """Errors of a condition in words that help.

    Raises:
        UsageError: the condition does not fit the columns.
    """
    try:
        yield
    except (duckdb.ProgrammingError, duckdb.DataError, duckdb.NotSupportedError) as error:
        hint = _hint(columns)
        raise UsageError(f"where={condition!r}: {_short(error)}\nExpected {hint}") from error
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
        raise UsageError(
            f"where={condition}: {_short(error)}\nExpected {_hint(columns)}"
        ) from error


def _hint(columns: list[str]) -> str:
    plain = [name for name in columns if "__" not in name]
    scores = [name for name in columns if name.startswith("score__")]
    more = f", ... ({len(scores)} scores)" if len(scores) > 5 else ""
    return (
        f"{_EXAMPLES}. Text in SQL stands in single quotes. Columns: "
        f"{', '.join(plain + scores[:5])}{more}"
    )


def _short(error: Exception) -> str:
    """What is wrong and, where DuckDB knows, what was meant; not the query around it."""
    first, *others = str(error).split("\n\nLINE", 1)[0].split("\n")
    meant = [line for line in others if line.startswith("Candidate bindings")]
    return " ".join([first, *meant])
