"""Check an output from its own records: rows read, rows committed, failures and duplicates."""

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
from pipeline.runs.parts import committed_parts, ids_of
from pipeline.schema import IDENTITY, OUTCOME, Status
from pipeline.storage.location import Location, arrow_filesystem

MOST_NAMED = 1_000


@dataclass(frozen=True)
class ShardState:
    """One shard (or single file) of the input.

    Attributes:
        name: name of the shard, as in the column ``shard``.
        expected: number of rows in it; None if no attempt has read it to the end, or if the rest
            of it could not be read.
        rows: number of committed rows.
        ok: number of committed rows with results.
    """

    name: str
    expected: int | None
    rows: int
    ok: int

    @property
    def missing(self) -> int:
        """Number of expected rows that are not committed."""
        return max(0, (self.expected or 0) - self.rows)


@dataclass(frozen=True)
class Check:
    """What an output holds, and whether it is complete.

    Attributes:
        output: URI of the output.
        shards: every shard of the input, or that has committed rows.
        statuses: number of committed rows by status.
        duplicates: image ids that occur more than once, at most `MOST_NAMED`.
        parts, bytes: number of committed Parquet files, and their size.
        rows_at_completion: number of rows in the completion marker; None without one.
        holder: the driver that writes to it now.
    """

    output: str
    shards: tuple[ShardState, ...]
    statuses: Counter[str]
    duplicates: tuple[str, ...]
    parts: int
    bytes: int
    rows_at_completion: int | None
    holder: Holder | None = None

    @property
    def rows(self) -> int:
        """Number of committed rows."""
        return self.statuses.total()

    @property
    def unread(self) -> list[ShardState]:
        """Shards that no attempt has read to their end."""
        return [shard for shard in self.shards if shard.expected is None]

    @property
    def problems(self) -> list[str]:
        """Sentences on what is missing or wrong; empty if the output is complete."""
        short = [shard for shard in self.shards if shard.missing]
        messages = []
        if self.unread:
            messages.append(
                f"{len(self.unread)} of {len(self.shards)} shards are not read to the end"
            )
        if short:
            rows = sum(shard.missing for shard in short)
            messages.append(f"{rows} rows of {len(short)} shards are missing")
        if self.duplicates:
            messages.append(
                f"{len(self.duplicates)} image ids occur more than once, "
                f"for example {self.duplicates[0]}"
            )
        if self.rows_at_completion is None:
            messages.append("no attempt has finished (no completion marker)")
        elif self.rows_at_completion != self.rows:
            messages.append(
                f"the run finished with {self.rows_at_completion} rows, "
                f"but the output now has {self.rows}"
            )
        return messages

    @property
    def sound(self) -> bool:
        """Whether the output is complete and holds every row once."""
        return not self.problems


def check(folder: RunFolder) -> Check:
    """Check an output, finished or not, without changing it.

    Raises:
        UsageError: there is no run in the folder, or the storage fails.
    """
    manifest = read_manifest(folder)
    ledger = Ledger(folder).refresh()
    marker = json.loads(folder.complete.read()) if folder.complete.exists() else None
    rows_at_completion = None if marker is None else int(marker["rows"])
    one_row_per_file = manifest["source"]["format"] == "folder"
    if ledger.earlier_layout:
        shards = _shards_of_earlier_version(ledger, complete=rows_at_completion == ledger.rows)
    else:
        shards = _shards(folder, ledger, one_row_per_file=one_row_per_file)
    return Check(
        output=folder.uri,
        shards=tuple(shards),
        statuses=ledger.statuses,
        duplicates=tuple(repeated_ids(committed_parts(folder))),
        parts=len(ledger.records),
        bytes=ledger.bytes,
        rows_at_completion=rows_at_completion,
        holder=holder_of(folder),
    )


def failures(folder: RunFolder) -> pd.DataFrame:
    """Rows without results: image_id, status, error, shard, key.

    Raises:
        UsageError: there is no run in the folder, or the storage fails.
    """
    read_manifest(folder)
    columns = ["image_id", "status", "error", "shard", "key"]
    failed = ds.field("status") != str(Status.OK)
    frame: pd.DataFrame = _dataset(folder).to_table(columns=columns, filter=failed).to_pandas()
    return frame.sort_values(["status", "image_id"], ignore_index=True)


