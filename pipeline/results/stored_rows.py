"""The rows of one run in its Parquet parts, found and read by row group.

Questions are answered the same way for many small parts and for few large ones.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.machine import map_in_threads
from pipeline.results import sql
from pipeline.results.rows import (
    ID,
    Positions,
    Rows,
    Where,
    candidates,
    explained,
    first_rows,
    named_columns,
    require_condition,
    take_or_null,
)

_THREADS = 8
"""Row groups that are read at the same time."""
_GROUPS_PER_SEARCH = 64
"""Row groups whose ids are compared in one call, which hashes the wanted ids once."""
_BUFFER = 2**18
_SCAN_COLUMNS = ("filename", "file_row_number")
"""Columns that DuckDB's scan adds to those of the files."""
T = TypeVar("T")


@dataclass(frozen=True)
class Group:
    """One row group.

    Attributes:
        fragment: its file.
        number: its number within the file.
        start: number of rows of the run before it.
        rows: number of its rows.
        span: its smallest and largest image_id; None if the file has no statistics of them.
        schema: types in which its columns are read.
    """

    fragment: ds.ParquetFileFragment
    number: int
    start: int
    rows: int
    span: tuple[str, str] | None
    schema: pa.Schema

    def read(self, columns: Sequence[str]) -> pa.Table:
        """Some columns of all its rows."""
        with self.fragment.open() as file:
            parquet = pq.ParquetFile(file, metadata=self.fragment.metadata)
            table = parquet.read_row_group(self.number, columns=list(columns), use_threads=False)
        return self._typed(table)

    def stream(self, columns: Sequence[str], rows: int) -> Iterator[pa.Table]:
        """Some columns in batches, without holding the whole group in memory."""
        with self.fragment.open() as file:
            parquet = pq.ParquetFile(
                file, metadata=self.fragment.metadata, pre_buffer=False, buffer_size=_BUFFER
            )
            names = list(columns)
            for batch in parquet.iter_batches(rows, row_groups=[self.number], columns=names):
                yield self._typed(pa.Table.from_batches([batch]))

    def _typed(self, table: pa.Table) -> pa.Table:
        return table.cast(pa.schema([self.schema.field(name) for name in table.column_names]))


