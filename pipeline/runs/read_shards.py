"""What was found in every shard that was read to its end, so that no attempt reads it again.

A record says nothing of what was committed, so one that is lost costs a second look at its shard
and nothing else. That is why they are gathered in the cluster's progress actor and written by the
driver now and then, many in one file, instead of a request to the storage for every shard.
"""

import json
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256

from pipeline.errors import UsageError
from pipeline.progress.progress import ShardCount
from pipeline.progress.watch import repeated
from pipeline.runs.manifest import RunFolder
from pipeline.runs.parts import side_by_side
from pipeline.sources.read_unit import Unit
from pipeline.sources.rows import clean
from pipeline.storage.location import Location

WRITE_SECONDS = 15.0
_NAMED = 5


@dataclass(frozen=True)
class ShardRecord:
    """A shard (or chunk of single files) as it was when it was read to its end.

    Attributes:
        name: of the shard, or of the chunk's first file.
        rows, bytes: what it held.
        version: of its files: ``etag:...``, ``mtime:...``; the digest of these for a chunk.
        shards: what its rows have in the column ``shard``.
        changed: it was other than an earlier attempt found it, whose rows are kept. Counts of rows
            say nothing then, so it is read again until a run has completed.
        mixed: rows of an earlier version are among the committed ones, so that the numbers of its
            rows say nothing.
    """

    name: str
    rows: int
    bytes: int
    version: str
    shards: tuple[str, ...] = ()
    changed: bool = False
    mixed: bool = False

    def fits(self, unit: Unit) -> bool:
        """Whether the unit is still what was read.

        Versions of two kinds (a data set that moved from a disk to a bucket) are not compared.
        """
        now = version_of(unit)
        same_kind = now.partition(":")[0] == self.version.partition(":")[0]
        return unit.size == self.bytes and (now == self.version or not same_kind)


Records = dict[str, ShardRecord]


def key_of(unit: Unit) -> str:
    """Names a unit over attempts: a chunk of files by all of them, since chunks can shift."""
    first = clean(unit.name)
    if len(unit.files) == 1:
        return first
    names = "\n".join(clean(file.name) for file in unit.files)
    return f"{first} and {len(unit.files) - 1} more {sha256(names.encode()).hexdigest()[:16]}"


def version_of(unit: Unit) -> str:
    """Changes when a file of the unit does."""
    versions = [file.version for file in unit.files]
    if len(versions) == 1:
        return versions[0]
    kind = versions[0].partition(":")[0]
    return f"{kind}:{sha256(json.dumps(versions).encode()).hexdigest()}"


def shards_of(unit: Unit) -> tuple[str, ...]:
    """What its rows have in the column ``shard``."""
    return tuple(clean(file.name) for file in unit.files)


