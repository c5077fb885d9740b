"""Rows of a run in its Parquet parts: found and read by row group, whatever the parts' size."""

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
from pipeline.results.rows import ID, Rows, Where, absent_as_null, candidates, first_of
from pipeline.results.where import explained, named_columns, require_condition

AT_ONCE = 8
"""Row groups in the making."""
_LOOKED_THROUGH = 64
"""Row groups whose ids are compared at once: what is asked for is hashed anew every time."""
_BUFFER = 2**18
_ADDED = ("filename", "file_row_number")
"""Columns that DuckDB's scan adds."""
Places = NDArray[np.int64]
T = TypeVar("T")


@dataclass(frozen=True)
class Group:
    """One row group.

    Attributes:
        fragment: its file.
        number: within the file.
        start: rows of the run before it.
        rows: in it.
        span: its first and its last image_id; None where the file does not say.
    """

    fragment: ds.ParquetFileFragment
    number: int
    start: int
    rows: int
    span: tuple[str, str] | None

    def read(self, columns: Sequence[str]) -> pa.Table:
        """Some columns of all its rows."""
        with self.fragment.open() as file:
            parquet = pq.ParquetFile(file, metadata=self.fragment.metadata)
            return parquet.read_row_group(self.number, columns=list(columns), use_threads=False)

    def stream(self, columns: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
        """Some columns, a few rows at a time, without the whole group in memory."""
        with self.fragment.open() as file:
            parquet = pq.ParquetFile(
                file, metadata=self.fragment.metadata, pre_buffer=False, buffer_size=_BUFFER
            )
            yield from parquet.iter_batches(rows, row_groups=[self.number], columns=list(columns))


class StoredRows(Rows):
    """The committed rows of one run. A row's place is its number in the order of the files."""

    def __init__(self, name: str, dataset: ds.FileSystemDataset) -> None:
        self.name = name
        self.dataset = dataset
        self.schema = dataset.schema

    def __len__(self) -> int:
        return sum(group.rows for group in self.groups)

    @cached_property
    def groups(self) -> list[Group]:
        """All row groups, from the footers."""
        found: list[Group] = []
        start = 0
        for fragment in self.dataset.get_fragments():
            footer = fragment.metadata
            column = self.schema.names.index(ID)  # flat columns before any list: leaf = field
            for number in range(footer.num_row_groups):
                about = footer.row_group(number)
                known = about.column(column).statistics
                span = (known.min, known.max) if known and known.has_min_max else None
                found.append(Group(fragment, number, start, about.num_rows, span))
                start += about.num_rows
        return found

    def table(self, columns: Sequence[str], where: Where = None) -> pa.Table:
        """Some columns of the rows that match, in the order of the files."""
        self.require(columns)
        if where is None:
            return self.dataset.to_table(columns=list(columns))
        if isinstance(where, str) and self._handed_on(columns):
            schema = pa.schema([self.schema.field(name) for name in columns])
            with explained(where, self.schema.names):
                found, _, _ = self._scanned(where, columns)
            return found.cast(schema)
        return self.take(self.matching(where), columns)

    def select(self, ids: Sequence[str], columns: Sequence[str]) -> pa.Table:
        """Some columns of the rows with some ids, in their order; null where there is no row."""
        self.require(columns)
        return self.take(self.find(ids), columns)

    def largest(self, column: str, n: int, columns: Sequence[str], where: Where) -> pa.Table:
        """The rows with the n largest values: one scan of that column, then a look at n rows."""
        if where is not None:
            return super().largest(column, n, columns, where)
        self.require([column, *columns])
        places = candidates(self.table([column])[column], n)
        return first_of(self.take(places, columns), column, n)

    def batches(self, columns: Sequence[str], where: Where, rows: int) -> Iterator[pa.Table]:
        """`table` in pieces of at most ``rows`` rows, in bounded memory."""
        self.require(columns)
        places = None if where is None else self.matching(where)
        for group in self.groups:
            wanted = None if places is None else _within(places, group.start, group.rows)
            if group.rows == 0 or (wanted is not None and not len(wanted)):
                continue
            done = group.start
            for batch in group.stream(columns, rows):
                table = pa.Table.from_batches([batch])
                if wanted is not None:
                    table = table.take(pa.array(_within(wanted, done, len(batch)) - done))
                done += len(batch)
                if table.num_rows:
                    yield table

    def register(self, connection: duckdb.DuckDBPyConnection, view: str) -> None:
        """Make the rows a view of a DuckDB connection."""
        sql.register_dataset(connection, view, self.dataset)

    def find(self, ids: Sequence[str]) -> Places:
        """(n,) the place of each id, -1 where there is none.

        Row groups whose span holds none of them are not read.
        """
        asked = pa.array(list(ids), pa.string())
        wanted = pc.unique(asked).sort()
        keys = np.array(wanted.to_pylist(), dtype=object)
        groups = [group for group in self.groups if _may_hold(group, keys)]
        places = np.full(len(keys), -1, np.int64)
        for start in range(0, len(groups), _LOOKED_THROUGH):
            some = groups[start : start + _LOOKED_THROUGH]
            tables = _side_by_side(lambda group: group.read([ID]), some)
            index = pc.index_in(pa.concat_tables(tables)[ID].combine_chunks(), wanted)
            numbers = np.concatenate([group.start + np.arange(group.rows) for group in some])
            there = index.is_valid().to_numpy(zero_copy_only=False)
            places[index.drop_null().to_numpy(zero_copy_only=False)] = numbers[there]
        found: Places = places[pc.index_in(asked, wanted).to_numpy(zero_copy_only=False)]
        return found

    def matching(self, where: Where) -> Places:
        """Places of the rows that match a condition, ascending.

        Raises:
            UsageError: the condition does not fit the columns.
        """
        require_condition(where)
        with explained(where, self.schema.names):
            if isinstance(where, str):
                return self._matching_sql(where)
            return self._matching_expression(where)

    def _matching_expression(self, where: pc.Expression) -> Places:
        names = named_columns(where, self.schema) or [ID]
        by_file = {(group.fragment.path, group.number): group for group in self.groups}
        groups = [
            by_file[fragment.path, info.id]
            for fragment in self.dataset.get_fragments()
            for info in fragment.subset(filter=where, schema=self.schema).row_groups
        ]

        def look(group: Group) -> Places:
            numbers = pa.array(np.arange(group.start, group.start + group.rows))
            table = group.read(names).append_column("", numbers)
            found: Places = table.filter(where).column(len(names)).to_numpy()
            return found

        return np.concatenate([np.zeros(0, np.int64), *_side_by_side(look, groups)])

    def _matching_sql(self, where: str) -> Places:
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
        """Whether DuckDB may read the files, and no column is called like one that it adds."""
        return sql.reads_itself(self.dataset) and not self._folded & set(_ADDED)

    @cached_property
    def _folded(self) -> set[str]:
        """The columns' names as DuckDB tells them apart."""
        return {name.casefold() for name in self.schema.names}

    def _handed_on(self, columns: Sequence[str]) -> bool:
        """Whether DuckDB gives these columns as they are stored."""
        if not self._scanned_by_duckdb or len(self._folded) < len(self.schema.names):
            return False
        return all(_is_plain(self.schema.field(name).type) for name in columns)

    def _scanned(self, where: str, columns: Sequence[str]) -> tuple[pa.Table, Places, Places]:
        """Some columns of the rows that match, the numbers of their files, and theirs within them.

        In the order of the files, in one scan by DuckDB: it skips the other columns where nothing
        matches. A condition with a subquery gives rows in another order.
        """
        wanted = ", ".join(f"{sql.VIEW}.{sql.quoted(name)}" for name in [*columns, *_ADDED])
        scan = sql.scan(self.dataset, ", filename = true, file_row_number = true")
        with sql.connect() as connection:
            found = sql.matching(connection, wanted, scan, where)
        files = pc.index_in(found["filename"], pa.array(self.dataset.files)).to_numpy()
        numbers = found["file_row_number"].to_numpy()
        order = np.lexsort((numbers, files))
        table = found.select(list(columns))
        if not np.array_equal(order, np.arange(len(order))):
            table = table.take(pa.array(order))
        return table, files[order], numbers[order]

    def take(self, places: Places, columns: Sequence[str]) -> pa.Table:
        """Some columns of the rows at some places, in that order; null where a place is -1.

        Only row groups that hold one of them are read.
        """
        wanted = np.unique(places[places >= 0])
        starts = np.array([group.start for group in self.groups], np.int64)
        numbers = np.unique(np.searchsorted(starts, wanted, side="right") - 1)

        def look(number: int) -> pa.Table:
            group = self.groups[number]
            rows = _within(wanted, group.start, group.rows) - group.start
            return group.read(columns).take(pa.array(rows))

        tables = _side_by_side(look, numbers.tolist())
        empty = pa.schema([self.schema.field(name) for name in columns]).empty_table()
        found = pa.concat_tables(tables) if tables else empty
        if np.array_equal(wanted, places):
            return found
        order = np.where(places < 0, -1, np.searchsorted(wanted, places))
        return absent_as_null(found.combine_chunks(), order)


def _within(places: Places, start: int, rows: int) -> Places:
    """The ascending places from ``start`` on."""
    return places[slice(*np.searchsorted(places, [start, start + rows]))]


def _is_plain(kind: pa.DataType) -> bool:
    """Whether a type comes back from DuckDB as it went in, but for a cast."""
    known = (pa.types.is_integer, pa.types.is_float32, pa.types.is_float64, pa.types.is_boolean)
    texts = (pa.types.is_string, pa.types.is_fixed_size_binary)
    return any(check(kind) for check in (*known, *texts))


def _may_hold(group: Group, keys: NDArray[np.object_]) -> bool:
    if group.span is None:
        return True
    first, last = group.span
    return bool(np.searchsorted(keys, first) < np.searchsorted(keys, last, side="right"))


def _side_by_side(work: Callable[..., T], items: Sequence[object]) -> list[T]:
    if len(items) < 2:
        return [work(item) for item in items]
    return list(map_in_threads(work, items, AT_ONCE))
