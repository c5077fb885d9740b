"""Removes rows from their parts: rows to be processed again, and duplicates.

A part without some of its rows is a different part with a different name. It is written before the
old one is deleted, so a kill in between duplicates rows but loses none; the next attempt removes
the duplicates.
"""

import json
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.machine import map_in_threads
from pipeline.runs.ledger import Ledger
from pipeline.runs.parts import read_part, write_part
from pipeline.schema import BOOK
from pipeline.sources.read_unit import Unit
from pipeline.storage.location import Location

_NUMBERED = re.compile(r"part-(\d{5})-")


def remove_rows_with_status(
    ledger: Ledger, statuses: Collection[str], units: Sequence[Unit]
) -> int:
    """Remove committed rows that have one of the given statuses, so that they are processed again.

    Args:
        ledger: ledger of a run whose lease is held; it is refreshed afterwards.
        statuses: statuses of the rows to remove.
        units: all units of the input. If a removed row is a stand-in for rows that could not be
            read, the recorded ends of its units are dropped too, because their row counts may
            differ on the next attempt.

    Returns:
        The number of removed rows.
    """
    removed_statuses = pa.array([str(status) for status in statuses], pa.string())
    row_ranges = ledger.totals.row_ranges
    is_removed = pc.is_in(row_ranges["status"], removed_statuses)
    removed_ranges = row_ranges.filter(is_removed)
    if not removed_ranges.num_rows:
        return 0
    stand_ins = removed_ranges.filter(pc.less(removed_ranges["first"], 0))
    incomplete_shards = set(stand_ins["shard"].to_pylist())
    keys = [unit.key for unit in units if not incomplete_shards.isdisjoint(unit.shards)]
    dropped_units = pa.array(keys, pa.string())
    ledger.forget(keys)
    names = set(ledger.totals.part.filter(is_removed).to_pylist()) | _parts_with_ends(
        ledger, dropped_units
    )

    def remove_rows(part: Location) -> None:
        table, ends = read_part(part)
        keep = pc.invert(pc.is_in(table["status"], removed_statuses))
        if ends is not None:
            ends = ends.filter(pc.invert(pc.is_in(ends["unit"], dropped_units)))
        _replace(part, table.filter(keep), ends)

    list(map_in_threads(remove_rows, [ledger.folder.images.child(name) for name in sorted(names)]))
    ledger.refresh()
    return int(pc.sum(removed_ranges["count"]).as_py())


def _parts_with_ends(ledger: Ledger, keys: pa.Array) -> set[str]:
    """Names of the parts that record ends of the units with the given keys."""
    return {
        name
        for name, record in ledger.records.items()
        if record.ends.num_rows and pc.any(pc.is_in(record.ends["unit"], keys)).as_py()
    }


def drop_repeated(ledger: Ledger, report_message: Callable[[str], None] = lambda text: None) -> int:
    """Remove rows that two parts hold, as a late writer or a copied file leaves them.

    Args:
        ledger: ledger of a run whose lease is held; it is refreshed afterwards.
        report_message: called with a line for each part that was changed.

    Returns:
        The number of removed rows.
    """
    names = repeating_parts(ledger)
    if not names:
        return 0
    seen: dict[tuple[str, str, int], set[int]] = defaultdict(set)
    removed = 0
    for name in sorted(names, key=lambda n: (-_rows(ledger, n), n)):
        part = ledger.folder.images.child(name)
        table, ends = read_part(part)
        keep = _first_seen(table, seen)
        repeated = int((~keep).sum())
        if not repeated:
            continue
        removed += repeated
        if not keep.any() and ends is not None:
            ledger.remember(json.dumps(end) for end in ends.to_pylist())
        _replace(part, table.filter(pa.array(keep)), ends)
        report_message(f"removed {repeated} rows from images/{name}: another part holds them too")
    ledger.refresh()
    return removed


def repeating_parts(ledger: Ledger) -> set[str]:
    """Names of the parts that share a row (same shard and number) with another part."""
    row_ranges = ledger.totals.row_ranges
    if not row_ranges.num_rows:
        return set()
    group = np.zeros(row_ranges.num_rows, np.int64)
    for column in ("shard", "version", "bytes"):
        codes = row_ranges[column].combine_chunks().dictionary_encode().indices
        values = codes.to_numpy(zero_copy_only=False).astype(np.int64)
        group = group * (int(values.max()) + 1) + values
    _, group = np.unique(group, return_inverse=True)
    first, count = row_ranges["first"].to_numpy(), row_ranges["count"].to_numpy()
    first = first - first.min()
    first = first + group * int((first + count).max())  # no shard reaches into the next one
    stop = first + count
    order = np.argsort(first, kind="stable")
    first, stop = first[order], stop[order]
    reached = np.maximum.accumulate(stop)
    overlaps = np.flatnonzero(first[1:] < reached[:-1]) + 1
    if not len(overlaps):
        return set()
    furthest = np.maximum.accumulate(np.where(stop == reached, np.arange(len(stop)), 0))
    involved = np.unique(np.concatenate([overlaps, furthest[overlaps - 1]]))
    part = ledger.totals.part.combine_chunks()
    return set(part.take(pa.array(order[involved])).to_pylist())


def _rows(ledger: Ledger, name: str) -> int:
    return int(pc.sum(ledger.records[name].row_ranges["count"]).as_py())


def _first_seen(table: pa.Table, seen: dict[tuple[str, str, int], set[int]]) -> NDArray[np.bool_]:
    """Mask of rows whose position has not been seen before; adds all positions to `seen`."""
    keep = np.ones(table.num_rows, bool)
    positions: list[Any] = table[BOOK].to_pylist()
    for row, (shard, position) in enumerate(
        zip(table["shard"].to_pylist(), positions, strict=True)
    ):
        numbers = seen[shard, position["version"], position["bytes"]]
        keep[row] = position["number"] not in numbers
        numbers.add(position["number"])
    return keep


def _replace(part: Location, rows: pa.Table, ends: pa.Table | None) -> None:
    """Replace a part by one that holds only these rows; delete it if there are none."""
    folder, _, name = part.path.rpartition("/")
    part_number = _NUMBERED.match(name)
    if rows.num_rows:
        number = int(part_number[1]) if part_number else None
        new = write_part(Location(part.fs, folder), rows, ends, number)
        if new.path == part.path:
            return
    part.delete()
