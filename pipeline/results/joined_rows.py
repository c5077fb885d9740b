"""Several runs over the same images, and a user's own columns, as one table keyed by image_id."""

from collections.abc import Iterator, Sequence
from functools import cached_property

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pandas.api.types import is_string_dtype

from pipeline.errors import UsageError
from pipeline.results import sql
from pipeline.results.rows import (
    ID,
    Positions,
    Rows,
    Where,
    explained,
    named_columns,
    require_condition,
    take_or_null,
)


class FrameRows(Rows):
    """A user's own columns, in memory.

    Args:
        frame: with ``image_id`` as its index or as a column; or a named series with that index.

    Raises:
        UsageError: it is not a frame, has no image_id or a repeated one, or a column name that is
            not text.
    """

    def __init__(self, frame: pd.DataFrame | pd.Series) -> None:
        if isinstance(frame, pd.Series):
            if frame.name is None:
                raise UsageError("join: the series has no name; give it one, .rename('split')")
            frame = frame.to_frame()
        if not isinstance(frame, pd.DataFrame):
            raise UsageError(
                f"join: expected a pandas frame with {ID}, found a {type(frame).__name__}; Polars "
                "and DuckDB convert to one: .to_pandas(), .df()"
            )
        if (
            ID not in frame.columns
            and frame.index.name != ID
            and not is_string_dtype(frame.index.dtype)
        ):
            raise UsageError(
                f"join: the frame has no {ID}, as its index or as a column; it has "
                f"{', '.join(map(repr, frame.columns[:8]))}"
            )
        flat = frame if ID in frame.columns else frame.reset_index(names=ID)
        if not all(isinstance(name, str) for name in flat.columns):
            raise UsageError(f"join: column names must be text, found {list(flat.columns)[:5]}")
        if flat[ID].duplicated().any():
            repeated = flat.loc[flat[ID].duplicated(), ID].iloc[0]
            raise UsageError(f"join: {ID} {repeated!r} is repeated; expected one row per image")
        content = pa.Table.from_pandas(flat, preserve_index=False).replace_schema_metadata()
        index = content.schema.names.index(ID)
        self.content = content.set_column(index, ID, content[ID].cast(pa.string()))
        self.name = "the joined frame"
        self.schema = self.content.schema

    def __len__(self) -> int:
        return int(self.content.num_rows)

    def require_some_of(self, rows: Rows) -> None:
        """Check that the frame belongs to these rows.

        Raises:
            UsageError: none of its ids is one of theirs.
        """
        mine, theirs = (each.table([ID])[ID].combine_chunks() for each in (self, rows))
        if len(mine) and len(theirs) and not pc.any(pc.is_in(mine, theirs)).as_py():
            raise UsageError(
                f"join: none of the frame's {len(mine)} ids is an {ID} of these results: it has "
                f"{mine[0].as_py()!r}, expected ids such as {theirs[0].as_py()!r}"
            )

    @cached_property
    def _index(self) -> pd.Index:
        """Row number by id; built once, because batches look up a few thousand ids each."""
        index: pd.Index = pd.Index(self.content[ID].to_pylist(), dtype=object)
        return index

    def table(self, columns: Sequence[str], where: Where = None) -> pa.Table:
        """Some columns of the rows that match."""
        if isinstance(where, str):
            raise UsageError(f"where={where!r}: an SQL condition needs the joined results")
        rows = self.content if where is None else self.content.filter(where)
        return rows.select(list(columns))

    def select(self, ids: Sequence[str], columns: Sequence[str]) -> pa.Table:
        """Some columns of the rows with these ids, in their order; null where no row has the id."""
        chosen = self.content.select(list(columns))
        return take_or_null(chosen, self._index.get_indexer(pd.Index(list(ids), dtype=object)))

    def take(self, positions: Positions, columns: Sequence[str]) -> pa.Table:
        """Some columns of the rows at these positions, in this order; null where one is -1."""
        return take_or_null(self.content.select(list(columns)), positions)

    def batches(self, columns: Sequence[str], where: Where, rows: int) -> Iterator[pa.Table]:
        """The content of `table` in batches of at most ``rows`` rows."""
        for batch in self.table(columns, where).to_batches(rows):
            yield pa.Table.from_batches([batch])

    def register(self, connection: duckdb.DuckDBPyConnection, view: str) -> None:
        """Make the rows a view of a DuckDB connection."""
        connection.register(view, self.content)


