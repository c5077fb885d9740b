"""Checks an output by itself: rows read, rows committed, failures and duplicates."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.machine import map_in_threads
from pipeline.runs.lease import Holder, holder_of
from pipeline.runs.ledger import Ledger
from pipeline.runs.manifest import RunFolder, read_manifest
from pipeline.runs.parts import arrow_filesystem, committed_parts, ids_of
from pipeline.schema import IDENTITY, OUTCOME, Status
from pipeline.storage.location import Location

MOST_NAMED = 1_000


@dataclass(frozen=True)
class ShardState:
    """One shard (or single file) of the input.

    Attributes:
        name: as in the column ``shard``.
        expected: its rows; None where no attempt has read it to its end, and where the storage
            would not give the rest of it.
        rows: committed.
        ok: of these, explained.
    """

    name: str
    expected: int | None
    rows: int
    ok: int

    @property
    def missing(self) -> int:
        """Rows that are expected and not committed."""
        return max(0, (self.expected or 0) - self.rows)


@dataclass(frozen=True)
class Check:
    """What an output holds, and whether that is all.

    Attributes:
        output: where it lies.
        shards: every shard the run knows of.
        statuses: committed rows by status.
        duplicates: image ids that stand more than once, at most `MOST_NAMED`.
        parts, bytes: committed Parquet files and their size.
        marked: rows by the completion marker; None without one.
        holder: who writes to it now.
    """

    output: str
    shards: tuple[ShardState, ...]
    statuses: Counter[str]
    duplicates: tuple[str, ...]
    parts: int
    bytes: int
    marked: int | None
    holder: Holder | None = None

    @property
    def rows(self) -> int:
        """Committed rows."""
        return self.statuses.total()

    @property
    def unread(self) -> list[ShardState]:
        """Shards that no attempt has read to their end."""
        return [shard for shard in self.shards if shard.expected is None]

    @property
    def problems(self) -> list[str]:
        """What does not add up, in words; empty for a complete and sound output."""
        short = [shard for shard in self.shards if shard.missing]
        told = []
        if self.unread:
            told.append(f"{len(self.unread)} of {len(self.shards)} shards are not read to the end")
        if short:
            rows = sum(shard.missing for shard in short)
            told.append(f"{rows} rows of {len(short)} shards are missing")
        if self.duplicates:
            told.append(f"{len(self.duplicates)} image ids stand twice, {self.duplicates[0]} first")
        if self.marked is None:
            told.append("no attempt has finished (no completion marker)")
        elif self.marked != self.rows:
            told.append(f"{self.marked} rows when it finished, {self.rows} now")
        return told

    @property
    def sound(self) -> bool:
        """Complete, every row once."""
        return not self.problems


def check(folder: RunFolder) -> Check:
    """Count an output, finished or not; changes nothing.

    Raises:
        UsageError: no run is there, or the storage refuses.
    """
    manifest = read_manifest(folder)
    ledger = Ledger(folder).refresh()
    marker = json.loads(folder.complete.read()) if folder.complete.exists() else None
    marked = None if marker is None else int(marker["rows"])
    one_row_a_file = manifest["source"]["format"] == "folder"
    if ledger.earlier_layout:
        shards = _marked_shards(ledger, complete=marked == ledger.rows)
    else:
        shards = _shards(folder, ledger, one_row_a_file=one_row_a_file)
    return Check(
        output=folder.uri,
        shards=tuple(shards),
        statuses=ledger.statuses,
        duplicates=tuple(repeated_ids(committed_parts(folder))),
        parts=len(ledger.records),
        bytes=ledger.bytes,
        marked=marked,
        holder=holder_of(folder),
    )


def failures(folder: RunFolder) -> pd.DataFrame:
    """Rows without results: image_id, status, error, shard, key.

    Raises:
        UsageError: no run is there, or the storage refuses.
    """
    read_manifest(folder)
    columns = ["image_id", "status", "error", "shard", "key"]
    wanted = ds.field("status") != str(Status.OK)
    frame: pd.DataFrame = _dataset(folder).to_table(columns=columns, filter=wanted).to_pandas()
    return frame.sort_values(["status", "image_id"], ignore_index=True)


def _shards(folder: RunFolder, ledger: Ledger, *, one_row_a_file: bool) -> Iterator[ShardState]:
    """Every shard; those that are read together for a limit count as one."""
    rows, ok, open_ended = ledger.totals.shards, _explained(ledger), _open_ended(ledger)
    ends: Counter[str] = Counter()
    for end in ledger.totals.ends.to_pylist():
        ends[end["unit"]] = max(ends[end["unit"]], end["rows"] + end["kept"])
    units: dict[str, list[str]] = {}  # shards by unit
    for unit, shard in _input(folder):
        units.setdefault(unit, []).append(shard)
    if one_row_a_file:
        units = {shard: [shard] for shards in units.values() for shard in shards}
        ends = Counter(list(units))
    groups: dict[tuple[str, ...], list[str]] = {}  # units by the shards that they share
    for unit, shards in units.items():
        groups.setdefault(tuple(shards), []).append(unit)
    known = {shard for group in groups for shard in group}
    for group in [*groups, *((shard,) for shard in rows if shard not in known)]:
        read = all(unit in ends for unit in groups.get(group, group))
        read = read and open_ended.isdisjoint(group)
        expected = sum(ends[unit] for unit in groups.get(group, group)) if read else None
        there, good = (sum(counts[shard] for shard in group) for counts in (rows, ok))
        yield ShardState(group[0], expected, there, good)


def _marked_shards(ledger: Ledger, *, complete: bool) -> Iterator[ShardState]:
    """Shards of a run of an earlier version: its marker alone tells whether they are whole."""
    ok = _explained(ledger)
    for shard, rows in ledger.totals.shards.items():
        yield ShardState(shard, rows if complete else None, rows, ok[shard])


def _explained(ledger: Ledger) -> Counter[str]:
    """Rows with results by shard."""
    runs = ledger.totals.runs
    good = runs.filter(pc.equal(runs["status"], str(Status.OK)))
    sums = good.group_by("shard").aggregate([("count", "sum")])
    pairs = zip(sums["shard"].to_pylist(), sums["count_sum"].to_pylist(), strict=True)
    return Counter(dict(pairs))


def _open_ended(ledger: Ledger) -> set[str]:
    """Shards of which a row stands for what the storage would not give."""
    runs = ledger.totals.runs
    unread = pc.equal(runs["status"], str(Status.READ_ERROR))
    return set(runs.filter(pc.and_(unread, pc.less(runs["first"], 0)))["shard"].to_pylist())


def _input(folder: RunFolder) -> list[tuple[str, str]]:
    """Units and shards that the run set out to do, in its order."""
    if not folder.input.exists():
        return []
    table = pq.read_table(pa.BufferReader(folder.input.read()))
    return list(zip(table["unit"].to_pylist(), table["shard"].to_pylist(), strict=True))


def repeated_ids(parts: Sequence[Location]) -> dict[str, list[str]]:
    """Image ids that stand more than once in some parts; holds eight bytes a row.

    Returns:
        The names of the parts that hold each, by id, sorted; at most `MOST_NAMED` ids.
    """
    hashes = list(map_in_threads(lambda part: _hashed(_ids(part)), parts))
    values, counts = np.unique(
        np.concatenate([np.zeros(0, np.uint64), *hashes]), return_counts=True
    )
    twice = values[counts > 1]
    if not twice.size:
        return {}
    holders: dict[str, list[str]] = defaultdict(list)
    for part, own in zip(parts, hashes, strict=True):
        suspects = np.isin(own, twice)
        if suspects.any():
            for image_id in _ids(part)[suspects]:
                holders[image_id].append(part.path.rsplit("/", 1)[-1])
    found = sorted(image_id for image_id, names in holders.items() if len(names) > 1)
    return {image_id: sorted(holders[image_id]) for image_id in found[:MOST_NAMED]}


def _ids(part: Location) -> NDArray[np.object_]:
    ids: NDArray[np.object_] = ids_of(part).to_numpy(zero_copy_only=False)
    return ids


def _hashed(ids: NDArray[np.object_]) -> NDArray[np.uint64]:
    hashed: NDArray[np.uint64] = pd.util.hash_array(ids, categorize=False)
    return hashed


def _dataset(folder: RunFolder) -> ds.Dataset:
    """Identity and outcome of the committed rows, also where there are none."""
    parts = [part.path for part in committed_parts(folder)]
    schema = pa.schema([*IDENTITY, *OUTCOME])
    filesystem = arrow_filesystem(folder.images)
    return ds.dataset(parts, schema=schema, filesystem=filesystem, format="parquet")
