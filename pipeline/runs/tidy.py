"""Before a run, under its lease: remove what earlier attempts left behind half-done.

Ray Data commits a part in steps: ids as ``X.pending.parquet``, the data, ids as ``X.parquet``, and
on object storage the last is a copy and a delete. Its own recovery takes any pending file for an
unfinished part: it deletes the data, and keeps the ids of those that were committed but for the
delete. So nothing pending is left to it.
"""

import re
from collections import defaultdict
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.runs.manifest import RunFolder
from pipeline.runs.parts import PARQUET, PENDING, arrow_filesystem, commit_of, commits
from pipeline.storage.location import Location

_BY_RAY = re.compile(r"[0-9a-f]{32}_\d{6}-\d+\.parquet")


@dataclass(frozen=True)
class Tidied:
    """What was removed.

    Attributes:
        parts: data without a commit; its rows are computed again.
        commits: commits without their data; the same.
    """

    parts: int
    commits: int

    def __str__(self) -> str:
        kinds = ((self.parts, "uncommitted part"), (self.commits, "commit without data"))
        told = [f"{n} {what}{'s' if n > 1 else ''}" for n, what in kinds if n]
        return "removed " + " and ".join(told) + " of an earlier attempt"

    def __bool__(self) -> bool:
        return bool(self.parts or self.commits)


def tidy(folder: RunFolder) -> Tidied:
    """Leave only whole commits: ids and data, nothing pending, no data of which nobody knows.

    A commit goes before its data, and data before what is pending, so that a kill in between leaves
    something that the next attempt clears away. Files that were not written by a run stay.
    """
    committed = commits(folder)
    pending = {
        path.removesuffix(PENDING).rsplit("/", 1)[-1]: folder.checkpoint.child(path)
        for path in folder.checkpoint.sizes()
        if path.endswith(PENDING)
    }
    parts: dict[str, list[Location]] = defaultdict(list)
    for name in folder.images.files(f"*{PARQUET}"):
        if _BY_RAY.fullmatch(name) or commit_of(name) in committed:
            parts[commit_of(name)].append(folder.images.child(name))
    hollow = [
        name
        for name, path in committed.items()
        if not parts[name]
        or (name in pending and not _whole(folder.checkpoint.child(path), parts[name]))
    ]
    for name in hollow:
        folder.checkpoint.child(committed.pop(name)).delete()
    orphans = [part for name, some in parts.items() if name not in committed for part in some]
    for place in [*orphans, *pending.values()]:
        place.delete()
    return Tidied(len(orphans), len(hollow))


def _whole(commit: Location, parts: list[Location]) -> bool:
    """Whether the data has the commit's rows.

    A write task that is tried again writes its part anew under the same name: a kill then leaves
    the commit of the first try beside half a file.
    """
    try:
        rows = [
            pq.read_metadata(place.path, filesystem=arrow_filesystem(place)).num_rows
            for place in (commit, *parts)
        ]
    except pa.ArrowInvalid:
        return False
    return bool(rows[0] == sum(rows[1:]))
