"""Find the repeated keys of a file, with eight bytes of memory for each key."""

import hashlib
import re
from array import array
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from pipeline.sources.read_unit import Part

_NUMBERED = re.compile(r"(.*)#(\d+)", re.DOTALL)


def rows_of_part(rows: Sequence[int], part: Part) -> Sequence[int]:
    """The row numbers, sorted, that lie in a part of the file."""
    return rows[bisect_left(rows, part.first) : bisect_left(rows, part.first + part.rows)]


def with_repeats(parts: Iterable[Part], repeats: Mapping[int, int]) -> list[Part]:
    """The parts of a file, each with the repeated keys among its rows (see `Keys.repeats`)."""
    rows = sorted(repeats)
    return [
        replace(part, repeats={row: repeats[row] for row in rows_of_part(rows, part)})
        for part in parts
    ]


class Keys:
    """Collects the keys of a file, row by row."""

    def __init__(self) -> None:
        self._hashes = array("Q")
        self._taken: dict[int, set[int]] = defaultdict(set)

    def add(self, key: str) -> None:
        """Add the next row's key."""
        self._hashes.append(_hash(key))
        numbered = _NUMBERED.fullmatch(key)
        if numbered:  # a key of the data that looks like the id of a repeated one
            self._taken[_hash(numbered[1])].add(int(numbered[2]))

    def repeats(self) -> dict[int, int]:
        """For each row whose key an earlier row has: the number that its id ends in (2, 3, ...)."""
        hashes = np.array(self._hashes, dtype=np.uint64)
        order = np.argsort(hashes, kind="stable")
        repeated = np.flatnonzero(hashes[order][1:] == hashes[order][:-1]) + 1
        numbers: dict[int, int] = {}
        last: dict[int, int] = defaultdict(lambda: 1)
        for row in sorted(order[repeated].tolist()):
            key = int(hashes[row])
            last[key] += 1
            while last[key] in self._taken[key]:
                last[key] += 1
            numbers[row] = last[key]
        return numbers


def _hash(key: str) -> int:
    data = key.encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")
