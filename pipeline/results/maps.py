"""Maps of one or several queries: of chosen images, of all in turn, two on each other."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.errors import UsageError
from pipeline.results.errors import UnknownNameError
from pipeline.results.map_columns import Maps, shaped
from pipeline.results.overlap import overlap
from pipeline.results.rows import ID, Rows, Where
from pipeline.results.run import Run

_BATCH_BYTES = 32 * 2**20
_MOST_ROWS = 8192
Ids = NDArray[np.object_]


@dataclass(frozen=True)
class Chosen:
    """Maps that were asked for.

    Attributes:
        rows: of the images.
        runs: the run of every query.
        image_ids: which images, in this order; None: all, or those that match.
        where: which images, where no ids are given.
    """

    rows: Rows
    runs: Mapping[str, Run]
    image_ids: Sequence[str] | None
    where: Where

    def __post_init__(self) -> None:
        if self.image_ids is not None and self.where is not None:
            raise UsageError("image_ids and where: expected one of them")
        if isinstance(self.image_ids, str | pc.Expression | pd.DataFrame):
            given = type(self.image_ids).__name__
            raise UsageError(
                f"image_ids: expected a list of ids, found a {given}; a condition is given as "
                "where=..., the ids of a frame are its .index"
            )

    @property
    def columns(self) -> list[str]:
        """What has to be read."""
        names = [ID]
        for query, run in self.runs.items():
            names += run.map_columns([query])
        return list(dict.fromkeys(names))

    def batches(self, more: Sequence[str] = ()) -> Iterator[pa.Table]:
        """The rows a few at a time, so many that their maps of 4-byte floats stay small.

        Raises:
            UnknownNameError: an image that was asked for is not there.
        """
        columns = list(dict.fromkeys([*self.columns, *more]))
        cells = sum(run.grid[0] * run.grid[1] for run in self.runs.values())
        rows = max(1, min(_MOST_ROWS, _BATCH_BYTES // (4 * max(1, cells))))
        if self.image_ids is None:
            yield from self.rows.batches(columns, self.where, rows)
            return
        ids = list(self.image_ids)
        for start in range(0, len(ids), rows):
            yield self.selected(ids[start : start + rows], columns)

    def selected(self, ids: Sequence[str], columns: Sequence[str]) -> pa.Table:
        """The rows with some ids, in their order."""
        table = self.rows.select(ids, columns)
        absent = table[ID].is_null()
        if table[ID].null_count:
            missing = pa.array(ids).filter(absent.combine_chunks())
            raise UnknownNameError(
                f"no image {missing[0].as_py()!r} in {self.rows.name} ({len(missing)} of "
                f"{len(ids)} missing)"
            )
        return table


def read(
    chosen: Chosen, *, normalized: bool, size: int | tuple[int, int] | None
) -> tuple[Ids, Maps]:
    """ids (n,) and maps (n, h, w) of one query, at once."""
    ((query, run),) = chosen.runs.items()
    if chosen.image_ids is None:
        table = chosen.rows.table(chosen.columns, chosen.where)
    else:
        table = chosen.selected(list(chosen.image_ids), chosen.columns)
    found = run.decode(table, query)
    return _ids(table), shaped(found, normalized, size)


def stream(chosen: Chosen, *, normalized: bool) -> Iterator[tuple[Ids, Maps]]:
    """ids (n,) and maps (n, queries, h, w), a few at a time."""
    grids = {run.grid for run in chosen.runs.values()}
    if len(grids) > 1:
        raise UsageError(f"iter_maps: these queries have different grids, {grids}; one at a time")
    for table in chosen.batches():
        found = np.empty((table.num_rows, len(chosen.runs), *grids.copy().pop()), np.float32)
        for number, (query, run) in enumerate(chosen.runs.items()):
            found[:, number] = run.decode(table, query)
        yield _ids(table), shaped(found, normalized, None)


def compare(chosen: Chosen, query_a: str, query_b: str) -> pd.DataFrame:
    """Overlap statistics of two queries by image_id."""
    first, second = chosen.runs[query_a], chosen.runs[query_b]
    if first.grid != second.grid:
        raise UsageError(
            f"compare: maps of {query_a} are {first.grid}, of {query_b} {second.grid} cells"
        )
    if first is not second and first.preprocess != second.preprocess:
        raise UsageError(f"compare: {query_a} and {query_b} saw different parts of the images")
    found = []
    for table in chosen.batches(["width", "height"]):
        a, b = first.decode(table, query_a), second.decode(table, query_b)
        part = overlap(a, b, first.shown(table))
        found.append(part.set_axis(pd.Index(_ids(table), name=ID), axis=0))
    if not found:
        empty = np.zeros((0, *first.grid))
        return overlap(empty, empty).set_axis(pd.Index([], name=ID, dtype=str), axis=0)
    return pd.concat(found)


def _ids(table: pa.Table) -> Ids:
    return np.asarray(table[ID].to_numpy(), dtype=object)
