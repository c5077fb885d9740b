"""Any image again, by the place its row names: one ranged read."""

import glob
import hashlib
import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any, cast

from pipeline.config import Root, SourceConfig
from pipeline.errors import UsageError
from pipeline.sources.listing import expand_braces
from pipeline.sources.lists import fetch_from_list
from pipeline.sources.parquet import fetch_from_parquet
from pipeline.sources.retry import Whole
from pipeline.sources.webdataset import read_shard
from pipeline.storage.location import (
    Location,
    Options,
    explain_failure,
    is_storage_error,
    open_location,
    redact,
)

Moved = str | Sequence[str] | Mapping[str, str | Sequence[str]] | None
"""A place, several, or one by alias; None: where they were."""


@dataclass(frozen=True)
class Origin:
    """Where a run's images came from.

    Attributes:
        roots: the places of the source.
        options: storage options.
        format: of the source.
        image_field: where the image is, as the settings name it.
    """

    roots: Sequence[Root]
    options: Options
    format: str = "webdataset"
    image_field: str | None = None

    @classmethod
    def of(cls, source: Mapping[str, Any], moved: "Moved", options: Options) -> "Origin":
        """The origin that a manifest names.

        Args:
            source: its group ``source``.
            moved: where the images are now, if they moved.
            options: storage options.
        """
        uri = source["uri"] if moved is None else moved
        config = SourceConfig.model_validate({"format": source["format"], "uri": uri})
        return cls(config.roots, options, source["format"], source.get("image_field"))

    def fetch(self, row: Mapping[str, Any]) -> bytes:
        """The encoded bytes of one image, by one ranged read.

        Of a Parquet file the image column of one row group is read, of a compressed tar all that
        comes before; a list is asked for the image's URI.

        Args:
            row: ``image_id``, ``shard``, ``key``, ``sha256`` and the columns that say where the
                bytes lie: ``source_offset``, ``source_length``, ``row_group``, ``row``.

        Raises:
            UsageError: the shard is no longer there, cannot be read, or holds no such image.
        """
        place = self._find(row["shard"])
        try:
            data = self._read(place, row)
        except Exception as error:
            if not is_storage_error(error):
                raise
            raise explain_failure(place.path, error) from error
        if data is None:
            raise UsageError(f"{row['image_id']}: not in {redact(place.path)} any more")
        if hashlib.sha256(data).hexdigest() != row["sha256"]:
            where = redact(place.path)
            raise UsageError(f"{row['image_id']}: {where} holds other bytes than it did")
        return data

    def _read(self, place: Location, row: Mapping[str, Any]) -> bytes | None:
        if self.format == "parquet":
            group, number = int(row["row_group"]), int(row["row"])
            return fetch_from_parquet(place, group, number, self.image_field, self.options)
        if self.format == "list":
            source = SourceConfig(format="list", uri=("x",), image_field=self.image_field)
            return fetch_from_list(place, int(row["row"]), source, self.options)
        if row["source_offset"] is None:  # in a compressed tar nothing can be read by range
            return _scan(place, row, self.image_field)
        start = int(row["source_offset"])
        end = start + int(row["source_length"])
        data: bytes = place.fs.cat_file(place.path, start=start, end=end)
        return data

    def _find(self, shard: str) -> Location:
        for root in self.roots:
            below = shard.removeprefix(f"{root.alias}/") if root.alias else shard
            if root.alias and below == shard:
                continue
            for pattern in expand_braces(root.uri):
                found = _below(open_location(pattern, self.options), below)
                if found is not None:
                    return found
        raise UsageError(
            f"{shard}: no longer at {', '.join(redact(root.uri) for root in self.roots)}. If the "
            "data set moved, say where: open_results(..., source=URI)"
        )


def _below(place: Location, name: str) -> Location | None:
    """The file that a place of the source calls by a name."""
    if place.is_web:
        return place if place.path.split("?", 1)[0].endswith(f"/{name}") else None
    candidates = (Location(place.fs, f"{root}/{name}") for root in _roots(place.path, name))
    return next((found for found in candidates if found.fs.isfile(found.path)), None)


def _roots(path: str, shard: str) -> list[str]:
    """Folders that the shard's name may be relative to, for one place of the source."""
    if glob.has_magic(path):
        return [re.split(r"[*?\[]", path)[0].rpartition("/")[0], path]
    is_file = posixpath.basename(path) == posixpath.basename(shard)
    return [posixpath.dirname(path), path] if is_file else [path]


def _scan(place: Location, row: Mapping[str, Any], image_field: str | None) -> bytes | None:
    source = SourceConfig(format="webdataset", uri=(place.path,), image_field=image_field)
    with place.fs.open(place.path, "rb") as stream:
        whole = cast(IO[bytes], Whole(stream, 0))
        for found in read_shard(whole, row["shard"], "", source):
            data: bytes | None = found.get("bytes")
            if data is not None and hashlib.sha256(data).hexdigest() == row["sha256"]:
                return data
    return None