class JoinedRows(Rows):
    """One row for each image of any run, with the columns of all runs and frames.

    Where several have the same column, the first value that is not null counts.

    Args:
        runs: rows of the runs, whose images make the rows.
        frames: rows of the frames, which add columns to these images.
    """

    def __init__(self, runs: Sequence[Rows], frames: Sequence[Rows] = ()) -> None:
        self.runs = runs
        self.sources = [*runs, *frames]
        self.name = " + ".join(run.name for run in runs)
        fields: dict[str, pa.Field] = {}
        for source in self.sources:
            fields |= {field.name: field for field in source.schema if field.name not in fields}
        self.schema = pa.schema(list(fields.values()))

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def ids(self) -> pa.Array:
        """Every image: those of the first run in its order, then those of later runs only."""
        every = self.runs[0].table([ID])[ID].combine_chunks()
        for run in self.runs[1:]:
            ids = run.table([ID])[ID].combine_chunks()
            if not ids.equals(every):
                new = ids.filter(pc.invert(pc.is_in(ids, every)))
                every = pa.concat_arrays([every, new])
        return every

    def table(self, columns: Sequence[str], where: Where = None) -> pa.Table:
        """Some columns of the rows that match."""
        self.require(columns)
        return self.select(self._matching(where), columns)

    def select(self, ids: Sequence[str], columns: Sequence[str]) -> pa.Table:
        """Some columns of the rows with these ids, in their order; null where no row has the id."""
        self.require(columns)
        wanted = ids.to_pylist() if isinstance(ids, pa.Array) else list(ids)
        merged: dict[str, pa.ChunkedArray] = {}
        for source in self.sources:
            needed = [n for n in columns if n in source.schema.names and _lacking(merged.get(n))]
            if not needed:
                continue
            in_its_order = ids is self.ids and source is self.runs[0] and len(source) == len(ids)
            table = source.table(needed) if in_its_order else source.select(wanted, needed)
            for name in needed:
                earlier, values = merged.get(name), table[name]
                if earlier is not None:
                    values = pc.coalesce(earlier, values.cast(earlier.type))
                merged[name] = values
        return pa.table([merged[name] for name in columns], list(columns))

    def take(self, positions: Positions, columns: Sequence[str]) -> pa.Table:
        """Some columns of the rows at these positions, in this order; null where one is -1."""
        known = np.flatnonzero(positions >= 0)
        table = self.select(self.ids.take(pa.array(positions[known])), columns)
        places = np.full(len(positions), -1, np.int64)
        places[known] = np.arange(len(known))
        return take_or_null(table, places)

    def batches(self, columns: Sequence[str], where: Where, rows: int) -> Iterator[pa.Table]:
        """The content of `table` in batches of at most ``rows`` rows."""
        ids = self._matching(where)
        for start in range(0, len(ids), rows):
            yield self.select(ids[start : start + rows], columns)

    def register(self, connection: duckdb.DuckDBPyConnection, view: str) -> None:
        """Make the rows a view of a DuckDB connection."""
        parts = [f"{view}_{number}" for number in range(len(self.sources))]
        text, seen = parts[0], [parts[0]]
        for number, (part, source) in enumerate(zip(parts, self.sources, strict=True)):
            source.register(connection, part)
            if number:
                kind = "full" if number < len(self.runs) else "left"
                text += f" {kind} join {part} on {_first(seen, ID)} = {part}.{ID}"
                seen.append(part)
        columns = []
        for name in self.schema.names:
            owners = [p for p, s in zip(parts, self.sources, strict=True) if name in s.schema.names]
            if name == ID:
                owners = parts[: len(self.runs)]
            columns.append(f"{_first(owners, name)} as {sql.quoted(name)}")
        sql.create_view(connection, view, ", ".join(columns), text)

    def _matching(self, where: Where) -> pa.Array:
        require_condition(where)
        if where is None:
            return self.ids
        with explained(where, self.schema.names):
            ids = self._by_sql(where) if isinstance(where, str) else self._by_expression(where)
        return self.ids.filter(pc.is_in(self.ids, ids))

    def _by_sql(self, where: str) -> pa.Array:
        with sql.connect() as connection:
            self.register(connection, sql.VIEW)
            return sql.matching(connection, ID, sql.VIEW, where)[ID].combine_chunks()

    def _by_expression(self, where: pc.Expression) -> pa.Array:
        """Ids that match, from the one source that has all columns of the expression."""
        names = set(named_columns(where, self.schema))
        for source in self.sources:
            if names <= set(source.schema.names):
                return source.table([ID], where)[ID].combine_chunks()
        raise UsageError(
            f"where={where}: its columns are in several runs or frames; write it in SQL, as text"
        )


def _lacking(column: pa.ChunkedArray | None) -> bool:
    """Whether a column still lacks values that another source may have."""
    return column is None or bool(column.null_count)


def _first(views: Sequence[str], column: str) -> str:
    names = ", ".join(f"{view}.{sql.quoted(column)}" for view in views)
    return f"coalesce({names})" if len(views) > 1 else names
