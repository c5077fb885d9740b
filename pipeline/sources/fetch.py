"""Fetch an image of a run again from the position in its row, if possible with one ranged read."""

import glob
import hashlib
import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import IO, Any, cast

from PIL import Image

from legrad.image_files import open_image
from pipeline.config import Root, SourceConfig
from pipeline.errors import UsageError
from pipeline.sources.listing import expand_braces
from pipeline.sources.lists import fetch_from_list
from pipeline.sources.parquet import fetch_from_parquet
from pipeline.sources.parquet_file import is_broken
from pipeline.sources.retry import CompleteStream
from pipeline.sources.webdataset import read_shard
from pipeline.storage.location import (
    Location,
    Options,
    explain_failure,
    is_storage_error,
    open_location,
    redact,
)
from pipeline.storage.retries import call_with_retries

Moved = str | Sequence[str] | Mapping[str, str | Sequence[str]] | None
"""Where the source is now: paths or URIs, or a mapping of them by alias; None if unchanged."""


@dataclass(frozen=True)
class Origin:
    """Where a run's images came from.

    Attributes:
        roots: places of the source.
        options: storage options.
        format: format of the source.
        image_field: member or column that holds the image, if the settings name it.
        image_root: what paths in tables are relative to, if the settings name it.
        max_pixels: largest number of pixels of an image that the run accepts.
    """

    roots: Sequence[Root]
    options: Options
    format: str = "webdataset"
    image_field: str | None = None
    image_root: str | None = None
    max_pixels: int = SourceConfig.model_fields["max_pixels"].default

    @classmethod
    def of(cls, source: Mapping[str, Any], moved: "Moved", options: Options) -> "Origin":
        """The origin that a run's manifest names.

        Args:
            source: the manifest's group ``source``.
            moved: where the images are now, if they moved.
            options: storage options.
        """
        uri = source["uri"] if moved is None else moved
        config = SourceConfig.model_validate({"format": source["format"], "uri": uri})
        names = ("image_field", "image_root", "max_pixels")
        fields = {name: source[name] for name in names if source.get(name) is not None}
        return cls(config.roots, options, source["format"], **fields)

    def open(self, row: Mapping[str, Any]) -> Image.Image:
        """Fetch an image and open it.

        Args:
            row: as for `fetch`.

        Raises:
            UsageError: as for `fetch`.
            UnidentifiedImageError, DecompressionBombError: as for `legrad.image_files.open_image`.
        """
        return open_image(self.fetch(row), self.max_pixels)

    def fetch(self, row: Mapping[str, Any]) -> bytes:
        """The encoded bytes of one image.

        A tar or folder is read by byte range. Of a Parquet file the image column of one row group
        is read, of a compressed tar everything up to the image, and of a list the part with the
        image's URI.

        Args:
            row: ``image_id`` and the columns `pipeline.schema.FETCH_COLUMNS`.

        Raises:
            UsageError: the shard is missing, cannot be read, or no longer holds the image.
        """
        shard = self._find(row["shard"])
        try:
            data = self._read(shard, row)
        except Exception as error:
            if not is_storage_error(error) and not is_broken(error):
                raise
            raise explain_failure(shard.path, error) from error
        if data is None:
            raise UsageError(f"{row['image_id']}: no longer in {redact(shard.path)}")
        if hashlib.sha256(data).hexdigest() != row["sha256"]:
            where = redact(shard.path)
            raise UsageError(f"{row['image_id']}: the bytes in {where} have changed since the run")
        return data

    def _read(self, shard: Location, row: Mapping[str, Any]) -> bytes | None:
        if self.format == "parquet":
            group, number = int(row["row_group"]), int(row["row"])
            return fetch_from_parquet(shard, group, number, self._source(shard))
        if self.format == "list":
            return fetch_from_list(shard, int(row["row"]), self._source(shard))
        if row["source_offset"] is None:  # in a compressed tar nothing can be read by range
            return _scan(shard, row, self.image_field)
        start = int(row["source_offset"])
        end = start + int(row["source_length"])
        return shard.read_range(start, end)

    def _source(self, shard: Location) -> SourceConfig:
        """The settings that say where in a table the images are."""
        return SourceConfig.model_validate(
            {
                "format": self.format,
                "uri": shard.path,
                "image_field": self.image_field,
                "image_root": self.image_root,
                "options": self.options,
            }
        )

    @cached_property
    def _places(self) -> list[tuple[str, str]]:
        """Alias and URI of each place, without braces."""
        return [(root.alias, uri) for root in self.roots for uri in expand_braces(root.uri)]

    def _find(self, shard: str) -> Location:
        name = posixpath.basename(shard)
        # A request tells whether a file is there, so the files of the shard's name come first.
        for alias, uri in sorted(self._places, key=lambda at: posixpath.basename(at[1]) != name):
            below = shard.removeprefix(f"{alias}/") if alias else shard
            if alias and below == shard:
                continue
            file = _below(open_location(uri, self.options), below)
            if file is not None:
                return file
        raise UsageError(
            f"{shard}: no longer at {', '.join(redact(root.uri) for root in self.roots)}. If the "
            "data set moved, say where it is now: open_results(..., source=URI)"
        )


def _below(root: Location, name: str) -> Location | None:
    """The file with a name relative to a place of the source; None if there is none."""
    if root.is_web:
        return root if root.path.split("?", 1)[0].endswith(f"/{name}") else None
    candidates = (Location(root.fs, f"{folder}/{name}") for folder in _folders(root.path, name))
    return next((file for file in candidates if _is_file(file)), None)


def _is_file(location: Location) -> bool:
    try:
        return str(call_with_retries(location.fs.info, location.path)["type"]) == "file"
    except (FileNotFoundError, NotADirectoryError):
        return False
    except Exception as error:
        if not is_storage_error(error):
            raise
        raise explain_failure(location.path, error) from error


def _folders(path: str, shard: str) -> list[str]:
    """The folders that a shard's name may be relative to, for one place of the source."""
    if glob.has_magic(path):
        return [re.split(r"[*?\[]", path)[0].rpartition("/")[0], path]
    is_file = posixpath.basename(path) == posixpath.basename(shard)
    return [posixpath.dirname(path), path] if is_file else [path]


def _scan(shard: Location, row: Mapping[str, Any], image_field: str | None) -> bytes | None:
    """The bytes of an image in a tar that cannot be read by byte range."""
    source = SourceConfig(format="webdataset", uri=(shard.path,), image_field=image_field)
    with shard.fs.open(shard.path, "rb") as stream:
        whole = cast(IO[bytes], CompleteStream(stream, 0))
        for sample in read_shard(whole, row["shard"], "", source):
            data: bytes | None = sample.get("bytes")
            if data is not None and hashlib.sha256(data).hexdigest() == row["sha256"]:
                return data
    return None
