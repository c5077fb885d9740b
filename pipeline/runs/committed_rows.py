"""Which rows of a read unit are committed, according to the records of all parts."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pipeline.runs.ledger import Ledger
from pipeline.sources.input_rows import clean
from pipeline.sources.listing import SourceFile
from pipeline.sources.read_unit import Committed, Ranges, Unit, same_version, stood_for

_NO_ROWS = np.zeros(0, np.int64)
_Version = tuple[str, str, int]
"""Name, version and size of a file."""


@dataclass(frozen=True)
class _End:
    """The number of rows of a unit; see `pipeline.runs.book.ENDS`."""

    version: str
    bytes: int
    rows: int
    kept: int

    @property
    def total(self) -> int:
        """Number of rows of the unit, including the kept ones."""
        return self.rows + self.kept


class CommittedRows:
    """The row ranges of a ledger by shard, and its ends by unit.

    Args:
        ledger: a refreshed ledger.
    """

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        row_ranges = ledger.totals.row_ranges
        shards = row_ranges["shard"].combine_chunks().dictionary_encode()
        codes = shards.indices.to_numpy(zero_copy_only=False)
        order = np.lexsort([row_ranges["first"].to_numpy(), codes])
        self._first = row_ranges["first"].to_numpy()[order]
        self._stop = self._first + row_ranges["count"].to_numpy()[order]
        self._bytes = row_ranges["bytes"].to_numpy()[order]
        versions = row_ranges["version"].combine_chunks().dictionary_encode()
        self._versions: list[str] = versions.dictionary.to_pylist()
        self._version = versions.indices.to_numpy(zero_copy_only=False)[order]
        parts = ledger.totals.part.combine_chunks().dictionary_encode()
        self._parts: list[str] = parts.dictionary.to_pylist()
        self._part = parts.indices.to_numpy(zero_copy_only=False)[order]
        names: list[str] = shards.dictionary.to_pylist()
        bounds = np.searchsorted(codes[order], np.arange(len(names) + 1))
        self._rows = {
            name: slice(int(bounds[i]), int(bounds[i + 1])) for i, name in enumerate(names)
        }
        self._ends: dict[str, list[_End]] = defaultdict(list)
        for end in ledger.totals.ends.to_pylist():
            self._ends[end.pop("unit")].append(_End(**end))
        # Kept for the last file only: many units may be parts of one file, and come one by one.
        self._last: tuple[_Version, Ranges] = (("", "", 0), Ranges(_NO_ROWS, _NO_ROWS))
        self._last_current: tuple[_Version, NDArray[np.bool_]] = (("", "", 0), np.zeros(0, bool))

    def remaining(self, unit: Unit) -> Unit | None:
        """The part of a unit that is left to read; None if all of its rows are committed."""
        if unit.single_images:
            files = tuple(file for file in unit.files if clean(file.name) not in self._rows)
            return replace(unit, name=files[0].name, files=files) if files else None
        ranges = {clean(file.name): self._ranges(file, unit) for file in unit.files}
        count = sum(int((r.stop - r.first).sum()) for r in ranges.values())
        end = self._end(unit)
        if end is not None and count >= end.rows:
            return None
        images = self.ledger.folder.images
        other_versions = tuple(images.child(part) for part in self._parts_of_other_versions(unit))
        if not count:
            return replace(unit, committed=Committed(other_versions=other_versions))
        return _skip_committed(unit, ranges, Committed(ranges, 0, other_versions))

    def row_count(self, unit: Unit) -> int:
        """Number of rows of a unit that has nothing left to read."""
        if unit.single_images:
            return len(unit.files)
        end = self._end(unit)
        return 0 if end is None else end.total

    def _end(self, unit: Unit) -> _End | None:
        """End of a unit's current version; None if no attempt has read that version to the end."""
        ends = [
            end
            for end in self._ends.get(unit.key, ())
            if same_version(unit.version, unit.size, end.version, end.bytes)
        ]
        return max(ends, key=lambda end: end.rows, default=None)

    def has_changed(self, unit: Unit) -> bool:
        """Whether all committed rows of a file come from another version of it."""
        for file in unit.files:
            rows = self._rows.get(clean(file.name))
            if rows is not None and not self._is_current(file, rows).any():
                return unit.single_images or self._end(unit) is None
        return False

    def _ranges(self, file: SourceFile, unit: Unit) -> Ranges:
        """Numbers of the committed rows of a file's current version.

        For a unit that is part of a file, only the numbers within that part.
        """
        key = (file.name, file.version, file.size)
        if self._last[0] != key:
            self._last = (key, self._all_ranges(file))
        ranges, part = self._last[1], unit.part
        if part is None:
            return ranges
        end = part.first + part.rows
        inside = (ranges.first < end) & (ranges.stop > max(part.first, 0)) & (ranges.stop > 0)
        first = np.maximum(ranges.first[inside], part.first)
        stop = np.minimum(ranges.stop[inside], end)
        below = Ranges(ranges.first[ranges.first < 0], np.minimum(ranges.stop, 0)[ranges.first < 0])
        in_part = [n for n in below.numbers().tolist() if part.first <= stood_for(n) < end]
        stand_ins = np.array(in_part, np.int64)
        return Ranges(np.append(stand_ins, first), np.append(stand_ins + 1, stop))

    def _all_ranges(self, file: SourceFile) -> Ranges:
        rows = self._rows.get(clean(file.name))
        if rows is None:
            return Ranges(_NO_ROWS, _NO_ROWS)
        current = self._is_current(file, rows)
        first, stop = self._first[rows][current], self._stop[rows][current]
        return _union(first, stop)

    def _is_current(self, file: SourceFile, rows: slice) -> NDArray[np.bool_]:
        """Mask of the given row ranges that come from the file's current version."""
        key = (file.name, file.version, file.size)
        if self._last_current[0] == key:
            return self._last_current[1]
        pairs = list(zip(self._version[rows].tolist(), self._bytes[rows].tolist(), strict=True))
        same = {
            (code, size): same_version(file.version, file.size, self._versions[code], size)
            for code, size in set(pairs)
        }
        self._last_current = (key, np.array([same[pair] for pair in pairs], bool))
        return self._last_current[1]

    def _parts_of_other_versions(self, unit: Unit) -> Iterator[str]:
        """Names of the parts with rows from other versions of a unit's files."""
        codes: set[int] = set()
        for file in unit.files:
            rows = self._rows.get(clean(file.name))
            if rows is not None:
                codes |= set(self._part[rows][~self._is_current(file, rows)].tolist())
        yield from sorted(self._parts[code] for code in codes)


def _union(first: NDArray[np.int64], stop: NDArray[np.int64]) -> Ranges:
    """Merge ranges that are sorted by their first numbers into disjoint ones."""
    if not len(first):
        return Ranges(_NO_ROWS, _NO_ROWS)
    reached = np.maximum.accumulate(stop)
    starts = np.flatnonzero(np.concatenate([[True], first[1:] > reached[:-1]]))
    return Ranges(first[starts], reached[np.append(starts[1:], len(first)) - 1])


def _skip_committed(unit: Unit, ranges: dict[str, Ranges], committed: Committed) -> Unit:
    """The unit without its committed rows.

    For a table they are also removed from `Part.chosen`, so they are never read.
    """
    part = unit.part
    if part is None:
        return replace(unit, committed=committed)
    wanted = range(part.first, part.first + part.rows) if part.chosen is None else part.chosen
    (committed_numbers,) = ranges.values()
    missing = frozenset(row for row in wanted if row not in committed_numbers)
    skipped = len(wanted) - len(missing)
    chosen = part.chosen if not skipped else missing
    return replace(
        unit, part=replace(part, chosen=chosen), committed=replace(committed, skipped=skipped)
    )
