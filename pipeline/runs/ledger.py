"""The ledger: everything that is committed, collected from the records stored in the parts.

There is no other authoritative record.
"""

import io
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.errors import UsageError
from pipeline.machine import map_in_threads
from pipeline.runs import book
from pipeline.runs.manifest import RunFolder
from pipeline.runs.parts import committed_sizes
from pipeline.storage.location import Location, arrow_filesystem

FEWEST_UNINDEXED = 200
"""Before a run, the index is rewritten if it lacks at least this many parts."""


class BrokenPartError(UsageError):
    """A part is not a valid Parquet file.

    Attributes:
        part: the file.
    """

    def __init__(self, part: Location, error: Exception) -> None:
        super().__init__(
            f"{part.path}: this part of the results is not a valid Parquet file ({error}). Restore "
            "it, or run the same command again, which removes it and computes its rows again."
        )
        self.part = part

    def is_certain(self) -> bool:
        """Read the whole file again; True if it arrived in full and still is not valid Parquet."""
        data = self.part.read()
        try:
            pq.read_metadata(pa.BufferReader(data))
        except pa.ArrowInvalid:
            return bool(len(data) == self.part.fs.size(self.part.path))
        return False


@dataclass(frozen=True)
class PartRecord:
    """What one part holds.

    Attributes:
        size: size of its file in bytes.
        row_ranges: ranges of its rows, merged (`book.ROW_RANGES`).
        ends: ends of read units (`book.ENDS`).
        has_row_numbers: whether the part records the numbers of its rows in their shards; parts
            written by versions that used Ray's checkpoint do not, and only the counts of their
            row ranges are meaningful.
    """

    size: int
    row_ranges: pa.Table
    ends: pa.Table
    has_row_numbers: bool = True


@dataclass(frozen=True)
class Totals:
    """The records of all parts together.

    Attributes:
        row_ranges: ranges of all rows (`book.ROW_RANGES`), merged within each part.
        part: name of the part that holds each range, in the order of the ranges.
        ends: ends of all read units, including those that no part records (`book.ENDS`).
    """

    row_ranges: pa.Table
    part: pa.ChunkedArray
    ends: pa.Table

    @cached_property
    def statuses(self) -> Counter[str]:
        """Rows by status."""
        return _rows_by(self.row_ranges, "status")

    @cached_property
    def shards(self) -> Counter[str]:
        """Rows by shard."""
        return _rows_by(self.row_ranges, "shard")


@dataclass
class Ledger:
    """The records of the committed parts; a part is read once, because it never changes.

    Attributes:
        folder: folder of the run.
        records: records by the name of the part.
    """

    folder: RunFolder
    records: dict[str, PartRecord] = field(default_factory=dict)
    _extra_ends: pa.Table = field(default_factory=book.ENDS.empty_table)
    _unindexed: int = 0

    def refresh(self) -> "Ledger":
        """Read the records of the parts that were committed since the last refresh.

        Raises:
            BrokenPartError: a part is not a valid Parquet file.
            UsageError: the storage fails.
        """
        sizes = committed_sizes(self.folder)
        records = {
            name: record for name, record in self.records.items() if sizes.get(name) == record.size
        }
        if not self.records and len(sizes) > 1:
            records |= _indexed(self.folder, {n: s for n, s in sizes.items() if n not in records})
        new = [name for name in sizes if name not in records]
        read = list(map_in_threads(_record, [self.folder.images.child(name) for name in new]))
        for name, record in zip(new, read, strict=True):
            records[name] = PartRecord(sizes[name], *record)
        self._unindexed += len(new)
        self.records = {name: records[name] for name in sizes}
        self._extra_ends = book.ends_from(_extra_ends(self.folder))
        self.__dict__.pop("totals", None)
        return self

    @cached_property
    def totals(self) -> Totals:
        """All records together, cached until the next `refresh`."""
        row_ranges = pa.concat_tables(
            [book.ROW_RANGES.empty_table(), *(r.row_ranges for r in self.records.values())]
        )
        names = [
            pa.repeat(pa.scalar(name), r.row_ranges.num_rows) for name, r in self.records.items()
        ]
        ends = pa.concat_tables([self._extra_ends, *(r.ends for r in self.records.values())])
        return Totals(row_ranges, pa.chunked_array(names, pa.string()), ends)

    @property
    def statuses(self) -> Counter[str]:
        """Rows by status."""
        return self.totals.statuses

    @property
    def rows(self) -> int:
        """Number of committed rows."""
        return self.statuses.total()

    @property
    def bytes(self) -> int:
        """Size of all parts in bytes."""
        return sum(record.size for record in self.records.values())

    @property
    def earlier_layout(self) -> bool:
        """Whether a version that used Ray's checkpoint wrote some of the parts."""
        return not all(record.has_row_numbers for record in self.records.values())

    def remember(self, ends: Iterable[str]) -> None:
        """Store ends (JSON) that no part records."""
        before = _extra_ends(self.folder)
        after = list(dict.fromkeys([*before, *ends]))
        if len(after) > len(before):
            self.folder.ends.write("\n".join(after).encode())

    def forget(self, units: Iterable[str]) -> None:
        """Drop the stored ends of the units with the given keys; ends in parts stay."""
        dropped_units = set(units)
        before = _extra_ends(self.folder)
        after = [end for end in before if json.loads(end)["unit"] not in dropped_units]
        if len(after) < len(before):
            self.folder.ends.write("\n".join(after).encode())

    def index(self, fewest: int = 1) -> None:
        """Write the index if it lacks at least `fewest` parts."""
        if self._unindexed < fewest:
            return
        totals = self.totals
        indexable_parts = [name for name, r in self.records.items() if r.has_row_numbers]
        sizes = {name: self.records[name].size for name in indexable_parts}
        indexable = pc.is_in(totals.part, pa.array(indexable_parts, pa.string()))
        table = totals.row_ranges.append_column("part", totals.part).filter(indexable)
        index_metadata = {"sizes": json.dumps(sizes)}
        for name in indexable_parts:
            if self.records[name].ends.num_rows:
                index_metadata[f"ends.{name}"] = json.dumps(self.records[name].ends.to_pylist())
        sink = io.BytesIO()
        pq.write_table(table.replace_schema_metadata(index_metadata), sink, compression="zstd")
        self.folder.index.write(sink.getvalue())
        self._unindexed = 0


