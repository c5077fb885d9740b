"""Read the images that a table names by path or URI."""

import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

from pipeline.config import SourceConfig, is_uri
from pipeline.errors import UsageError
from pipeline.schema import Status
from pipeline.sources.column_names import has_image_extension
from pipeline.sources.input_rows import Row
from pipeline.storage.location import Location, Options, open_location

_ENDINGS = (*(".jpg", ".png", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".gif"),)
_ENDING_OF_TABLE: dict[str, str] = {}
"""The ending with which an image of a table was last found, by the table's path."""


@dataclass(frozen=True)
class References:
    """The images that a table names.

    Attributes:
        table: the table.
        folder: the location that relative paths are relative to.
        options: storage options.
    """

    table: Location
    folder: Location
    options: Options

    @classmethod
    def of(cls, table: Location, source: SourceConfig) -> Self:
        """The references of a table of a source; relative ones are relative to its folder."""
        if source.image_root is not None:
            return cls(table, open_location(source.image_root, source.options), source.options)
        path = table.path.split("?", 1)[0] if table.is_web else table.path
        return cls(table, Location(table.fs, posixpath.dirname(path)), source.options)

    def resolve(self, path: str) -> Location:
        """The location of an image.

        Args:
            path: URI, absolute local path, or relative path.

        Raises:
            UsageError: the scheme is unknown, or the path is local and the table is not.
        """
        if is_uri(path):
            return open_location(path, self.options)
        path = path.replace("\\", "/")  # as lists made on Windows write it
        if posixpath.isabs(path):
            if not self.table.is_local:
                raise UsageError(f"{path}: a local path in a table that is not on this machine")
            return Location(self.table.fs, path)
        below = f"{self.folder.path}/{path}"
        return Location(self.folder.fs, below if self.folder.is_web else posixpath.normpath(below))

    def read(self, path: str) -> bytes:
        """Read the bytes of an image; of a path (no URI) without an extension also with one.

        Raises:
            UsageError: it cannot be read.
        """
        if is_uri(path) or has_image_extension(path):
            return self.resolve(path).read()
        missing: UsageError | None = None
        for ending in self._endings():
            try:
                data = self.resolve(f"{path}{ending}").read()
            except UsageError as error:
                if not isinstance(error.__cause__, FileNotFoundError | IsADirectoryError):
                    raise
                missing = missing or error
            else:
                _ENDING_OF_TABLE[self.table.path] = ending
                return data
        raise UsageError(f"{missing} Nor is there one with {', '.join(_ENDINGS)}.") from missing

    def values(self, path: str) -> Row:
        """The values of a row for an image: its bytes, or a status and an error."""
        try:
            return {"bytes": self.read(path)}
        except UsageError as error:
            return {"status": Status.READ_ERROR, "error": str(error)[:500]}

    def _endings(self) -> Iterator[str]:
        """Endings to try: first the one that the table's last image had."""
        last = _ENDING_OF_TABLE.get(self.table.path, "")
        yield last
        yield from (ending for ending in ("", *_ENDINGS) if ending != last)
