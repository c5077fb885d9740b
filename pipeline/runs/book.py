"""Which rows of which shards a part holds, and the ends of read units, recorded in the part itself.

A part's Parquet metadata has two entries besides the schema's, each an Arrow table. Each entry of
the *row ranges* describes consecutive rows of one shard with the same status, in the part's order.
Each entry of the *ends* gives the number of rows of a read unit (a tar, a part of a table): the
reader attaches it to the unit's last row, and the part that commits this row records it.
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

ROW_RANGES_KEY, ENDS_KEY = "legrad.rows", "legrad.ends"
ROW_RANGES = pa.schema(
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
        pa.field("rows", pa.int64()),  # in the unit, not counting the kept ones
        pa.field(
            "kept", pa.int64()
        ),  # kept rows that were read from earlier versions of its shards
    ]
)
_SAME = ("shard", "version", "bytes", "status")


def row_ranges_of(table: pa.Table) -> pa.Table:
    """Row ranges of a table, in the order of its rows (`ROW_RANGES`).

    Args:
        table: rows with the columns shard, status and `BOOK`.
    """
    positions = table[BOOK].combine_chunks()
    columns = {
        "shard": table["shard"].combine_chunks(),
        "version": pc.struct_field(positions, "version"),
        "bytes": pc.struct_field(positions, "bytes"),
        "status": table["status"].combine_chunks(),
    }
    numbers = pc.struct_field(positions, "number").to_numpy(zero_copy_only=False)
    breaks = numbers[1:] != numbers[:-1] + 1
    for values in columns.values():
        codes = _codes(values)
        breaks |= codes[1:] != codes[:-1]
    starts = np.flatnonzero(np.concatenate([[True], breaks])) if len(numbers) else np.zeros(0, int)
    counts = np.diff(np.append(starts, len(numbers)))
    rows = {name: values.take(pa.array(starts)) for name, values in columns.items()}
    return pa.table(rows | {"first": numbers[starts], "count": counts}, schema=ROW_RANGES)


def ends_of(table: pa.Table) -> pa.Table:
    """Ends that the rows of a table carry (`ENDS`)."""
    ends = pc.struct_field(table[BOOK].combine_chunks(), "end").drop_null().to_pylist()
    return ends_from(ends)


def ends_from(records: Sequence[str]) -> pa.Table:
    """Parse ends from JSON (`ENDS`)."""
    return pa.Table.from_pylist([json.loads(record) for record in records], schema=ENDS)


def with_positions(table: pa.Table, row_ranges: pa.Table) -> pa.Table:
    """A part's rows with the column `BOOK`, rebuilt from the row ranges of the part."""
    return table.append_column(BOOK_FIELD, positions(row_ranges))


def positions(row_ranges: pa.Table) -> pa.StructArray:
    """The column `BOOK` for a part's rows; its field `end` is null."""
    counts = row_ranges["count"].to_numpy()
    index = np.repeat(np.arange(row_ranges.num_rows), counts)
    within = np.arange(len(index)) - np.repeat(np.cumsum(counts) - counts, counts)
    row_range = row_ranges.take(pa.array(index))
    values = {
        "number": pa.array(row_range["first"].to_numpy() + within),
        "version": row_range["version"].combine_chunks(),
        "bytes": row_range["bytes"].combine_chunks(),
        "end": pa.nulls(len(index), pa.string()),
    }
    return pa.StructArray.from_arrays(
        [values[field.name] for field in BOOK_FIELD.type], fields=list(BOOK_FIELD.type)
    )


def merge_ranges(row_ranges: pa.Table) -> pa.Table:
    """The same rows in as few ranges as possible, sorted; the order of the part is lost."""
    keys = np.zeros(row_ranges.num_rows, np.int64)
    for name in _SAME:
        codes = _codes(row_ranges[name].combine_chunks())
        keys = keys * (int(codes.max(initial=0)) + 1) + codes
    first, count = row_ranges["first"].to_numpy(), row_ranges["count"].to_numpy()
    order = np.lexsort([first, keys])
    keys, first, count = keys[order], first[order], count[order]
    breaks = (keys[1:] != keys[:-1]) | (first[1:] != first[:-1] + count[:-1])
    starts = np.flatnonzero(np.concatenate([[True], breaks])) if len(keys) else np.zeros(0, int)
    columns = {name: row_ranges[name].take(pa.array(order[starts])) for name in _SAME}
    counts = np.add.reduceat(count, starts) if len(starts) else count
    return pa.table(columns | {"first": first[starts], "count": counts}, schema=ROW_RANGES)


def to_metadata(row_ranges: pa.Table, ends: pa.Table) -> dict[str, str]:
    """Entries for a part's metadata, as text."""
    return {ROW_RANGES_KEY: _to_text(row_ranges), ENDS_KEY: _to_text(ends)}


def from_metadata(metadata: Mapping[bytes, bytes] | None) -> tuple[pa.Table, pa.Table] | None:
    """Row ranges and ends from a part's metadata; None if an earlier version wrote the part."""
    entries = metadata or {}
    if ROW_RANGES_KEY.encode() not in entries:
        return None
    return _from_text(entries[ROW_RANGES_KEY.encode()]), _from_text(entries[ENDS_KEY.encode()])


def without_metadata(table: pa.Table) -> pa.Table:
    """Remove these entries from the metadata of a table's schema, where some readers put them."""
    kept = {
        key: value
        for key, value in (table.schema.metadata or {}).items()
        if key not in (ROW_RANGES_KEY.encode(), ENDS_KEY.encode())
    }
    return table.replace_schema_metadata(kept or None)


def _to_text(table: pa.Table) -> str:
    """Serialize to Arrow's stream format with zstd, as base64, because Parquet metadata is text."""
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.ipc.new_stream(sink, table.schema, options=options) as writer:
        writer.write_table(table.combine_chunks())
    return base64.b64encode(sink.getvalue()).decode()


def _from_text(text: bytes) -> pa.Table:
    return pa.ipc.open_stream(base64.b64decode(text)).read_all()


def _codes(values: pa.Array) -> NDArray[np.int64]:
    """Integer codes; equal values have equal codes."""
    encoded: Any = values.dictionary_encode(null_encoding="encode")
    codes: NDArray[np.int64] = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    return codes
