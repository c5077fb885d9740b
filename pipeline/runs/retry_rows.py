"""Rows that the same command does again: taken out of their parts before a run, if it asks for it.

A `read_error` row stands for what the storage would not give. It is committed like any other, so
Ray would never do it again; here its id is taken out of the commit and the row out of its part.
"""

import io
from collections.abc import Callable, Collection

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.runs.manifest import RunFolder
from pipeline.runs.parts import (
    ROW_GROUP_ROWS,
    arrow_filesystem,
    commit_of,
    commits,
    committed_parts,
    parquet_options,
    side_by_side,
)
from pipeline.storage.location import Location


def reopen(
    folder: RunFolder,
    statuses: Collection[str],
    forget: Callable[[Collection[str]], None] = lambda shards: None,
) -> int:
    """Take out the committed rows with one of some statuses, so that the next pass does them again.

    First the counts of their shards are forgotten, then the ids go, then the rows: a kill in
    between leaves rows that the next call finds again, and no row is ever done twice.

    Args:
        folder: of the run, whose lease is held.
        statuses: of the rows.
        forget: told, before anything changes, the shards whose number of rows may be another one
            the next time: those where a row that is taken out stands for all that followed.

    Returns:
        How many rows there were.
    """
    if not statuses:
        return 0
    wanted = pa.array([str(status) for status in statuses])
    parts = committed_parts(folder)
    chosen = {
        part.path: (part, rows)
        for part, rows in zip(parts, side_by_side(lambda p: _rows(p, wanted), parts), strict=True)
        if rows.num_rows
    }
    shards = [_open_ended(rows) for _, rows in chosen.values()]
    forget(sorted(set().union(*shards)))
    places = commits(folder)

    def take_out(part: Location) -> None:
        commit = folder.checkpoint.child(places[commit_of(_name(part))])
        _without(commit, "image_id", chosen[part.path][1]["image_id"], {})
        _without(part, "status", wanted, {"row_group_size": ROW_GROUP_ROWS})

    side_by_side(take_out, [part for part, _ in chosen.values()])
    return sum(rows.num_rows for _, rows in chosen.values())


def _rows(part: Location, statuses: pa.Array) -> pa.Table:
    columns = ["image_id", "shard", "row", "status"]
    rows = pq.read_table(part.path, columns=columns, filesystem=arrow_filesystem(part))
    return rows.filter(pc.is_in(rows["status"], statuses))


def _open_ended(rows: pa.Table) -> set[str]:
    """Shards of the rows that are not one row of a table, which stays one."""
    return set(rows.filter(pc.is_null(rows["row"]))["shard"].to_pylist())


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
