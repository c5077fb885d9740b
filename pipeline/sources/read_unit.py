"""Read units: the smallest pieces of a source that are read, and their committed rows."""

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
    """The number of the first row that a stand-in stands for; inverse of `stand_in`."""
    return (-1 - number) // 2


@dataclass(frozen=True)
class TextForm:
    """How a text table is written, which its first lines tell.

    Attributes:
        names: names of its columns (CSV).
        delimiter: character between its columns (CSV).
        encoding: Python's name of its encoding.
    """

    names: tuple[str, ...] = ()
    delimiter: str = ","
    encoding: str = "utf-8"


@dataclass(frozen=True)
class Further:
    """What further rows of a table say about the image of a row.

    Attributes:
        labels: their distinct labels, in order.
        captions: their distinct captions, in order.
    """

    labels: tuple[str, ...] = ()
    captions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Facts:
    """What planning learns about a source or a table.

    Attributes:
        notes: what the user should know.
        columns: names of the columns that are read, by what they hold.
        labels: every label that an image may have; None where only reading the images tells.
    """

    notes: tuple[str, ...] = ()
    columns: Mapping[str, str] = field(default_factory=dict)
    labels: frozenset[str] | None = None


@dataclass(frozen=True)
class Scan:
    """A table as planning found it.

    Attributes:
        parts: its parts; none for a broken one.
        facts: what else is known about it.
    """

    parts: list["Part"]
    facts: Facts = field(default_factory=Facts)


@dataclass(frozen=True)
class Part:
    """Neighbouring rows of one file.

    Attributes:
        first: number of its first row within the file, from 0.
        rows: number of rows.
        bytes: approximate number of bytes that are read for it.
        groups: its row groups (Parquet).
        span: offsets of its first byte and of the byte after its last (text).
        form: how its text is written.
        image: column of the images, in a list.
        chosen: numbers within the file of the rows that are wanted; None: all.
        repeats: for each row with the key, but not the image, of an earlier row: the number that
            its id ends in.
        further: for each row whose image later rows repeat, what these say about it.
    """

    first: int
    rows: int
    bytes: int
    groups: tuple[int, ...] = ()
    span: tuple[int, int] = (0, 0)
    form: TextForm = field(default_factory=TextForm)
    image: str = ""
    chosen: frozenset[int] | range | None = None
    repeats: Mapping[int, int] = field(default_factory=dict)
    further: Mapping[int, Further] = field(default_factory=dict)

    def wants(self, row: int) -> bool:
        """Whether a row, by its number within the file, is to be read."""
        return self.chosen is None or row in self.chosen


@dataclass(frozen=True, eq=False)
class Ranges:
    """Numbers of committed rows of one shard, as ranges.

    Attributes:
        first: (n,) int64, first number of each range, ascending.
        stop: (n,) int64, number after the last one of each range.
    """

    first: NDArray[np.int64]
    stop: NDArray[np.int64]

    def __contains__(self, number: int) -> bool:
        index = int(np.searchsorted(self.first, number, side="right")) - 1
        return index >= 0 and number < self.stop[index]

    def numbers(self) -> NDArray[np.int64]:
        """All numbers, ascending."""
        ranges = [np.arange(a, b) for a, b in zip(self.first, self.stop, strict=True)]
        return np.concatenate([np.zeros(0, np.int64), *ranges])


@dataclass(frozen=True)
class Committed:
    """Rows of a unit that earlier attempts committed; its read task leaves them out.

    Attributes:
        ranges: numbers of the committed rows, by shard.
        skipped: number of committed rows that `Part.chosen` leaves out already.
        other_versions: parts with rows of earlier versions of a shard that has changed since. Their
            numbers no longer hold, so rows are left out by image id.
    """

    ranges: Mapping[str, Ranges] = field(default_factory=dict)
    skipped: int = 0
    other_versions: tuple[Location, ...] = ()


@dataclass(frozen=True)
class Unit:
    """Tars, a chunk of a folder's files, or a part of a table: the smallest piece that is read.

    Attributes:
        name: name of the unit, unique in the source.
        files: the files that are read.
        part: the part of the only file that is read; None: the whole file.
        quotas: number of samples to draw from each file; empty: all.
        limit: largest number of rows; None: no limit.
        single_images: whether every file is one image and gives one row.
        committed: the rows to leave out.
    """

    name: str
    files: tuple[SourceFile, ...]
    part: Part | None = None
    quotas: tuple[int, ...] = ()
    limit: int | None = None
    single_images: bool = False
    committed: Committed = field(default_factory=Committed)

    @property
    def rows(self) -> int | None:
        """Number of its rows; None if only reading tells."""
        if self.part is None:
            return len(self.files) if self.single_images else None
        return self.part.rows if self.part.chosen is None else len(self.part.chosen)

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
        """The values of its rows in the column ``shard``."""
        return tuple(clean(file.name) for file in self.files)

    @property
    def key(self) -> str:
        """Name of the unit that is the same on every attempt; depends on all of its files."""
        first = clean(self.name)
        if len(self.files) == 1:
            return first
        names = "\n".join(self.shards)
        return f"{first} and {len(self.files) - 1} more {sha256(names.encode()).hexdigest()[:16]}"

    @property
    def version(self) -> str:
        """Text that changes when a file of the unit changes."""
        versions = [file.version for file in self.files]
        if len(versions) == 1:
            return versions[0]
        kind = versions[0].partition(":")[0]
        return f"{kind}:{sha256(json.dumps(versions).encode()).hexdigest()}"


def same_version(version: str, size: int, other_version: str, other_size: int) -> bool:
    """Whether two versions and sizes of a file belong to the same contents.

    Versions of two kinds (a data set that moved from a disk to a bucket) are not compared.
    """
    same_kind = version.partition(":")[0] == other_version.partition(":")[0]
    return size == other_size and (version == other_version or not same_kind)
