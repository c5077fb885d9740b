"""Rows taken out of their parts: those that are done again, and those that stand there twice.

A part without some of its rows is another part, with a name of its own. It is written before the
old one is deleted, so a kill in between leaves rows twice and none lost; the next attempt takes
them out.
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


def reopen(ledger: Ledger, statuses: Collection[str], units: Sequence[Unit]) -> int:
    """Take out the committed rows with one of some statuses, so that they are done again.

    Args:
        ledger: of a run whose lease is held; refreshed afterwards.
        statuses: of the rows.
        units: all of the input. Where a row that is taken out stands for others that could not be
            read, the ends of its units are forgotten: they may have other numbers of rows now.

    Returns:
        How many rows there were.
    """
    wanted = pa.array([str(status) for status in statuses], pa.string())
    runs = ledger.totals.runs
    chosen = pc.is_in(runs["status"], wanted)
    gone = runs.filter(chosen)
    if not gone.num_rows:
        return 0
    stand_ins = gone.filter(pc.less(gone["first"], 0))
    open_shards = set(stand_ins["shard"].to_pylist())
    keys = [unit.key for unit in units if not open_shards.isdisjoint(unit.shards)]
    forgotten = pa.array(keys, pa.string())
    ledger.forget(keys)
    names = set(ledger.totals.part.filter(chosen).to_pylist()) | _holding_ends(ledger, forgotten)

    def take_out(part: Location) -> None:
        table, ends = read_part(part)
        keep = pc.invert(pc.is_in(table["status"], wanted))
        if ends is not None:
            ends = ends.filter(pc.invert(pc.is_in(ends["unit"], forgotten)))
        _replace(part, table.filter(keep), ends)

    list(map_in_threads(take_out, [ledger.folder.images.child(name) for name in sorted(names)]))
    ledger.refresh()
    return int(pc.sum(gone["count"]).as_py())


def _holding_ends(ledger: Ledger, keys: pa.Array) -> set[str]:
    """Parts that record the ends of some units."""
    return {
        name
        for name, record in ledger.records.items()
        if record.ends.num_rows and pc.any(pc.is_in(record.ends["unit"], keys)).as_py()
    }


def drop_repeated(ledger: Ledger, tell: Callable[[str], None] = lambda text: None) -> int:
    """Take out rows that stand in two parts, as a late writer or a copied file leaves them.

    Args:
        ledger: of a run whose lease is held; refreshed afterwards.
        tell: called with the names of the parts.

    Returns:
        How many rows there were.
    """
    names = repeating_parts(ledger)
    if not names:
        return 0
    seen: dict[tuple[str, str, int], set[int]] = defaultdict(set)
    total = 0
    for name in sorted(names, key=lambda n: (-_rows(ledger, n), n)):
        part = ledger.folder.images.child(name)
        table, ends = read_part(part)
        keep = _first_seen(table, seen)
        repeated = int((~keep).sum())
        if not repeated:
            continue
        total += repeated
        if not keep.any() and ends is not None:
            ledger.remember(json.dumps(end) for end in ends.to_pylist())
        _replace(part, table.filter(pa.array(keep)), ends)
        tell(f"took {repeated} rows out of images/{name}: they stand in another part as well")
    ledger.refresh()
    return total


def repeating_parts(ledger: Ledger) -> set[str]:
    """Names of the parts that share a row, by its shard and number, with another part."""
    runs = ledger.totals.runs
    if not runs.num_rows:
        return set()
    group = np.zeros(runs.num_rows, np.int64)
    for column in ("shard", "version", "bytes"):
        codes = runs[column].combine_chunks().dictionary_encode().indices
        values = codes.to_numpy(zero_copy_only=False).astype(np.int64)
        group = group * (int(values.max()) + 1) + values
    _, group = np.unique(group, return_inverse=True)
    first, count = runs["first"].to_numpy(), runs["count"].to_numpy()
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
    return int(pc.sum(ledger.records[name].runs["count"]).as_py())


def _first_seen(table: pa.Table, seen: dict[tuple[str, str, int], set[int]]) -> NDArray[np.bool_]:
    """Whether each row is the first one at its place; adds them to the places that were seen."""
    keep = np.ones(table.num_rows, bool)
    places: list[Any] = table[BOOK].to_pylist()
    for row, (shard, place) in enumerate(zip(table["shard"].to_pylist(), places, strict=True)):
        numbers = seen[shard, place["version"], place["bytes"]]
        keep[row] = place["number"] not in numbers
        numbers.add(place["number"])
    return keep


def _replace(part: Location, rows: pa.Table, ends: pa.Table | None) -> None:
    """The part with these rows instead; without any it goes."""
    folder, _, name = part.path.rpartition("/")
    numbered = _NUMBERED.match(name)
    if rows.num_rows:
        number = int(numbered[1]) if numbered else None
        new = write_part(Location(part.fs, folder), rows, ends, number)
        if new.path == part.path:
            return
    part.delete()
