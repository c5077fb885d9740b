"""Find the repeated keys of a file, with 16 bytes of memory for each key."""

import hashlib
import re
from array import array
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from pipeline.sources.label_values import LabelValue, labels_of
from pipeline.sources.read_unit import Further, Part

_NUMBERED = re.compile(r"(.*)#(\d+)", re.DOTALL)


def rows_of_part(rows: Sequence[int], part: Part) -> Sequence[int]:
    """The row numbers, sorted, that lie in a part of the file."""
    return rows[bisect_left(rows, part.first) : bisect_left(rows, part.first + part.rows)]


@dataclass(frozen=True)
class Repeats:
    """The rows of a file whose key an earlier row has.

    Attributes:
        numbered: rows that name another image by the same key: the number that their id ends in.
        same: rows that name the same image: the first row that does.
    """

    numbered: Mapping[int, int] = field(default_factory=dict)
    same: Mapping[int, int] = field(default_factory=dict)


class Keys:
    """Collects the keys of a file, row by row."""

    def __init__(self) -> None:
        self._hashes = array("Q")
        self._images = array("Q")
        self._taken: dict[int, set[int]] = defaultdict(set)

    def add(self, key: str, image: str) -> None:
        """Add the next row's key, and the path or URI of its image, or empty text without one."""
        self._hashes.append(_hash(key))
        self._images.append(_hash(image))
        numbered = _NUMBERED.fullmatch(key)
        if numbered:  # a key of the data that looks like the id of a repeated one
            self._taken[_hash(numbered[1])].add(int(numbered[2]))

    def repeats(self) -> Repeats:
        """The rows with an earlier key; other images of the key are numbered 2, 3, ..."""
        hashes = np.array(self._hashes, dtype=np.uint64)
        order = np.argsort(hashes, kind="stable")
        is_repeated = np.concatenate([[False], hashes[order][1:] == hashes[order][:-1]])
        first_of = order[np.maximum.accumulate(np.where(is_repeated, 0, np.arange(len(order))))]
        pairs = zip(order[is_repeated].tolist(), first_of[is_repeated].tolist(), strict=True)
        numbered: dict[int, int] = {}
        same: dict[int, int] = {}
        last: dict[int, int] = defaultdict(lambda: 1)
        images: dict[int, dict[int, int]] = {}  # first row of every image of a key
        for row, first in sorted(pairs):
            key = int(hashes[row])
            firsts = images.setdefault(key, {self._images[first]: first})
            earlier = firsts.setdefault(self._images[row], row)
            if earlier != row:
                same[row] = earlier
                continue
            last[key] += 1
            while last[key] in self._taken[key]:
                last[key] += 1
            numbered[row] = last[key]
        return Repeats(numbered, same)


class SameImages:
    """Collects what the rows that repeat an image say about it.

    Args:
        repeats: the repeated keys of a file.
    """

    def __init__(self, repeats: Repeats) -> None:
        self._repeats = repeats
        self._further: dict[int, Further] = {}

    def add(self, row: int, label: LabelValue, captions: tuple[str, ...]) -> bool:
        """Add a row with its label and captions; returns whether it repeats an image."""
        first = self._repeats.same.get(row)
        if first is None:
            return False
        earlier = self._further.get(first, Further())
        self._further[first] = Further(
            _distinct(*earlier.labels, *labels_of(label)), _distinct(*earlier.captions, *captions)
        )
        return True

    def placed(self, parts: Iterable[Part]) -> list[Part]:
        """The parts of the file without the rows that repeat an image; none is left empty."""
        return [part for part in map(self._place, parts) if part.chosen is None or part.chosen]

    def _place(self, part: Part) -> Part:
        rows = range(part.first, part.first + part.rows)
        same, numbered = self._repeats.same, self._repeats.numbered
        kept = frozenset(row for row in rows if row not in same)
        return replace(
            part,
            chosen=None if len(kept) == part.rows else kept,
            repeats={row: numbered[row] for row in rows if row in numbered},
            further={row: self._further[row] for row in rows if row in self._further},
        )


def _distinct(*texts: str | None) -> tuple[str, ...]:
    return tuple(dict.fromkeys(text for text in texts if text is not None))


def told(repeats: Repeats, rows: int, where: str) -> tuple[str, ...]:
    """A note on rows that repeat an image; none without such rows."""
    if not repeats.same:
        return ()
    return (
        f"{where}: {len(repeats.same):,} of {rows:,} rows repeat an image; each image is explained "
        "once, with all its captions and labels",
    )


def _hash(key: str) -> int:
    data = key.encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")
