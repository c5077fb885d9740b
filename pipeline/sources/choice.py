"""Choose the images of a run: those in a table of ids, or a random sample of each label.

The same settings choose the same images on every attempt, whatever was read before.
"""

import hashlib
import heapq
import threading
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Generic, TypeVar

from pipeline.config import SourceConfig
from pipeline.errors import UsageError
from pipeline.schema import UNREADABLE
from pipeline.sources.input_rows import Row, clean
from pipeline.sources.listing import SourceFile
from pipeline.storage.location import open_location, redact
from pipeline.storage.tables import parse_columns

Position = TypeVar("Position", bound=Hashable)
_TABLES: dict[str, "WantedIds"] = {}


@dataclass(frozen=True)
class WantedIds:
    """The sorted ids of the images that a run is restricted to."""

    ids: tuple[str, ...]

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of the ids, whatever their order in the table."""
        return hashlib.sha256("\n".join(self.ids).encode()).hexdigest()

    def files(self, files: Sequence[SourceFile], prefix: str) -> list[SourceFile]:
        """The files that hold a wanted image."""
        return [file for file in files if self._has_file(clean(prefix + file.name))]

    def rows(self, rows: Iterable[Row]) -> Iterator[Row]:
        """The rows of wanted images, and the rows that stand for what could not be read."""
        return (row for row in rows if row["key"] == UNREADABLE or self._has(row["image_id"]))

    def _has(self, image_id: str) -> bool:
        index = bisect_left(self.ids, image_id)
        return index < len(self.ids) and self.ids[index] == image_id

    def _has_file(self, name: str) -> bool:
        """Whether an id is the name of the file, or begins with it as with a folder."""
        index = bisect_left(self.ids, f"{name}/")
        has_inside = index < len(self.ids) and self.ids[index].startswith(f"{name}/")
        return has_inside or self._has(name)


def wanted_ids(source: SourceConfig) -> WantedIds | None:
    """The ids in the table ``source.only``, which a process reads once; None without a table.

    Raises:
        UsageError: the table is missing, has no column image_id, or is empty.
    """
    if source.only is None:
        return None
    key = repr((source.only, source.options))
    if key not in _TABLES:
        _TABLES[key] = _read_ids(source.only, source)
    return _TABLES[key]


def forget_wanted_ids() -> None:
    """Forget the tables that were read, because they may have changed."""
    _TABLES.clear()


def _read_ids(uri: str, source: SourceConfig) -> WantedIds:
    data = open_location(uri, source.options).read()
    table = parse_columns(data, f"source.only: {uri}", ["image_id"])
    ids = sorted({str(value) for value in table["image_id"].to_pylist() if value is not None})
    if not ids:
        raise UsageError(f"source.only: {redact(uri)} names no image")
    return WantedIds(tuple(ids))


def rank(seed: int, image_id: str) -> int:
    """A random number determined by seed and image id; a sample takes the lowest-ranked images."""
    text = f"{seed}/{image_id}".encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")


class LabelSample(Generic[Position]):
    """A sample of at most ``count`` images of every label, drawn from a stream of images.

    It keeps no more than the sample in memory. The order of the stream, and which threads offer the
    images, changes nothing.

    Args:
        count: images of each label; images without a label count as one more label.
        seed: determines the sample.
    """

    def __init__(self, count: int, seed: int) -> None:
        self.count = count
        self.seed = seed
        self._kept: dict[str | None, list[tuple[int, Position]]] = defaultdict(list)
        self._lock = threading.Lock()

    def offer(self, label: str | None, image_id: str, position: Position) -> None:
        """Offer an image; ``position`` says where it can be read."""
        entry = (-rank(self.seed, image_id), position)
        with self._lock:
            heap = self._kept[label]
            if len(heap) < self.count:
                heapq.heappush(heap, entry)
            else:
                heapq.heappushpop(heap, entry)

    @property
    def positions(self) -> set[Position]:
        """The positions of the images in the sample."""
        return {position for heap in self._kept.values() for _, position in heap}


def quotas(names: Sequence[str], count: int, seed: int) -> list[int]:
    """How many samples to draw from each file: the same number, plus one from some random files."""
    each, rest = divmod(count, len(names))
    one_more = sorted(range(len(names)), key=lambda i: rank(seed, names[i]))[:rest]
    return [each + (i in one_more) for i in range(len(names))]


def draw(
    read: Callable[[], Iterable[Row]], count: int, seed: int, keep: Callable[[Row], bool]
) -> Iterator[Row]:
    """Draw rows of a file whose rows are unknown before it is read.

    The file is read twice, so that no row has to be held.

    Args:
        read: starts reading the file.
        count: rows to draw.
        seed: determines which.
        keep: whether a row is always yielded and not counted.
    """
    ids = (row["image_id"] for row in read() if not keep(row))
    drawn = set(heapq.nsmallest(count, ids, key=lambda image_id: rank(seed, image_id)))
    yield from (row for row in read() if keep(row) or row["image_id"] in drawn)
