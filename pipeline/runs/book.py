"""Which rows of which shards a part holds, and the ends of read units: kept in the part itself.

A part's Parquet metadata has two entries besides the schema's, each an Arrow table. The *runs*
list, in the order of the part, rows with consecutive numbers in one shard and of one status.
The *ends* say how many rows a read unit (a tar, a part of a table) has in all: the last row of a
unit carries its end from the reader, so the part that commits this row records it.
"""

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.schema import BOOK, BOOK_FIELD

RUNS_KEY, ENDS_KEY = "legrad.rows", "legrad.ends"
RUNS = pa.schema(
    [
        pa.field("shard", pa.string()),
        pa.field("version", pa.string()),  # of the shard's file, as it was read
        pa.field("bytes", pa.int64()),  # size of the shard's file
        pa.field("status", pa.string()),
        pa.field("first", pa.int64()),  # number in the shard of the first row
        pa.field("count", pa.int64()),
    ]
)
ENDS = pa.schema(
    [
        pa.field("unit", pa.string()),
        pa.field("version", pa.string()),
        pa.field("bytes", pa.int64()),
        pa.field("rows", pa.int64()),  # in all, but for those that are kept
        pa.field("kept", pa.int64()),  # rows that earlier versions of its shards hold
    ]
)
_SAME = ("shard", "version", "bytes", "status")


def runs_of(table: pa.Table) -> pa.Table:
    """The runs of a table's rows, in their order.

    Args:
        table: with the columns shard, status and `BOOK`.
    """
    place = table[BOOK].combine_chunks()
    columns = {
        "shard": table["shard"].combine_chunks(),
        "version": pc.struct_field(place, "version"),
        "bytes": pc.struct_field(place, "bytes"),
        "status": table["status"].combine_chunks(),
    }
    numbers = pc.struct_field(place, "number").to_numpy(zero_copy_only=False)
    breaks = numbers[1:] != numbers[:-1] + 1
    for values in columns.values():
        codes = _codes(values)
        breaks |= codes[1:] != codes[:-1]
    starts = np.flatnonzero(np.concatenate([[True], breaks])) if len(numbers) else np.zeros(0, int)
    counts = np.diff(np.append(starts, len(numbers)))
    rows = {name: values.take(pa.array(starts)) for name, values in columns.items()}
    return pa.table(rows | {"first": numbers[starts], "count": counts}, schema=RUNS)


def ends_of(table: pa.Table) -> pa.Table:
    """The ends that rows of a table carry."""
    ends = pc.struct_field(table[BOOK].combine_chunks(), "end").drop_null().to_pylist()
    return ends_from(ends)


def ends_from(records: Sequence[str]) -> pa.Table:
    """Ends from their JSON form."""
    return pa.Table.from_pylist([json.loads(record) for record in records], schema=ENDS)


def with_places(table: pa.Table, runs: pa.Table) -> pa.Table:
    """A part's rows with the column `BOOK`, made again from the runs of the part."""
    return table.append_column(BOOK_FIELD, places(runs))


def places(runs: pa.Table) -> pa.StructArray:
    """The column `BOOK` of a part's rows, without ends."""
    counts = runs["count"].to_numpy()
    index = np.repeat(np.arange(runs.num_rows), counts)
    within = np.arange(len(index)) - np.repeat(np.cumsum(counts) - counts, counts)
    taken = runs.take(pa.array(index))
    values = {
        "number": pa.array(taken["first"].to_numpy() + within),
        "version": taken["version"].combine_chunks(),
        "bytes": taken["bytes"].combine_chunks(),
        "end": pa.nulls(len(index), pa.string()),
    }
    return pa.StructArray.from_arrays(
        [values[field.name] for field in BOOK_FIELD.type], fields=list(BOOK_FIELD.type)
    )


def merged(runs: pa.Table) -> pa.Table:
    """The same rows in as few runs as possible, sorted; the order of the part is lost."""
    keys = np.zeros(runs.num_rows, np.int64)
    for name in _SAME:
        codes = _codes(runs[name].combine_chunks())
        keys = keys * (int(codes.max(initial=0)) + 1) + codes
    first, count = runs["first"].to_numpy(), runs["count"].to_numpy()
    order = np.lexsort([first, keys])
    keys, first, count = keys[order], first[order], count[order]
    breaks = (keys[1:] != keys[:-1]) | (first[1:] != first[:-1] + count[:-1])
    starts = np.flatnonzero(np.concatenate([[True], breaks])) if len(keys) else np.zeros(0, int)
    columns = {name: runs[name].take(pa.array(order[starts])) for name in _SAME}
    counts = np.add.reduceat(count, starts) if len(starts) else count
    return pa.table(columns | {"first": first[starts], "count": counts}, schema=RUNS)


def encode(runs: pa.Table, ends: pa.Table) -> dict[str, str]:
    """The entries of a part's metadata."""
    return {RUNS_KEY: _packed(runs), ENDS_KEY: _packed(ends)}


def decode(metadata: Mapping[bytes, bytes] | None) -> tuple[pa.Table, pa.Table] | None:
    """Runs and ends from a part's metadata; None where an earlier version wrote the part."""
    entries = metadata or {}
    if RUNS_KEY.encode() not in entries:
        return None
    return _unpacked(entries[RUNS_KEY.encode()]), _unpacked(entries[ENDS_KEY.encode()])


def without_record(table: pa.Table) -> pa.Table:
    """The table without the record in the metadata of its schema, where some readers put it."""
    kept = {
        key: value
        for key, value in (table.schema.metadata or {}).items()
        if key not in (RUNS_KEY.encode(), ENDS_KEY.encode())
    }
    return table.replace_schema_metadata(kept or None)


def _packed(table: pa.Table) -> str:
    """Arrow's stream format, zstd, as base64: metadata of Parquet is text."""
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.ipc.new_stream(sink, table.schema, options=options) as writer:
        writer.write_table(table.combine_chunks())
    return base64.b64encode(sink.getvalue()).decode()


def _unpacked(text: bytes) -> pa.Table:
    return pa.ipc.open_stream(base64.b64decode(text)).read_all()


def _codes(values: pa.Array) -> NDArray[np.int64]:
    """Numbers that are equal where the values are."""
    encoded: Any = values.dictionary_encode(null_encoding="encode")
    codes: NDArray[np.int64] = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    return codes
