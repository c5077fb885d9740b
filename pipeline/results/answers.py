"""What `Results` answers: frames of columns and scores, maps of queries, and how these overlap."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.errors import UnknownNameError, UsageError
from pipeline.results.decoding import Maps, shaped
from pipeline.results.rows import ID, Rows, Where, name_list
from pipeline.results.run import Run
from pipeline.schema import EMBEDDING, map_column, score_column

_HEAVY = ("score__", "heatmap__", "heatmap_max__", EMBEDDING)
"""Prefixes of the columns that `images` leaves out unless they are named."""
_BATCH_BYTES = 32 * 2**20
_MOST_ROWS = 8192
Ids = NDArray[np.object_]
STATISTICS = ("cosine", "soft_iou", "shared_mass", "pearson")


def images(rows: Rows, columns: str | Sequence[str] | None, where: Where = None) -> pd.DataFrame:
    """One row per image; default all columns but scores, maps and embeddings."""
    if columns is None:
        columns = [name for name in rows.schema.names if not name.startswith(_HEAVY)]
    return _by_id(rows.table(list(dict.fromkeys([ID, *name_list(columns)])), where))


def scores(rows: Rows, names: Sequence[str], where: Where) -> pd.DataFrame:
    """One row per image, one column per query."""
    columns = [score_column(name) for name in names]
    table = rows.table([ID, *dict.fromkeys(columns)], where)
    return _by_id(table).reindex(columns=columns).set_axis(list(names), axis=1)


def top(rows: Rows, query: str, n: int, columns: str | Sequence[str], where: Where) -> pd.DataFrame:
    """The n images with the highest scores of a query, with some columns."""
    column = score_column(query)
    wanted = list(dict.fromkeys([ID, *name_list(columns), column]))
    return _by_id(rows.largest(column, n, wanted, where)).rename(columns={column: "score"})


def to_long(
    rows: Rows, runs: Mapping[str, Run], columns: str | Sequence[str], where: Where
) -> pd.DataFrame:
    """One row per (image, query): image_id, ``columns``, query, role, score, heatmap_max."""
    shown = list(dict.fromkeys([ID, *name_list(columns)]))
    needed = list(shown)
    for query, run in runs.items():
        needed.append(score_column(query))
        needed += [name for name in run.map_columns([query]) if not name.startswith(map_column(""))]
    table = rows.table(list(dict.fromkeys(needed)), where)
    roles = {query.name: str(query.role) for run in runs.values() for query in run.queries}
    frame = table.select(shown).to_pandas()
    long: pd.DataFrame = (
        pd.concat([frame] * len(runs), ignore_index=True) if runs else frame.iloc[:0].copy()
    )
    query_of_row = np.repeat(np.arange(len(runs)), table.num_rows)
    long["query"] = pd.Categorical.from_codes(query_of_row, pd.Index(list(runs)))
    long["role"] = pd.Categorical([roles[query] for query in runs])[query_of_row]
    long["score"] = _stacked([table[score_column(query)].to_numpy() for query in runs])
    long["heatmap_max"] = _stacked([run.peaks(table, query) for query, run in runs.items()])
    return long


@dataclass(frozen=True)
class Selection:
    """Which maps of which images are wanted.

    Attributes:
        rows: the rows of all images.
        runs: the run of each query.
        image_ids: which images, in this order; None for all, or for those that match.
        where: which images, if no ids are given.
    """

    rows: Rows
    runs: Mapping[str, Run]
    image_ids: Sequence[str] | None = None
    where: Where = None

    def __post_init__(self) -> None:
        if self.image_ids is not None and self.where is not None:
            raise UsageError("image_ids and where: expected one of them, found both")
        if isinstance(self.image_ids, str | pc.Expression | pd.DataFrame):
            kind = type(self.image_ids).__name__
            raise UsageError(
                f"image_ids: expected a list of ids, found a {kind}; a condition is passed as "
                "where=..., the ids of a frame are its .index"
            )

    @property
    def columns(self) -> list[str]:
        """Columns that have to be read."""
        names = [ID]
        for query, run in self.runs.items():
            names += run.map_columns([query])
        return list(dict.fromkeys(names))

    def table(self) -> pa.Table:
        """All rows at once."""
        if self.image_ids is None:
            return self.rows.table(self.columns, self.where)
        return self._with_ids(list(self.image_ids), self.columns)

    def batches(self, extra: Sequence[str] = ()) -> Iterator[pa.Table]:
        """The rows in batches whose decoded maps stay within a few tens of megabytes.

        Args:
            extra: further columns.

        Raises:
            UnknownNameError: a requested image does not exist.
        """
        columns = list(dict.fromkeys([*self.columns, *extra]))
        cells = sum(run.grid[0] * run.grid[1] for run in self.runs.values())
        rows = max(1, min(_MOST_ROWS, _BATCH_BYTES // (4 * max(1, cells))))
        if self.image_ids is None:
            yield from self.rows.batches(columns, self.where, rows)
            return
        ids = list(self.image_ids)
        for start in range(0, len(ids), rows):
            yield self._with_ids(ids[start : start + rows], columns)

    def _with_ids(self, ids: Sequence[str], columns: Sequence[str]) -> pa.Table:
        table = self.rows.select(ids, columns)
        if table[ID].null_count:
            missing = pa.array(ids).filter(table[ID].is_null().combine_chunks())
            raise UnknownNameError(
                f"no image {missing[0].as_py()!r} in {self.rows.name} ({len(missing)} of "
                f"{len(ids)} missing)"
            )
        return table


def maps(
    selection: Selection,
    *,
    normalized: bool = False,
    size: int | tuple[int, int] | None = None,
) -> tuple[Ids, Maps]:
    """ids (n,) and maps (n, h, w) of the one query of a selection, all in memory."""
    ((query, run),) = selection.runs.items()
    table = selection.table()
    return _ids(table), shaped(run.decode(table, query), normalized, size)


def iter_maps(selection: Selection, *, normalized: bool) -> Iterator[tuple[Ids, Maps]]:
    """ids (n,) and maps (n, queries, h, w) of a selection, batch by batch."""
    grids = {run.grid for run in selection.runs.values()}
    if len(grids) > 1:
        raise UsageError(
            f"iter_maps: expected queries with one grid, found {grids}; read them one at a time"
        )
    (grid,) = grids
    for table in selection.batches():
        decoded = np.empty((table.num_rows, len(selection.runs), *grid), np.float32)
        for number, (query, run) in enumerate(selection.runs.items()):
            decoded[:, number] = run.decode(table, query)
        yield _ids(table), shaped(decoded, normalized, None)


def compare(selection: Selection, query_a: str, query_b: str) -> pd.DataFrame:
    """Overlap statistics of the maps of two queries, by image_id."""
    first, second = selection.runs[query_a], selection.runs[query_b]
    if first.grid != second.grid:
        raise UsageError(
            f"compare: maps of {query_a} are {first.grid}, of {query_b} {second.grid} cells"
        )
    if first is not second and first.preprocess != second.preprocess:
        raise UsageError(
            f"compare: maps of {query_a} and {query_b} cover different parts of the images, "
            "because their runs resize differently"
        )
    parts = []
    for table in selection.batches(["width", "height"]):
        a, b = first.decode(table, query_a), second.decode(table, query_b)
        part = overlap(a, b, first.shown(table))
        parts.append(part.set_axis(pd.Index(_ids(table), name=ID), axis=0))
    if not parts:
        empty = np.zeros((0, *first.grid))
        return overlap(empty, empty).set_axis(pd.Index([], name=ID, dtype=str), axis=0)
    return pd.concat(parts)


def _by_id(table: pa.Table) -> pd.DataFrame:
    frame: pd.DataFrame = table.to_pandas()
    return frame.set_index(ID)


def _ids(table: pa.Table) -> Ids:
    return np.asarray(table[ID].to_numpy(), dtype=object)


def _stacked(columns: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.zeros(0, np.float32), *columns]).astype(np.float32)


def overlap(
    first: NDArray[np.floating],
    second: NDArray[np.floating],
    shown: NDArray[np.bool_] | None = None,
) -> pd.DataFrame:
    """Overlap statistics of n pairs of maps.

    With p and q the maps divided by their sums: ``cosine`` p.q / |p||q|, ``soft_iou``
    sum min(p, q) / sum max(p, q), ``shared_mass`` sum min(p, q), and ``pearson``, the correlation
    over the cells. Maps overlap by chance, and smooth maps more so (the cosine of independent maps
    is near 0.2 in the demo and near 0.8 for a coarse ViT), so compare with maps of other images,
    not with zero. Only Pearson's r of independent maps is 0, unless both prefer the same region,
    such as the centre.

    Args:
        first, second: (n, h, w), non-negative.
        shown: (n, h, w) cells to include; default all.

    Returns:
        n rows of `STATISTICS`; NaN where a map is missing or has no heat, and ``pearson`` also
        where a map is constant.
    """
    shape = len(first), math.prod(first.shape[1:])  # -1 is ambiguous when there are no maps
    included = (np.ones(first.shape, bool) if shown is None else shown).reshape(shape)
    p, q = (_mass(maps.reshape(shape), included) for maps in (first, second))
    smaller, larger = np.minimum(p, q).sum(axis=1), np.maximum(p, q).sum(axis=1)
    cells = np.maximum(included.sum(axis=1), 1)[:, None]
    p_, q_ = (
        np.where(included, mass - mass.sum(axis=1, keepdims=True) / cells, 0) for mass in (p, q)
    )
    values = (_cosine(p, q), smaller / larger, smaller, _cosine(p_, q_))
    return pd.DataFrame(dict(zip(STATISTICS, values, strict=True)))


def _mass(flat: NDArray[np.floating], included: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Each map divided by its sum; NaN for a map without heat."""
    heat = np.where(included, flat.astype(np.float64), 0)
    total = heat.sum(axis=1, keepdims=True)
    return heat / np.where(total > 0, total, np.nan)


def _cosine(p: NDArray[np.float64], q: NDArray[np.float64]) -> NDArray[np.float64]:
    norms = np.linalg.norm(p, axis=1) * np.linalg.norm(q, axis=1)
    tiny = norms <= 1e-12  # what is left of a constant map is rounding, not variation
    cosines: NDArray[np.float64] = (p * q).sum(axis=1) / np.where(tiny, np.nan, norms)
    return cosines
