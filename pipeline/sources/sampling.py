"""Which images a sample takes: the same ones whenever it is drawn, whatever was read before."""

import hashlib
import heapq
import threading
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import Generic, TypeVar

from pipeline.sources.rows import Row

Place = TypeVar("Place", bound=Hashable)


def rank(seed: int, image_id: str) -> int:
    """A number by chance, decided by seed and image; a sample takes the lowest."""
    text = f"{seed}/{image_id}".encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")


class Sample(Generic[Place]):
    """So many images of every label, drawn while all are offered; holds no more than it keeps.

    The order of the offers, and who makes them, changes nothing.

    Args:
        count: images of a label; images without one are a label of their own.
        seed: decides which.
    """

    def __init__(self, count: int, seed: int) -> None:
        self.count = count
        self.seed = seed
        self._kept: dict[str | None, list[tuple[int, Place]]] = defaultdict(list)
        self._lock = threading.Lock()

    def offer(self, label: str | None, image_id: str, place: Place) -> None:
        """An image, and where it is found again."""
        entry = (-rank(self.seed, image_id), place)
        with self._lock:
            heap = self._kept[label]
            if len(heap) < self.count:
                heapq.heappush(heap, entry)
            else:
                heapq.heappushpop(heap, entry)

    @property
    def places(self) -> set[Place]:
        """Of the images that were drawn."""
        return {place for heap in self._kept.values() for _, place in heap}


def quotas(names: Sequence[str], count: int, seed: int) -> list[int]:
    """How many samples to draw from each file: as many from all, the rest from some by chance."""
    each, rest = divmod(count, len(names))
    lucky = sorted(range(len(names)), key=lambda i: rank(seed, names[i]))[:rest]
    return [each + (i in lucky) for i in range(len(names))]


def draw(
    read: Callable[[], Iterable[Row]], count: int, seed: int, keep: Callable[[Row], bool]
) -> Iterator[Row]:
    """So many rows of a file whose rows are not known before; it is read twice, to hold none.

    Args:
        read: begins to read it.
        count: rows to draw.
        seed: decides which.
        keep: rows that are given in any case, and not counted.
    """
    ids = (row["image_id"] for row in read() if not keep(row))
    drawn = set(heapq.nsmallest(count, ids, key=lambda image_id: rank(seed, image_id)))
    yield from (row for row in read() if keep(row) or row["image_id"] in drawn)
