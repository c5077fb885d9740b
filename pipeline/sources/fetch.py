"""Any image again, by the place its row names: one ranged read."""

import glob
import hashlib
import posixpath
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.config import SourceConfig
from pipeline.errors import UsageError
from pipeline.sources.listing import expand_braces
from pipeline.sources.webdataset import read_shard
from pipeline.storage import Location, Options, locate


@dataclass(frozen=True)
class Origin:
    """Where a run's images came from.

    Attributes:
        uris: of the source, as in its settings.
        options: storage options.
    """

    uris: Sequence[str]
    options: Options

    def fetch(self, row: dict[str, Any]) -> bytes:
        """The encoded bytes of one image.

        Args:
            row: ``shard``, ``key``, ``source_offset``, ``source_length``, ``sha256``,
                ``image_id``.

        Raises:
            UsageError: the shard is no longer there, or holds no such image.
        """
        place = self._find(row["shard"])
        offset = row["source_offset"]
        if offset is None:  # in a compressed tar nothing can be read by range
            return _scan(place, row)
        start = int(offset)
        data: bytes = place.fs.cat_file(
            place.path, start=start, end=start + int(row["source_length"])
        )
        if hashlib.sha256(data).hexdigest() != row["sha256"]:
            raise UsageError(f"{row['image_id']}: {place.path} holds other bytes than it did")
        return data

    def _find(self, shard: str) -> Location:
        for uri in self.uris:
            for pattern in expand_braces(uri):
                place = locate(pattern, self.options)
                for root in _roots(place.path, shard):
                    candidate = Location(place.fs, f"{root}/{shard}")
                    if place.fs.isfile(candidate.path):
                        return candidate
        raise UsageError(
            f"{shard}: no longer at {', '.join(self.uris)}. If the data set moved, say where: "
            "open_results(..., source=URI)"
        )


def _roots(path: str, shard: str) -> list[str]:
    """Folders that the shard's name may be relative to, for one place of the source."""
    if glob.has_magic(path):
        return [re.split(r"[*?\[]", path)[0].rpartition("/")[0], path]
    is_file = posixpath.basename(path) == posixpath.basename(shard)
    return [posixpath.dirname(path), path] if is_file else [path]


def _scan(place: Location, row: dict[str, Any]) -> bytes:
    source = SourceConfig(format="webdataset", uri=(place.path,))
    with place.fs.open(place.path, "rb") as stream:
        for found in read_shard(stream, row["shard"], "", source):
            data: bytes | None = found.get("bytes")
            if data is not None and hashlib.sha256(data).hexdigest() == row["sha256"]:
                return data
    raise UsageError(f"{row['image_id']}: not in {place.path} any more")