def _indexed(folder: RunFolder, sizes: dict[str, int]) -> dict[str, PartRecord]:
    """Records of the given parts from the index; empty if the index is missing or broken."""
    if not folder.index.exists():
        return {}
    try:
        table = pq.read_table(pa.BufferReader(folder.index.read()))
        index_metadata = {k.decode(): v for k, v in (table.schema.metadata or {}).items()}
        indexed_sizes = json.loads(index_metadata["sizes"])
    except (pa.ArrowInvalid, KeyError, ValueError):
        return {}
    names = table["part"].combine_chunks().dictionary_encode()
    records: dict[str, PartRecord] = {}
    starts = _starts(names.indices)
    stops = [*starts[1:], len(names)]
    row_ranges = table.select(book.ROW_RANGES.names).replace_schema_metadata(None)
    for start, stop in zip(starts, stops, strict=True):
        name = names[start].as_py()
        if sizes.get(name) == indexed_sizes.get(name):
            ends = json.loads(index_metadata.get(f"ends.{name}", b"[]"))
            part_ends = pa.Table.from_pylist(ends, schema=book.ENDS)
            part_ranges = row_ranges.slice(start, stop - start)
            records[name] = PartRecord(indexed_sizes[name], part_ranges, part_ends)
    return records


def missing_parts(folder: RunFolder) -> list[str]:
    """Parts that the index lists and that no longer exist; empty if there is no index."""
    if not folder.index.exists():
        return []
    index_metadata = pq.read_schema(pa.BufferReader(folder.index.read())).metadata or {}
    indexed_sizes = json.loads(index_metadata.get(b"sizes", b"{}"))
    return sorted(indexed_sizes.keys() - committed_sizes(folder).keys())


def _starts(indices: pa.Array) -> list[int]:
    """Positions at which a stretch of equal numbers begins."""
    values = indices.to_numpy(zero_copy_only=False)
    if not len(values):
        return []
    starts: list[int] = [0, *(np.flatnonzero(values[1:] != values[:-1]) + 1).tolist()]
    return starts


def _extra_ends(folder: RunFolder) -> list[str]:
    return folder.ends.read().decode().splitlines() if folder.ends.exists() else []


def _record(part: Location) -> tuple[pa.Table, pa.Table, bool]:
    """Row ranges and ends of a part, and whether it has row numbers.

    They come from its metadata, or are counted from its rows if an earlier version wrote it.
    """
    try:
        metadata = pq.read_metadata(part.path, filesystem=arrow_filesystem(part))
        record = book.from_metadata(metadata.metadata)
        if record is not None:
            return book.merge_ranges(record[0]), record[1], True
        return _ranges_from_rows(part), book.ENDS.empty_table(), False
    except pa.ArrowInvalid as error:
        raise BrokenPartError(part, error) from error


def _ranges_from_rows(part: Location) -> pa.Table:
    columns = ["shard", "status"]
    table = pq.read_table(part.path, columns=columns, filesystem=arrow_filesystem(part))
    grouped = table.group_by(columns).aggregate([([], "count_all")])
    rows = grouped.num_rows
    values = {
        "shard": grouped["shard"],
        "version": pa.repeat("", rows),
        "bytes": pa.repeat(0, rows),
        "status": grouped["status"],
        "first": pa.repeat(0, rows),
        "count": grouped["count_all"],
    }
    return pa.table(values, schema=book.ROW_RANGES)


def _rows_by(row_ranges: pa.Table, column: str) -> Counter[str]:
    grouped = row_ranges.group_by(column).aggregate([("count", "sum")])
    return Counter(
        dict(zip(grouped[column].to_pylist(), grouped["count_sum"].to_pylist(), strict=True))
    )
