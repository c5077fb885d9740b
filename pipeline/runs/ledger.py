"""What is committed: the record of every part, gathered; the only book of a run."""

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
from pipeline.runs.parts import (
    arrow_filesystem,
    committed_sizes,
)
from pipeline.storage.location import Location

INDEXED_FROM = 200
"""Parts that no index knows, from which on one is written before a run."""


class BrokenPartError(UsageError):
    """A part is no sound Parquet file.

    Attributes:
        part: which one.
    """

    def __init__(self, part: Location, error: Exception) -> None:
        super().__init__(
            f"{part.path}: this part of the results is no sound Parquet file ({error}). Restore "
            "it, or run the same command again, which removes it and computes its rows anew."
        )
        self.part = part

    def is_certain(self) -> bool:
        """Whether all bytes that the storage has of it make no Parquet file, at a second look."""
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
        size: of its file in bytes.
        runs: of its rows, merged (`book.RUNS`).
        ends: of read units (`book.ENDS`).
        has_places: whether the part says where its rows stand in their shards; parts of versions
            with Ray's checkpoint do not, and only the counts of their runs mean something.
    """

    size: int
    runs: pa.Table
    ends: pa.Table
    has_places: bool = True


@dataclass(frozen=True)
class Totals:
    """All parts together.

    Attributes:
        runs: of all rows (`book.RUNS`), merged part by part.
        part: name of the part of every run, in the order of the runs.
        ends: of all read units, those that no part records included (`book.ENDS`).
    """

    runs: pa.Table
    part: pa.ChunkedArray
    ends: pa.Table

    @cached_property
    def statuses(self) -> Counter[str]:
        """Rows by status."""
        return _sums(self.runs, "status")

    @cached_property
    def shards(self) -> Counter[str]:
        """Rows by shard."""
        return _sums(self.runs, "shard")


@dataclass
class Ledger:
    """The records of the committed parts; a part is read once, for it never changes.

    Attributes:
        folder: of the run.
        records: by the name of the part.
    """

    folder: RunFolder
    records: dict[str, PartRecord] = field(default_factory=dict)
    _extra_ends: pa.Table = field(default_factory=book.ENDS.empty_table)
    _unindexed: int = 0

    def refresh(self) -> "Ledger":
        """Read the records of the parts that were committed since.

        Raises:
            BrokenPartError: one is no Parquet file.
            UsageError: the storage refuses.
        """
        sizes = committed_sizes(self.folder)
        known = {
            name: record for name, record in self.records.items() if sizes.get(name) == record.size
        }
        if not self.records and len(sizes) > 1:
            known |= _indexed(self.folder, {n: s for n, s in sizes.items() if n not in known})
        new = [name for name in sizes if name not in known]
        read = list(map_in_threads(_record, [self.folder.images.child(name) for name in new]))
        for name, record in zip(new, read, strict=True):
            known[name] = PartRecord(sizes[name], *record)
        self._unindexed += len(new)
        self.records = {name: known[name] for name in sizes}
        self._extra_ends = book.ends_from(_extra_ends(self.folder))
        self.__dict__.pop("totals", None)
        return self

    @cached_property
    def totals(self) -> Totals:
        """All records together; until the next `refresh`."""
        runs = pa.concat_tables([book.RUNS.empty_table(), *(r.runs for r in self.records.values())])
        names = [pa.repeat(pa.scalar(name), r.runs.num_rows) for name, r in self.records.items()]
        ends = pa.concat_tables([self._extra_ends, *(r.ends for r in self.records.values())])
        return Totals(runs, pa.chunked_array(names, pa.string()), ends)

    @property
    def statuses(self) -> Counter[str]:
        """Rows by status."""
        return self.totals.statuses

    @property
    def rows(self) -> int:
        """All rows."""
        return self.statuses.total()

    @property
    def bytes(self) -> int:
        """Size of all parts."""
        return sum(record.size for record in self.records.values())

    @property
    def earlier_layout(self) -> bool:
        """Whether a version with Ray's checkpoint wrote some of the parts."""
        return not all(record.has_places for record in self.records.values())

    def remember(self, ends: Iterable[str]) -> None:
        """Keep ends (JSON) that no part records."""
        before = _extra_ends(self.folder)
        after = list(dict.fromkeys([*before, *ends]))
        if len(after) > len(before):
            self.folder.ends.write("\n".join(after).encode())

    def forget(self, units: Iterable[str]) -> None:
        """Drop the ends of some units (keys) that no part records."""
        gone = set(units)
        before = _extra_ends(self.folder)
        after = [end for end in before if json.loads(end)["unit"] not in gone]
        if len(after) < len(before):
            self.folder.ends.write("\n".join(after).encode())

    def index(self, fewest: int = 1) -> None:
        """Write the index, if at least so many parts are not in it."""
        if self._unindexed < fewest:
            return
        totals, places = self.totals, [name for name, r in self.records.items() if r.has_places]
        sizes = {name: self.records[name].size for name in places}
        kept = pc.is_in(totals.part, pa.array(places, pa.string()))
        table = totals.runs.append_column("part", totals.part).filter(kept)
        about = {"sizes": json.dumps(sizes)}
        for name, part in ((n, self.records[n]) for n in places if self.records[n].ends.num_rows):
            about[f"ends.{name}"] = json.dumps(part.ends.to_pylist())
        sink = io.BytesIO()
        pq.write_table(table.replace_schema_metadata(about), sink, compression="zstd")
        self.folder.index.write(sink.getvalue())
        self._unindexed = 0


