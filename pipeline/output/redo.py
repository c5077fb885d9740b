"""Rows that the same command does again: taken out of their parts before a run, if it asks for it.

A `read_error` row stands for what the storage would not give. It is committed like any other, so
Ray would never do it again; here its id is taken out of the commit and the row out of its part.
"""

import io
from collections.abc import Collection

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.manifest import RunFolder
from pipeline.output.parts import (
    ROW_GROUP_ROWS,
    arrow_filesystem,
    commit_of,
    commits,
    committed_parts,
    parquet_options,
    side_by_side,
)
from pipeline.storage import Location


def reopen(folder: RunFolder, statuses: Collection[str]) -> set[str]:
    """Forget the committed rows with one of some statuses, so that the next pass does them again.

    First the ids go, then the rows: a kill in between leaves rows that the next call finds again,
    and no row is ever done twice.

    Returns:
        The shards of these rows.
    """
    if not statuses:
        return set()
    wanted = pa.array([str(status) for status in statuses])
    places = commits(folder)

    def forget(part: Location) -> set[str]:
        commit = folder.checkpoint.child(places[commit_of(_name(part))])
        return _forget(folder, part, commit, wanted)

    return set().union(*side_by_side(forget, committed_parts(folder)))


def _forget(folder: RunFolder, part: Location, commit: Location, statuses: pa.Array) -> set[str]:
    filesystem = arrow_filesystem(folder.images)
    columns = ["image_id", "shard", "status"]
    rows = pq.read_table(part.path, columns=columns, filesystem=filesystem)
    rows = rows.filter(pc.is_in(rows["status"], statuses))
    if not rows.num_rows:
        return set()
    _without(commit, "image_id", rows["image_id"], {})
    _without(part, "status", statuses, {"row_group_size": ROW_GROUP_ROWS})
    return set(rows["shard"].to_pylist())


def _without(place: Location, column: str, values: pa.Array, options: dict[str, int]) -> None:
    """Write a Parquet file anew without some rows, in one piece; without any, delete it."""
    if not place.exists():
        return
    table = pq.read_table(pa.BufferReader(place.read()))
    kept = table.filter(pc.invert(pc.is_in(table[column], pc.unique(values))))
    if not kept.num_rows:
        place.delete()
        return
    sink = io.BytesIO()
    pq.write_table(kept, sink, **parquet_options(kept.schema), **options)
    place.write(sink.getvalue())


def _name(place: Location) -> str:
    return place.path.rsplit("/", 1)[-1]
