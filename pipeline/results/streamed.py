"""Datasets whose batches are made while they are read, with the methods of a pyarrow dataset."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from pipeline.machine import map_in_threads
from pipeline.results.rows import named_columns

_GROUPS_AHEAD = 2
"""Row groups that are in memory besides the one that is used."""


def in_batches(
    dataset: Any, columns: Sequence[str], rows: int | None = None
) -> Iterator[pa.RecordBatch]:
    """Some columns of a dataset in batches, a few row groups of which are in memory at a time.

    Of stored files, `to_batches` reads hundreds of megabytes ahead of a slow reader, whatever its
    options say.

    Args:
        dataset: a pyarrow dataset, or what reads as one.
        columns: the columns.
        rows: rows that a batch has at most; None for the usual number.
    """
    if isinstance(dataset, StreamedDataset):
        yield from dataset.stream(columns, rows)
        return
    options: dict[str, Any] = {} if rows is None else {"batch_size": rows}
    if not isinstance(dataset, ds.FileSystemDataset):
        yield from dataset.to_batches(columns=list(columns), **options)
        return
    scan: dict[str, Any] = {"schema": dataset.schema, "columns": list(columns)}
    groups = (group for file in dataset.get_fragments() for group in file.split_by_row_group())
    # Threads of its own, which inherit the priority of the caller's, instead of Arrow's pool.
    read = partial(ds.ParquetFileFragment.to_table, use_threads=False, **scan)
    for table in map_in_threads(read, groups, _GROUPS_AHEAD):
        yield from table.to_batches(rows)


class StreamedDataset(ABC):
    """Reads as a pyarrow dataset does.

    Attributes:
        schema: schema of all columns.
    """

    schema: pa.Schema

    @abstractmethod
    def stream(self, names: Sequence[str], rows: int | None) -> Iterator[pa.RecordBatch]:
        """Some columns in batches.

        Args:
            names: the columns.
            rows: rows that a batch has at most; None for the usual number.
        """

    def scanner(
        self,
        columns: Sequence[str] | Mapping[str, pc.Expression] | None = None,
        filter: pc.Expression | None = None,
        **options: Any,
    ) -> ds.Scanner:
        """See `pyarrow.dataset.Dataset.scanner`."""
        names = self.needed(columns, filter)
        schema = pa.schema([self.schema.field(name) for name in names])
        batches = self.stream(names, options.get("batch_size"))
        return ds.Scanner.from_batches(batches, schema=schema, columns=columns, filter=filter)

    def to_batches(self, *arguments: Any, **options: Any) -> Iterator[pa.RecordBatch]:
        """See `pyarrow.dataset.Dataset.to_batches`."""
        yield from self.scanner(*arguments, **options).to_batches()

    def to_table(self, *arguments: Any, **options: Any) -> pa.Table:
        """See `pyarrow.dataset.Dataset.to_table`."""
        return self.scanner(*arguments, **options).to_table()

    def needed(
        self,
        columns: Sequence[str] | Mapping[str, pc.Expression] | None,
        filter: pc.Expression | None,
    ) -> list[str]:
        """The columns that a scan uses."""
        texts = columns.values() if isinstance(columns, Mapping) else columns
        named = self.schema.names if texts is None else [str(text) for text in texts]
        condition = [] if filter is None else named_columns(filter, self.schema)
        used = [name for text in named for name in self._used(text)]
        return list(dict.fromkeys([*used, *condition]))

    def _used(self, text: str) -> list[str]:
        """The columns in the text of a column's name or of an expression."""
        return [text] if text in self.schema.names else named_columns(text, self.schema)
