"""What one read task reads."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from pipeline.sources.listing import SourceFile


@dataclass(frozen=True)
class Part:
    """Neighbouring rows of one file.

    Attributes:
        first: number of its first row within the file, from 0.
        rows: how many.
        bytes: that are read for it, about.
        groups: its row groups, in Parquet.
        span: its first byte and the one after its last, in text.
        names: of the columns, in CSV.
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

    def with_repeats(self, repeats: Mapping[int, int]) -> "Part":
        """The same part, knowing those of a file's repeated keys that are its own."""
        own = range(self.first, self.first + self.rows)
        return replace(self, repeats={row: n for row, n in repeats.items() if row in own})


@dataclass(frozen=True)
class Unit:
    """What one read task reads: tars, a chunk of a folder's files, or a part of a table.

    Attributes:
        name: unique in the source.
        files: that it touches.
        part: of its only file; None: all of it.
        quotas: how many samples to draw from each file; empty: all.
        limit: rows after which it ends; None: at its end.
        given: rows of its part that are not among the chosen ones, as they are committed.
    """

    name: str
    files: tuple[SourceFile, ...]
    part: Part | None = None
    quotas: tuple[int, ...] = ()
    limit: int | None = None
    given: int = 0

    @property
    def size(self) -> int:
        """Bytes that are read for it, about."""
        return self.part.bytes if self.part else sum(file.size for file in self.files)
