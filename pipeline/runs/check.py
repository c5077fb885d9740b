"""Does an output add up? Rows read, rows committed, failures, duplicates; from the output alone."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds

from pipeline.runs.duplicates import repeated_ids
from pipeline.runs.lease import Holder, holder_of
from pipeline.runs.manifest import RunFolder, read_manifest
from pipeline.runs.parts import Ledger, arrow_filesystem, committed_parts
from pipeline.runs.read_shards import ShardBook
from pipeline.schema import IDENTITY, OUTCOME, UNREADABLE, Status


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
        duplicates: image ids that stand more than once, at most `duplicates.MOST_NAMED`.
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
    one_row_a_file = manifest["source"]["format"] == "folder"
    return Check(
        output=folder.uri,
        shards=tuple(_shards(folder, ledger, one_row_a_file=one_row_a_file)),
        statuses=ledger.statuses,
        duplicates=tuple(repeated_ids(committed_parts(folder))),
        parts=len(ledger.counts),
        bytes=ledger.bytes,
        marked=None if marker is None else int(marker["rows"]),
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
    rows: Counter[str] = Counter()
    ok: Counter[str] = Counter()
    for counts in ledger.counts.values():
        for (shard, status), number in counts.items():
            rows[shard] += number
            ok[shard] += number * (status == Status.OK)
    groups: Counter[tuple[str, ...]] = Counter()  # units that read the same files count together
    for key, record in ShardBook.read(folder).items():
        groups[record.shards or (key,)] += record.rows
    if one_row_a_file:
        groups.clear()
    cut_off = _cut_off(folder)
    home = {shard: group for group in groups for shard in group}
    for group in dict.fromkeys(home.get(n, (n,)) for n in [*_assigned(folder), *home, *rows]):
        expected = 1 if one_row_a_file else groups.get(group)
        expected = None if not cut_off.isdisjoint(group) else expected
        there, good = (sum(counts[shard] for shard in group) for counts in (rows, ok))
        yield ShardState(group[0], expected, there, good)


def _cut_off(folder: RunFolder) -> set[str]:
    """Shards of which a row stands for what the storage would not give."""
    stands_in = (ds.field("key") == UNREADABLE) & (ds.field("status") == str(Status.READ_ERROR))
    found = _dataset(folder).to_table(columns=["shard"], filter=stands_in)
    return set(found["shard"].to_pylist())


def _assigned(folder: RunFolder) -> list[str]:
    """Shards the run set out to do, in its order."""
    if not folder.waves.exists():
        return []
    return [shard for wave in json.loads(folder.waves.read()) for shard in wave["shards"]]


def _dataset(folder: RunFolder) -> ds.Dataset:
    """Identity and outcome of the committed rows, also where there are none."""
    parts = [part.path for part in committed_parts(folder)]
    schema = pa.schema([*IDENTITY, *OUTCOME])
    filesystem = arrow_filesystem(folder.images)
    return ds.dataset(parts, schema=schema, filesystem=filesystem, format="parquet")
