"""Keys that stand more than once in a file, found in eight bytes a key."""

import hashlib
import re
from array import array
from collections import defaultdict

import numpy as np

_NUMBERED = re.compile(r"(.*)#(\d+)", re.DOTALL)


class Keys:
    """Collects the keys of a file in order."""

    def __init__(self) -> None:
        self._hashes = array("Q")
        self._taken: dict[int, set[int]] = defaultdict(set)

    def add(self, key: str) -> None:
        """The next row's key."""
        self._hashes.append(_hash(key))
        numbered = _NUMBERED.fullmatch(key)
        if numbered:  # a real key that looks like a repeated one
            self._taken[_hash(numbered[1])].add(int(numbered[2]))

    def repeats(self) -> dict[int, int]:
        """Row whose key stood before -> the number that its id ends in: 2, 3, ..."""
        hashes = np.array(self._hashes, dtype=np.uint64)
        order = np.argsort(hashes, kind="stable")
        again = np.flatnonzero(hashes[order][1:] == hashes[order][:-1]) + 1
        found: dict[int, int] = {}
        last: dict[int, int] = defaultdict(lambda: 1)
        for row in sorted(order[again].tolist()):
            key = int(hashes[row])
            last[key] += 1
            while last[key] in self._taken[key]:
                last[key] += 1
            found[row] = last[key]
        return found


def _hash(key: str) -> int:
    data = key.encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")