class StoredRows(Rows):
    """The committed rows of one run. A row's position is its number in the order of the files."""

    def __init__(self, name: str, dataset: ds.FileSystemDataset) -> None:
        self.name = name
        self.dataset = dataset
        self.schema = dataset.schema

    def __len__(self) -> int:
        return sum(group.rows for group in self.groups)

    @cached_property
    def groups(self) -> list[Group]:
        """All row groups, from the footers."""
        groups: list[Group] = []
        start = 0
        for fragment in self.dataset.get_fragments():
            footer = fragment.metadata
            column = self.schema.names.index(ID)  # flat columns before any list: leaf = field
            for number in range(footer.num_row_groups):
                info = footer.row_group(number)
                statistics = info.column(column).statistics
                known = statistics and statistics.has_min_max
                span = (statistics.min, statistics.max) if known else None
                groups.append(Group(fragment, number, start, info.num_rows, span, self.schema))
                start += info.num_rows
        return groups

    def table(self, columns: Sequence[str], where: Where = None) -> pa.Table:
        """Some columns of the rows that match, in the order of the files."""
        self.require(columns)
        if where is None:
            return self.dataset.to_table(columns=list(columns))
        if isinstance(where, str) and self._returned_as_stored(columns):
            schema = pa.schema([self.schema.field(name) for name in columns])
            with explained(where, self.schema.names):
                table, _, _ = self._scanned(where, columns)
            return table.cast(schema)
        return self.take(self.matching(where), columns)

    def select(self, ids: Sequence[str], columns: Sequence[str]) -> pa.Table:
        """Some columns of the rows with these ids, in their order; null where no row has the id."""
        self.require(columns)
        return self.take(self.find(ids), columns)

    def largest(self, column: str, n: int, columns: Sequence[str], where: Where) -> pa.Table:
        """The rows with the n largest values: one scan of that column, then n rows are read."""
        if where is not None:
            return super().largest(column, n, columns, where)
        self.require([column, *columns])
        positions = candidates(self.table([column])[column], n)
        return first_rows(self.take(positions, columns), column, n)

    def batches(self, columns: Sequence[str], where: Where, rows: int) -> Iterator[pa.Table]:
        """The content of `table` in batches of at most ``rows`` rows, in bounded memory."""
        self.require(columns)
        positions = None if where is None else self.matching(where)
        for group in self.groups:
            wanted = None if positions is None else _within(positions, group.start, group.rows)
            if group.rows == 0 or (wanted is not None and not len(wanted)):
                continue
            done = group.start
            for batch in group.stream(columns, rows):
                table = batch
                if wanted is not None:
                    table = batch.take(pa.array(_within(wanted, done, len(batch)) - done))
                done += len(batch)
                if table.num_rows:
                    yield table

    def register(self, connection: duckdb.DuckDBPyConnection, view: str) -> None:
        """Make the rows a view of a DuckDB connection."""
        sql.register_dataset(connection, view, self.dataset)

    def find(self, ids: Sequence[str]) -> Positions:
        """(n,) the position of each id; -1 where no row has it.

        Row groups whose span includes none of the ids are not read.
        """
        requested = pa.array(list(ids), pa.string())
        wanted = pc.unique(requested).sort()
        keys = np.array(wanted.to_pylist(), dtype=object)
        groups = [group for group in self.groups if _may_hold(group, keys)]
        by_key = np.full(len(keys), -1, np.int64)
        for start in range(0, len(groups), _GROUPS_PER_SEARCH):
            searched = groups[start : start + _GROUPS_PER_SEARCH]
            tables = _in_threads(lambda group: group.read([ID]), searched)
            index = pc.index_in(pa.concat_tables(tables)[ID].combine_chunks(), wanted)
            numbers = np.concatenate([group.start + np.arange(group.rows) for group in searched])
            matches = index.is_valid().to_numpy(zero_copy_only=False)
            by_key[index.drop_null().to_numpy(zero_copy_only=False)] = numbers[matches]
        positions: Positions = by_key[pc.index_in(requested, wanted).to_numpy(zero_copy_only=False)]
        return positions

    def matching(self, where: Where) -> Positions:
        """Positions of the rows that match a condition, ascending.

        Raises:
            UsageError: the condition does not fit the columns.
        """
        require_condition(where)
        with explained(where, self.schema.names):
            if isinstance(where, str):
                return self._matching_sql(where)
            return self._matching_expression(where)

    def _matching_expression(self, where: pc.Expression) -> Positions:
        names = named_columns(where, self.schema) or [ID]
        by_file = {(group.fragment.path, group.number): group for group in self.groups}
        groups = [
            by_file[fragment.path, info.id]
            for fragment in self.dataset.get_fragments()
            for info in fragment.subset(filter=where, schema=self.schema).row_groups
        ]

        def filtered(group: Group) -> Positions:
            numbers = pa.array(np.arange(group.start, group.start + group.rows))
            table = group.read(names).append_column("", numbers)
            positions: Positions = table.filter(where).column(len(names)).to_numpy()
            return positions

        return np.concatenate([np.zeros(0, np.int64), *_in_threads(filtered, groups)])

    def _matching_sql(self, where: str) -> Positions:
        if not self._scanned_by_duckdb:
            with sql.connect() as connection:
                self.register(connection, sql.VIEW)
                ids = sql.matching(connection, ID, sql.VIEW, where)[ID]
            return np.sort(self.find(ids.to_pylist()))
        starts = {group.fragment.path: group.start for group in self.groups if not group.number}
        first = np.array([starts.get(path, 0) for path in self.dataset.files], np.int64)
        _, files, numbers = self._scanned(where, [])
        return first[files] + numbers

    @cached_property
    def _scanned_by_duckdb(self) -> bool:
        """Whether DuckDB can read the files, and no column has the name of one that it adds."""
        return sql.reads_itself(self.dataset) and not self._folded & set(_SCAN_COLUMNS)

    @cached_property
    def _folded(self) -> set[str]:
        """Column names as DuckDB compares them, without regard to case."""
        return {name.casefold() for name in self.schema.names}

    def _returned_as_stored(self, columns: Sequence[str]) -> bool:
        """Whether DuckDB returns these columns with the values that are stored."""
        if not self._scanned_by_duckdb or len(self._folded) < len(self.schema.names):
            return False
        return all(_is_plain(self.schema.field(name).type) for name in columns)

    def _scanned(self, where: str, columns: Sequence[str]) -> tuple[pa.Table, Positions, Positions]:
        """Rows that match, from one scan by DuckDB, in the order of the files.

        DuckDB skips the other columns where nothing matches. Rows are put in order here because a
        condition with a subquery returns them in another one.

        Returns:
            Some columns of the rows, the index of each row's file, and its number in that file.
        """
        names = [*columns, *_SCAN_COLUMNS]
        wanted = ", ".join(f"{sql.VIEW}.{sql.quoted(name)}" for name in names)
        scan = sql.scan(self.dataset, ", filename = true, file_row_number = true")
        with sql.connect() as connection:
            rows = sql.matching(connection, wanted, scan, where)
        files = pc.index_in(rows["filename"], pa.array(self.dataset.files)).to_numpy()
        numbers = rows["file_row_number"].to_numpy()
        order = np.lexsort((numbers, files))
        table = rows.select(list(columns))
        if not np.array_equal(order, np.arange(len(order))):
            table = table.take(pa.array(order))
        return table, files[order], numbers[order]

    def take(self, positions: Positions, columns: Sequence[str]) -> pa.Table:
        """Some columns of the rows at these positions, in this order; null where one is -1.

        Only row groups that contain one of them are read.
        """
        wanted = np.unique(positions[positions >= 0])
        starts = np.array([group.start for group in self.groups], np.int64)
        numbers = np.unique(np.searchsorted(starts, wanted, side="right") - 1)

        def read(number: int) -> pa.Table:
            group = self.groups[number]
            rows = _within(wanted, group.start, group.rows) - group.start
            return group.read(columns).take(pa.array(rows))

        tables = _in_threads(read, numbers.tolist())
        empty = pa.schema([self.schema.field(name) for name in columns]).empty_table()
        table = pa.concat_tables(tables) if tables else empty
        if np.array_equal(wanted, positions):
            return table
        order = np.where(positions < 0, -1, np.searchsorted(wanted, positions))
        return take_or_null(table.combine_chunks(), order)


def _within(positions: Positions, start: int, rows: int) -> Positions:
    """Those of ascending positions that lie from ``start`` to ``start + rows``."""
    return positions[slice(*np.searchsorted(positions, [start, start + rows]))]


def _is_plain(kind: pa.DataType) -> bool:
    """Whether values of a type come back from DuckDB unchanged, except for a cast."""
    numbers = (pa.types.is_integer, pa.types.is_float32, pa.types.is_float64, pa.types.is_boolean)
    texts = (pa.types.is_string, pa.types.is_fixed_size_binary)
    return any(check(kind) for check in (*numbers, *texts))


def _may_hold(group: Group, keys: NDArray[np.object_]) -> bool:
    if group.span is None:
        return True
    first, last = group.span
    return bool(np.searchsorted(keys, first) < np.searchsorted(keys, last, side="right"))


def _in_threads(work: Callable[..., T], items: Sequence[object]) -> list[T]:
    if len(items) < 2:
        return [work(item) for item in items]
    return list(map_in_threads(work, items, _THREADS))
