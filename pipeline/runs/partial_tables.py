"""A table that is not quite done is not read as a whole again: its rows tell where they stood."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow.dataset as ds

from pipeline.runs.manifest import RunFolder
from pipeline.runs.parts import arrow_filesystem, committed_parts
from pipeline.runs.read_shards import ShardBook, shards_of
from pipeline.sources.read_unit import Part, Unit

_NO_GROUP = -1


def without_done(folder: RunFolder, units: Sequence[Unit], book: ShardBook) -> list[Unit]:
    """Of unfinished tables only the parts that lack rows, and of lists only these rows.

    Args:
        folder: of the run.
        units: that are to be read, by the counts of whole files.
        book: tells which parts were read to their end, and how many rows they had.
    """
    tables = {shards_of(unit)[0] for unit in units if unit.part and book.counted(unit) is not None}
    if not tables:
        return list(units)
    committed = _committed(folder, tables)
    return list(_lacking(units, book, committed))


def _lacking(
    units: Sequence[Unit], book: ShardBook, committed: dict[str, pd.DataFrame]
) -> Iterator[Unit]:
    for unit in units:
        part, expected = unit.part, book.counted(unit)
        rows = committed.get(shards_of(unit)[0])
        if part is None or expected is None or rows is None:
            yield unit
        elif (rows["row_group"] != _NO_GROUP).any():
            if rows["row_group"].isin(part.groups).sum() != expected:
                yield unit
        else:
            there = rows["row"][rows["row"].between(part.first, part.first + part.rows - 1)]
            if len(there) != expected:
                yield _only(unit, part, set(there))


def _only(unit: Unit, part: Part, there: set[int]) -> Unit:
    """The rows of a list that are not committed; where that is none, its counts are off: all."""
    every = range(part.first, part.first + part.rows)
    wanted = every if part.chosen is None else part.chosen
    lacking = frozenset(row for row in wanted if row not in there)
    if not lacking:
        return unit
    return replace(unit, part=replace(part, chosen=lacking), given=len(wanted) - len(lacking))


def _committed(folder: RunFolder, tables: set[str]) -> dict[str, pd.DataFrame]:
    """Row group and number of the committed rows, each once, by table."""
    parts = [part.path for part in committed_parts(folder)]
    dataset = ds.dataset(parts, filesystem=arrow_filesystem(folder.images), format="parquet")
    wanted = ds.field("shard").isin(list(tables)) & ds.field("row").is_valid()
    rows = dataset.to_table(columns=["shard", "row_group", "row"], filter=wanted).to_pandas()
    rows["row_group"] = rows["row_group"].fillna(_NO_GROUP).astype(np.int64)
    return dict(iter(rows.drop_duplicates().groupby("shard", sort=False)))