@dataclass
class ShardBook:
    """The records of a run: those of earlier attempts, and what this one adds.

    Attributes:
        folder: of the run.
        records: by `key_of`.
    """

    folder: RunFolder
    records: Records = field(default_factory=dict)

    @classmethod
    def open(cls, folder: RunFolder) -> "ShardBook":
        """Read the records, and put them into one file."""
        book = cls(folder, cls.read(folder))
        if len(folder.shards.files("*.jsonl")) > 1:
            book._gather()
        return book

    @staticmethod
    def read(folder: RunFolder) -> Records:
        """The records; changes nothing."""
        files = [folder.shards.child(name) for name in folder.shards.files("*.jsonl")]
        records: Records = {}
        for content in side_by_side(Location.read, files):
            for line in content.splitlines():
                values = json.loads(line)
                key = values.pop("key")
                values["shards"] = tuple(values.get("shards", ()))
                records[key] = ShardRecord(**values)
        return records

    def refuse_changed(self, units: Iterable[Unit]) -> None:
        """Shards that were read must be what they were.

        Raises:
            UsageError: some changed since.
        """
        changed = [u.name for u in units if not self._of(u, fits=True) and self._of(u)]
        if not changed:
            return
        names = ", ".join(changed[:_NAMED]) + (", ..." if len(changed) > _NAMED else "")
        raise UsageError(
            f"{self.folder.uri}: {len(changed)} shards changed since they were read ({names}); "
            "rows of both versions would be mixed. Choose another place: --set output=NEW, or keep "
            "the rows that are there and add what is new: --set runtime.changed_shards=keep"
        )

    def forget_changed(self, units: Iterable[Unit]) -> None:
        """Read again what changed; rows whose ids are committed stay as they are."""
        old = {key_of(u): self._of(u) for u in units if not self._of(u, fits=True)}
        changed = {key: replace(r, changed=True) for key, r in old.items() if r is not None}
        if changed:
            self.records |= changed
            self._gather()

    def forget(self, shards: Collection[str]) -> None:
        """Read all of what touches these shards again."""
        wanted = set(shards)
        kept = {
            key: record
            for key, record in self.records.items()
            if wanted.isdisjoint(record.shards or (record.name,))
        }
        if len(kept) < len(self.records):
            self.records = kept
            self._gather()

    def settle(self) -> None:
        """A run has completed: every row of what changed is committed."""
        if any(record.changed for record in self.records.values()):
            self.records = {
                key: replace(r, changed=False, mixed=r.mixed or r.changed)
                for key, r in self.records.items()
            }
            self._gather()

    def unfinished(self, units: Sequence[Unit], committed: Mapping[str, int]) -> list[Unit]:
        """The units that are to be read: not recorded, or with rows that are not committed."""
        whole = {
            shards
            for shards, rows in self._expected(units).items()
            if rows == _of(shards, committed)
        }
        changed = {shards_of(u) for u in units if (r := self._of(u)) is not None and r.changed}
        return [unit for unit in units if shards_of(unit) not in whole - changed]

    def counted(self, unit: Unit) -> int | None:
        """Rows of a unit whose committed rows tell by their numbers which they are; else None."""
        record = self._of(unit, fits=True)
        sure = record is not None and not record.changed and not record.mixed
        return record.rows if record is not None and sure else None

    def faults(self, units: Sequence[Unit], committed: Mapping[str, int]) -> list[str]:
        """What does not add up, in words, by shard; empty once every row read is committed."""
        lines = []
        for shards, rows in self._expected(units).items():
            there = _of(shards, committed)
            if rows is None:
                lines.append(f"{shards[0]}: not read to its end")
            elif there < rows:
                lines.append(f"{shards[0]}: {rows} rows were read, {there} are committed")
        return lines

    def surplus(self, units: Sequence[Unit], committed: Mapping[str, int]) -> dict[str, int]:
        """Rows beyond what the shards hold now, by shard; all rows of one that is gone."""
        expected = self._expected(units)
        known = {shard for shards in expected for shard in shards}
        more = {
            shards[0]: _of(shards, committed) - (rows or 0) for shards, rows in expected.items()
        }
        gone = {shard: rows for shard, rows in committed.items() if shard not in known}
        return {shard: rows for shard, rows in (more | gone).items() if rows > 0}

    def rows(self, units: Iterable[Unit]) -> int:
        """Rows of the units that are recorded."""
        found = [self._of(unit) for unit in units]
        return sum(record.rows for record in found if record is not None)

    def bytes_per_row(self, default: float, enough: int) -> float:
        """Mean bytes of a row in the shards read so far; the default before ``enough`` rows."""
        rows = sum(record.rows for record in self.records.values())
        size = sum(record.bytes for record in self.records.values())
        return max(1.0, size / rows) if rows >= enough else default

    @contextmanager
    def recording(
        self, units: Iterable[Unit], take: Callable[[], Mapping[str, ShardCount]]
    ) -> Iterator[None]:
        """Record what readers report, until the block ends, however it ends.

        Args:
            units: that are being read.
            take: gives what was reported since it was asked last.
        """
        by_name = {unit.name: unit for unit in units}
        unwritten: Records = {}

        def record() -> None:
            for name, count in take().items():
                unit = by_name[name]
                before = self._of(unit)
                unwritten[key_of(unit)] = ShardRecord(
                    clean(name),
                    count.rows,
                    count.bytes,
                    version_of(unit),
                    shards_of(unit),
                    changed=before is not None and before.changed,
                    mixed=before is not None and before.mixed,
                )
            if unwritten:
                self.records |= unwritten
                self._write(unwritten)
                unwritten.clear()

        def now_and_then() -> bool:
            with suppress(UsageError):  # of the storage; what was not written is kept
                record()
            return True

        try:
            with repeated(now_and_then, WRITE_SECONDS, "shard records"):
                yield
        finally:
            record()

    def _write(self, records: Records) -> None:
        lines = [json.dumps({"key": key, **asdict(record)}) for key, record in records.items()]
        name = f"{time.time_ns():020d}-{uuid.uuid4().hex[:8]}.jsonl"  # read in order: the last wins
        self.folder.shards.child(name).write("\n".join(lines).encode())

    def _gather(self) -> None:
        """Put all records into one file: of two for one shard, nobody could say which is newer."""
        files = [self.folder.shards.child(name) for name in self.folder.shards.files("*.jsonl")]
        self._write(self.records)
        side_by_side(Location.delete, files)

    def _of(self, unit: Unit, *, fits: bool = False) -> ShardRecord | None:
        record = self.records.get(key_of(unit))
        return record if record is not None and (not fits or record.fits(unit)) else None

    def _expected(self, units: Iterable[Unit]) -> dict[tuple[str, ...], int | None]:
        """Rows by the shards that units share; None where one of these units is not recorded."""
        total: dict[tuple[str, ...], int | None] = defaultdict(int)
        for unit in units:
            record, shards = self._of(unit), shards_of(unit)
            before = total[shards]
            total[shards] = None if record is None or before is None else before + record.rows
        return dict(total)


def _of(shards: Iterable[str], committed: Mapping[str, int]) -> int:
    return sum(committed.get(shard, 0) for shard in shards)