def _indexed(folder: RunFolder, sizes: dict[str, int]) -> dict[str, PartRecord]:
    """Records of some parts from the index; a file that is lost or broken knows none."""
    if not folder.index.exists():
        return {}
    try:
        table = pq.read_table(pa.BufferReader(folder.index.read()))
        about = {k.decode(): v for k, v in (table.schema.metadata or {}).items()}
        known = json.loads(about["sizes"])
    except (pa.ArrowInvalid, KeyError, ValueError):
        return {}
    names = table["part"].combine_chunks().dictionary_encode()
    records: dict[str, PartRecord] = {}
    starts = _starts(names.indices)
    stops = [*starts[1:], len(names)]
    runs = table.select(book.RUNS.names).replace_schema_metadata(None)
    for start, stop in zip(starts, stops, strict=True):
        name = names[start].as_py()
        if sizes.get(name) == known.get(name):
            ends = json.loads(about.get(f"ends.{name}", b"[]"))
            record = pa.Table.from_pylist(ends, schema=book.ENDS)
            records[name] = PartRecord(known[name], runs.slice(start, stop - start), record)
    return records


def missing_parts(folder: RunFolder) -> list[str]:
    """Parts that the index lists and that are no longer there; none where there is no index."""
    if not folder.index.exists():
        return []
    about = pq.read_schema(pa.BufferReader(folder.index.read())).metadata or {}
    known = json.loads(about.get(b"sizes", b"{}"))
    return sorted(known.keys() - committed_sizes(folder).keys())


def _starts(indices: pa.Array) -> list[int]:
    """Where the stretches of equal numbers begin."""
    values = indices.to_numpy(zero_copy_only=False)
    if not len(values):
        return []
    starts: list[int] = [0, *(np.flatnonzero(values[1:] != values[:-1]) + 1).tolist()]
    return starts


def _extra_ends(folder: RunFolder) -> list[str]:
    return folder.ends.read().decode().splitlines() if folder.ends.exists() else []


def _record(part: Location) -> tuple[pa.Table, pa.Table, bool]:
    """Runs and ends of a part, from its metadata; of an earlier version's from its rows."""
    try:
        metadata = pq.read_metadata(part.path, filesystem=arrow_filesystem(part))
        record = book.decode(metadata.metadata)
        if record is not None:
            return book.merged(record[0]), record[1], True
        return _counted(part), book.ENDS.empty_table(), False
    except pa.ArrowInvalid as error:
        raise BrokenPartError(part, error) from error


def _counted(part: Location) -> pa.Table:
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
    return pa.table(values, schema=book.RUNS)


def _sums(runs: pa.Table, column: str) -> Counter[str]:
    grouped = runs.group_by(column).aggregate([("count", "sum")])
    return Counter(
        dict(zip(grouped[column].to_pylist(), grouped["count_sum"].to_pylist(), strict=True))
    )