def _shards(folder: RunFolder, ledger: Ledger, *, one_row_per_file: bool) -> Iterator[ShardState]:
    """State of every shard; shards that one unit reads together count as one."""
    rows, ok, incomplete = ledger.totals.shards, _explained(ledger), _partly_unreadable(ledger)
    ends: Counter[str] = Counter()
    for end in ledger.totals.ends.to_pylist():
        ends[end["unit"]] = max(ends[end["unit"]], end["rows"] + end["kept"])
    units: dict[str, list[str]] = {}  # shards by unit
    for unit, shard in _input(folder):
        units.setdefault(unit, []).append(shard)
    if one_row_per_file:
        units = {shard: [shard] for shards in units.values() for shard in shards}
        ends = Counter(list(units))
    units_by_shards: dict[tuple[str, ...], list[str]] = {}
    for unit, shards in units.items():
        units_by_shards.setdefault(tuple(shards), []).append(unit)
    listed = {shard for shards in units_by_shards for shard in shards}
    for group in [*units_by_shards, *((shard,) for shard in rows if shard not in listed)]:
        group_units = units_by_shards.get(group, group)
        read = all(unit in ends for unit in group_units)
        read = read and incomplete.isdisjoint(group)
        expected = sum(ends[unit] for unit in group_units) if read else None
        committed, explained = (sum(counts[shard] for shard in group) for counts in (rows, ok))
        yield ShardState(group[0], expected, committed, explained)


def _shards_of_earlier_version(ledger: Ledger, *, complete: bool) -> Iterator[ShardState]:
    """State of every shard of an earlier version's run; only its marker shows if it is complete."""
    ok = _explained(ledger)
    for shard, rows in ledger.totals.shards.items():
        yield ShardState(shard, rows if complete else None, rows, ok[shard])


def _explained(ledger: Ledger) -> Counter[str]:
    """Number of rows with results by shard."""
    row_ranges = ledger.totals.row_ranges
    explained = row_ranges.filter(pc.equal(row_ranges["status"], str(Status.OK)))
    sums = explained.group_by("shard").aggregate([("count", "sum")])
    pairs = zip(sums["shard"].to_pylist(), sums["count_sum"].to_pylist(), strict=True)
    return Counter(dict(pairs))


def _partly_unreadable(ledger: Ledger) -> set[str]:
    """Shards with a stand-in row for rows that could not be read from storage."""
    row_ranges = ledger.totals.row_ranges
    unread = pc.equal(row_ranges["status"], str(Status.READ_ERROR))
    return set(
        row_ranges.filter(pc.and_(unread, pc.less(row_ranges["first"], 0)))["shard"].to_pylist()
    )


def _input(folder: RunFolder) -> list[tuple[str, str]]:
    """Keys of the input's units and their shards, in the order of the run."""
    if not folder.input.exists():
        return []
    table = pq.read_table(pa.BufferReader(folder.input.read()))
    return list(zip(table["unit"].to_pylist(), table["shard"].to_pylist(), strict=True))


def repeated_ids(parts: Sequence[Location]) -> dict[str, list[str]]:
    """Find image ids that occur more than once in the given parts; needs 8 bytes of memory per row.

    Returns:
        For each such id the sorted names of the parts that hold it; at most `MOST_NAMED` ids.
    """
    hashes = list(map_in_threads(lambda part: _hashed(_ids(part)), parts))
    values, counts = np.unique(
        np.concatenate([np.zeros(0, np.uint64), *hashes]), return_counts=True
    )
    repeated = values[counts > 1]
    if not repeated.size:
        return {}
    holders: dict[str, list[str]] = defaultdict(list)
    for part, part_hashes in zip(parts, hashes, strict=True):
        suspects = np.isin(part_hashes, repeated)
        if suspects.any():
            for image_id in _ids(part)[suspects]:
                holders[image_id].append(part.path.rsplit("/", 1)[-1])
    duplicates = sorted(image_id for image_id, names in holders.items() if len(names) > 1)
    return {image_id: sorted(holders[image_id]) for image_id in duplicates[:MOST_NAMED]}


def _ids(part: Location) -> NDArray[np.object_]:
    ids: NDArray[np.object_] = ids_of(part).to_numpy(zero_copy_only=False)
    return ids


def _hashed(ids: NDArray[np.object_]) -> NDArray[np.uint64]:
    hashed: NDArray[np.uint64] = pd.util.hash_array(ids, categorize=False)
    return hashed


def _dataset(folder: RunFolder) -> ds.Dataset:
    """Identity and outcome columns of the committed rows; valid even if there are none."""
    parts = [part.path for part in committed_parts(folder)]
    schema = pa.schema([*IDENTITY, *OUTCOME])
    filesystem = arrow_filesystem(folder.images)
    return ds.dataset(parts, schema=schema, filesystem=filesystem, format="parquet")
