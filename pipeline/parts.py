"""Which Parquet parts of a run are committed; no Ray, so that reading results needs none."""

import pyarrow.fs
import pyarrow.parquet as pq

from pipeline.manifest import RunFolder
from pipeline.storage import Location

PENDING = ".pending.parquet"


def arrow_filesystem(place: Location) -> pyarrow.fs.FileSystem:
    """The pyarrow view of a location's filesystem."""
    if place.is_local:
        return pyarrow.fs.LocalFileSystem()
    return pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(place.fs))


def committed_parts(folder: RunFolder) -> list[Location]:
    """The parts of ``images/`` whose rows are committed, sorted by name."""
    committed = {
        name.removesuffix(".parquet")
        for name in folder.checkpoint.files("*.parquet")
        if not name.endswith(PENDING)
    }
    parts = folder.images.files("*.parquet")
    return [folder.images.child(p) for p in parts if p.rsplit("-", 1)[0] in committed]


def committed_rows(folder: RunFolder) -> int:
    """Rows in the committed parts, from their footers."""
    parts = committed_parts(folder)
    filesystem = arrow_filesystem(folder.images)
    return sum(pq.read_metadata(part.path, filesystem=filesystem).num_rows for part in parts)
