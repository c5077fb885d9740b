"""Which Parquet parts of a run are committed, and what is in them; no Ray, so that reading results
needs none.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq

from pipeline.runs.manifest import RunFolder
from pipeline.schema import EMBEDDING
from pipeline.storage.location import Location

PENDING = ".pending.parquet"
PARQUET = ".parquet"
OWN_PART = re.compile(r"(?:[0-9a-f]{32}_\d{6}|part-\d+)-\d+\.parquet")
"""A part's name as a run gives it, or compact."""
READERS = 16
ROW_GROUP_ROWS = 10_000
_UNIQUE = ("image_id", "key", "source_offset", "source_length", "row", "sha256", EMBEDDING)
T = TypeVar("T")


def arrow_filesystem(place: Location) -> pyarrow.fs.FileSystem:
    """The pyarrow view of a location's filesystem."""
    if place.is_local:
        return pyarrow.fs.LocalFileSystem()
    return pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(place.fs))


def parquet_options(schema: pa.Schema) -> dict[str, Any]:
    """zstd 3; statistics on everything but maps and embeddings, which nobody filters by.

    No dictionaries where hardly a value comes twice: they make files larger and slower.
    """
    measured = ("score__", "heatmap__", "heatmap_max__")
    unstated = [n for n in schema.names if n.startswith("heatmap__") or n == EMBEDDING]
    unique = [n for n in schema.names if n.startswith(measured) or n in _UNIQUE]
    return {
        "compression": "zstd",
        "compression_level": 3,
        "write_statistics": [n for n in schema.names if n not in unstated],
        "use_dictionary": [n for n in schema.names if n not in unique],
    }


def commit_of(part: str) -> str:
    """Name of the commit that a part belongs to; a commit's parts are numbered."""
    return part.removesuffix(PARQUET).rsplit("-", 1)[0]


def commits(folder: RunFolder) -> dict[str, str]:
    """The commits of a run: name -> file relative to ``_run/checkpoint``.

    They lie in a folder for every wave; runs of version 0.1 have theirs in ``checkpoint`` itself.
    """
    return {
        path.removesuffix(PARQUET).rsplit("/", 1)[-1]: path
        for path in folder.checkpoint.sizes()
        if path.endswith(PARQUET) and not path.endswith(PENDING)
    }


def strangers(folder: RunFolder) -> list[str]:
    """Names of Parquet files in ``images/`` that no run and no compact wrote."""
    return [name for name in folder.images.files(f"*{PARQUET}") if not OWN_PART.fullmatch(name)]


def committed_parts(folder: RunFolder) -> list[Location]:
    """The parts of ``images/`` whose rows are committed, sorted by name."""
    committed = commits(folder)
    parts = folder.images.files(f"*{PARQUET}")
    return [folder.images.child(part) for part in parts if commit_of(part) in committed]


def side_by_side(work: Callable[[Location], T], places: Iterable[Location]) -> list[T]:
    """The results of reading several files at once."""
    with ThreadPoolExecutor(READERS) as pool:
        return list(pool.map(work, places))


def ids_of(part: Location) -> pa.Array:
    """The image ids of a part, in its order."""
    table = pq.read_table(part.path, columns=["image_id"], filesystem=arrow_filesystem(part))
    return table["image_id"].combine_chunks()


@dataclass
class Ledger:
    """Rows in the committed parts, by shard and status; a part is read once, for it never changes.

    Attributes:
        folder: of the run.
        counts: rows by (shard, status) of every committed part, by its name.
        bytes: size of all committed parts.
    """

    folder: RunFolder
    counts: dict[str, Counter[tuple[str, str]]] = field(default_factory=dict)
    bytes: int = 0

    def refresh(self) -> "Ledger":
        """Read the parts that were committed since."""
        committed = commits(self.folder)
        sizes = {
            name: size
            for name, size in self.folder.images.sizes().items()
            if name.endswith(PARQUET) and commit_of(name) in committed
        }
        new = [name for name in sizes if name not in self.counts]
        found = side_by_side(_count, [self.folder.images.child(name) for name in new])
        known = self.counts | dict(zip(new, found, strict=True))
        self.counts = {name: known[name] for name in sizes}
        self.bytes = sum(sizes.values())
        return self

    @property
    def statuses(self) -> Counter[str]:
        """Rows by status."""
        total: Counter[str] = Counter()
        for counts in self.counts.values():
            for (_, status), rows in counts.items():
                total[status] += rows
        return total

    @property
    def rows(self) -> int:
        """All rows."""
        return sum(counts.total() for counts in self.counts.values())

    def shards(self, commits_only: Iterable[str] | None = None) -> Counter[str]:
        """Rows by shard, of all parts or of some commits."""
        only = None if commits_only is None else set(commits_only)
        total: Counter[str] = Counter()
        for name, counts in self.counts.items():
            if only is None or commit_of(name) in only:
                for (shard, _), rows in counts.items():
                    total[shard] += rows
        return total


def _count(part: Location) -> Counter[tuple[str, str]]:
    columns = ["shard", "status"]
    table = pq.read_table(part.path, columns=columns, filesystem=arrow_filesystem(part))
    grouped = table.group_by(columns).aggregate([([], "count_all")]).to_pylist()
    return Counter({(row["shard"], row["status"]): row["count_all"] for row in grouped})
