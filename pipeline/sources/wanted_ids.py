"""Some images of a source, named one by one in a table."""

import hashlib
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from pipeline.config import SourceConfig
from pipeline.errors import UsageError
from pipeline.schema import UNREADABLE
from pipeline.sources.listing import SourceFile
from pipeline.sources.rows import Row, clean
from pipeline.storage.location import open_location, redact
from pipeline.storage.tables import parse_columns

_KNOWN: dict[str, "Wanted"] = {}


@dataclass(frozen=True)
class Wanted:
    """The ids of the images that are wanted, sorted."""

    ids: tuple[str, ...]

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of the ids, in whatever order the table has them."""
        return hashlib.sha256("\n".join(self.ids).encode()).hexdigest()

    def files(self, files: Sequence[SourceFile], prefix: str) -> list[SourceFile]:
        """Those of some files that hold a wanted image."""
        return [file for file in files if self._below(clean(prefix + file.name))]

    def rows(self, rows: Iterable[Row]) -> Iterator[Row]:
        """The wanted ones, and what stands for a shard that could not be read."""
        return (row for row in rows if row["key"] == UNREADABLE or self._has(row["image_id"]))

    def _has(self, image_id: str) -> bool:
        place = bisect_left(self.ids, image_id)
        return place < len(self.ids) and self.ids[place] == image_id

    def _below(self, name: str) -> bool:
        """Whether an id is a file's own name, or begins with it as a folder."""
        place = bisect_left(self.ids, f"{name}/")
        inside = place < len(self.ids) and self.ids[place].startswith(f"{name}/")
        return inside or self._has(name)


def wanted(source: SourceConfig) -> Wanted | None:
    """What ``source.only`` names, read once a process; None for everything.

    Raises:
        UsageError: the table is not there, has no column image_id, or is empty.
    """
    if source.only is None:
        return None
    key = repr((source.only, source.options))
    if key not in _KNOWN:
        _KNOWN[key] = _read(source)
    return _KNOWN[key]


def forget_wanted() -> None:
    """Read the table anew when it is next asked for."""
    _KNOWN.clear()


def _read(source: SourceConfig) -> Wanted:
    uri = source.only or ""
    data = open_location(uri, source.options).read()
    table = parse_columns(data, f"source.only: {uri}", ["image_id"])
    ids = sorted({str(value) for value in table["image_id"].to_pylist() if value is not None})
    if not ids:
        raise UsageError(f"source.only: {redact(uri)} names no image")
    return Wanted(tuple(ids))
