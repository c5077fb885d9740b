"""What one read unit reads, and which of its rows are committed already."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

from pipeline.sources.input_rows import clean
from pipeline.sources.listing import SourceFile
from pipeline.storage.location import Location


def stand_in(first: int, *, within: bool = False) -> int:
    """Number of the row that stands for rows which could not be read.

    It lies below 0, apart from the numbers of real rows, and is the same on every attempt.

    Args:
        first: number of the first row of the unit, or of the row group, that could not be read.
        within: whether it stands for a row group, which lies within a unit.
    """
    return -1 - 2 * first - within


def stood_for(number: int) -> int:
    """The first row that a stand-in's number was made of."""
    return (-1 - number) // 2


@dataclass(frozen=True)
class Part:
    """Neighbouring rows of one file.

    Attributes:
        first: number of its first row within the file, from 0.
        rows: number of rows.
        bytes: approximate number of bytes that are read for it.
        groups: its row groups, in Parquet.
        span: its first byte and the one after its last, in text.
        names: column names, in CSV.
        chosen: the rows (numbers within the file) that are wanted; None: all.
        repeats: number of a row whose key stood in the file before -> how many times by then.
    """

    first: int
    rows: int
    bytes: int
    groups: tuple[int, ...] = ()
    span: tuple[int, int] = (0, 0)
    names: tuple[str, ...] = ()
    chosen: frozenset[int] | range | None = None
    repeats: Mapping[int, int] = field(default_factory=dict)

    def wants(self, row: int) -> bool:
        """Whether a row, by its number within the file, is to be read."""
        return self.chosen is None or row in self.chosen


@dataclass(frozen=True, eq=False)
class Ranges:
    """Numbers of committed rows of one shard, as ranges.

    Attributes:
        first: (n,) int64 first numbers, ascending.
        stop: (n,) int64 numbers after the last ones.
    """

    first: NDArray[np.int64]
    stop: NDArray[np.int64]

    def __contains__(self, number: int) -> bool:
        at = int(np.searchsorted(self.first, number, side="right")) - 1
        return at >= 0 and number < self.stop[at]

    def numbers(self) -> NDArray[np.int64]:
        """All numbers, ascending."""
        ranges = [np.arange(a, b) for a, b in zip(self.first, self.stop, strict=True)]
        return np.concatenate([np.zeros(0, np.int64), *ranges])


@dataclass(frozen=True)
class Committed:
    """Rows of a unit that earlier attempts committed; its read task leaves them out.

    Attributes:
        ranges: numbers of the committed rows by shard.
        skipped: how many rows are left out by not choosing them (`Part.chosen`).
        other_versions: parts with rows of earlier versions of a shard that changed since. Numbers
            say nothing about these, so rows with the same image ids are left out.
    """

    ranges: Mapping[str, Ranges] = field(default_factory=dict)
    skipped: int = 0
    other_versions: tuple[Location, ...] = ()


@dataclass(frozen=True)
class Unit:
    """Tars, a chunk of a folder's files, or a part of a table: the smallest piece that is read.

    Attributes:
        name: unique in the source.
        files: the files it touches.
        part: part of its only file; None: all of it.
        quotas: how many samples to draw from each file; empty: all.
        limit: rows after which it ends; None: at its end.
        single_images: whether every file is one image and gives one row.
        committed: rows to leave out.
    """

    name: str
    files: tuple[SourceFile, ...]
    part: Part | None = None
    quotas: tuple[int, ...] = ()
    limit: int | None = None
    single_images: bool = False
    committed: Committed = field(default_factory=Committed)

    @property
    def size(self) -> int:
        """Approximate number of bytes that are read for it."""
        return self.part.bytes if self.part else sum(file.size for file in self.files)

    @property
    def first(self) -> int:
        """Number of its first row within its file."""
        return self.part.first if self.part else 0

    @property
    def shards(self) -> tuple[str, ...]:
        """What its rows have in the column ``shard``."""
        return tuple(clean(file.name) for file in self.files)

    @property
    def key(self) -> str:
        """Names the unit over attempts: one of several files by all of them."""
        first = clean(self.name)
        if len(self.files) == 1:
            return first
        names = "\n".join(self.shards)
        return f"{first} and {len(self.files) - 1} more {sha256(names.encode()).hexdigest()[:16]}"

    @property
    def version(self) -> str:
        """Changes when a file of the unit changes."""
        versions = [file.version for file in self.files]
        if len(versions) == 1:
            return versions[0]
        kind = versions[0].partition(":")[0]
        return f"{kind}:{sha256(json.dumps(versions).encode()).hexdigest()}"


def same_version(version: str, size: int, other_version: str, other_size: int) -> bool:
    """Whether two looks at a file saw the same contents.

    Versions of two kinds (a data set that moved from a disk to a bucket) are not compared.
    """
    same_kind = version.partition(":")[0] == other_version.partition(":")[0]
    return size == other_size and (version == other_version or not same_kind)
