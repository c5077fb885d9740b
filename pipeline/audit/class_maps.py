"""Mean maps of every class and query in one stream, and where a class's heat differs from the rest.

A stored map is bytes times a scale, so the sum over a class is the product of a sparse matrix
(class x image, holding the scales) with the bytes; maps are not decoded one by one.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.stats import norm

from legrad.heatmaps.codec import LEVELS
from pipeline.audit.class_members import Members, is_labelled, label_columns
from pipeline.audit.inference import Array
from pipeline.audit.scores import Population, Readable
from pipeline.audit.split import folds
from pipeline.machine import cores
from pipeline.results import decoding
from pipeline.results.streamed import in_batches
from pipeline.schema import Status, map_column, peak_column

_QUERIES_AT_ONCE = 8
_BATCH_ROWS = 4096  # whose maps of a query as float32 stay in the processor's cache
_HASH_VALUES = 1 << 30  # steps of the hash that decides which images are sampled


@dataclass
class MapSums:
    """Sums over the maps of one query.

    Attributes:
        images: (K,) number of maps by class.
        sums: (K, cells) sum of the maps.
        squares: (cells,) sum of the squared values over all images.
        everyone: number and (cells,) sum of all maps, where images are in several classes; None
            where they are the sums over the classes.
    """

    images: Array
    sums: Array
    squares: Array
    everyone: tuple[float, Array] | None = None

    @classmethod
    def empty(cls, classes: int, cells: int) -> "MapSums":
        """Sums of no maps."""
        return cls(np.zeros(classes), np.zeros((classes, cells)), np.zeros(cells))

    def mean(self, code: int | None = None) -> Array:
        """(cells,) mean map of a class, or of all images; NaN if there are no maps."""
        images, total = self.every if code is None else (self.images[code], self.sums[code])
        return total / images if images else np.full(len(total), np.nan)

    @property
    def every(self) -> tuple[float, Array]:
        """Number and (cells,) sum of all maps."""
        return self.everyone or (float(self.images.sum()), self.sums.sum(axis=0))


@dataclass(frozen=True)
class Difference:
    """A class's mean map minus that of all images, (h, w), and which cells differ.

    Attributes:
        difference: mean map of the class minus that of all images, in the units of the maps.
        t: the difference in standard errors.
        p: two-sided p-value times the number of cells (Bonferroni), at most 1.
        images: number of maps of the class.
    """

    difference: Array
    t: Array
    p: Array
    images: int

    @property
    def differs(self) -> NDArray[np.bool_]:
        """(h, w) cells with p below .05: this class has more or less heat at a fixed location."""
        return np.asarray(self.p < 0.05)


def difference(sums: MapSums, code: int, grid: tuple[int, int]) -> Difference:
    """Test of each location: ``t(u) = (mean_y(u) - mean(u)) / (s(u) sqrt(1/n_y - 1/n))``.

    ``s`` is the standard deviation over all images. The test is conservative where the maps of the
    class vary less than all maps, and too optimistic where they vary more.
    """
    images, total = float(sums.images[code]), sums.every[0]
    gap = sums.mean(code) - sums.mean()
    variance = np.maximum(sums.squares / max(total, 1) - sums.mean() ** 2, 0)
    factor = max(1 / max(images, 1) - 1 / max(total, 1), 0.0)
    error = np.sqrt(variance * factor)
    t = np.where(error > 0, gap / np.where(error > 0, error, 1), 0.0)
    p = np.minimum(2 * norm.sf(np.abs(t)) * len(t), 1.0)
    return Difference(gap.reshape(grid), t.reshape(grid), p.reshape(grid), int(images))


@dataclass
class MapSample:
    """Stored maps of some images of every class, few enough to fit into memory.

    Attributes:
        chances: (K,) share of each class's images that are sampled, by a hash of image_id.
        tables: group of queries -> tables of the sampled rows.
    """

    chances: Array
    tables: dict[tuple[str, ...], list[pa.Table]] = field(default_factory=dict)

    @classmethod
    def of(cls, population: Population, each: int, total: int) -> "MapSample":
        """An empty sample for about ``each`` images of every class and ``total`` in all."""
        wanted = np.minimum(population.sizes, each).astype(np.float64)
        wanted *= min(1.0, total / max(wanted.sum(), 1))
        return cls(wanted / np.maximum(population.sizes, 1))

    def take(
        self, group: tuple[str, ...], table: pa.Table, codes: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Add the rows of a table that belong to the sample; returns their codes."""
        candidates = np.flatnonzero(self.chances[codes] > 0)
        ids = table["image_id"].to_pylist()
        draw = folds([ids[row] for row in candidates], _HASH_VALUES) / _HASH_VALUES
        rows = candidates[draw < self.chances[codes[candidates]]]
        if len(rows):
            self.tables.setdefault(group, []).append(table.take(pa.array(rows)))
        return codes[rows]


def read_maps(
    results: Readable,
    population: Population,
    queries: Sequence[str],
    sample: MapSample | None = None,
    columns: Sequence[str] = (),
) -> dict[str, MapSums]:
    """Sum the stored maps of some queries by class, a few queries at a time.

    Args:
        queries: names that have map columns, among them ``own_label``.
        sample: receives the maps of the sampled images.
        columns: other columns that the sample keeps.
    """
    sums: dict[str, MapSums] = {}
    with ThreadPoolExecutor(cores()) as pool:
        for start in range(0, len(queries), _QUERIES_AT_ONCE):
            group = tuple(queries[start : start + _QUERIES_AT_ONCE])
            for query in group:
                cells = results.dataset.schema.field(map_column(query)).type.byte_width
                sums[query] = MapSums.empty(len(population.classes), cells)
                if population.has_sets:
                    sums[query].everyone = (0.0, np.zeros(cells))
            for table in _tables(results, group, ["image_id", *columns] if sample else []):
                members, codes = population.members(table)
                list(pool.map(lambda q, t=table, m=members: _add(sums[q], t, q, m), group))
                if sample is not None:
                    sample.take(group, table, codes)
    return sums


def _tables(results: Readable, queries: Sequence[str], extra: Sequence[str]) -> Iterator[pa.Table]:
    """The columns of some maps, and others, of the explained rows with a label, as a stream."""
    columns = [*label_columns(results), "status", *extra]
    columns += [column(query) for query in queries for column in (map_column, peak_column)]
    for batch in in_batches(results.dataset, list(dict.fromkeys(columns)), _BATCH_ROWS):
        table = pa.Table.from_batches([batch])
        explained = pc.equal(table["status"], str(Status.OK))
        table = table.filter(pc.and_(explained, is_labelled(table)))
        if table.num_rows:
            yield table


def _add(sums: MapSums, table: pa.Table, query: str, members: Members) -> None:
    cells, scale = stored_maps(table, query)
    stored = np.isfinite(scale)
    weight = np.where(stored, scale, 0).astype(np.float32)
    rows, codes = members.rows, members.codes
    shape = (len(sums.images), table.num_rows)
    values = cells.astype(np.float32)
    sums.images += np.bincount(codes[stored[rows]], minlength=shape[0])
    sums.sums += sp.csr_matrix((weight[rows], (codes, rows)), shape=shape) @ values
    if sums.everyone is not None:
        count, total = sums.everyone
        sums.everyone = (count + float(stored.sum()), total + weight @ values)
    np.multiply(values, values, out=values)
    sums.squares += (weight * weight) @ values


def stored_maps(table: pa.Table, query: str) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """(n, cells) bytes of the maps and (n,) the heat of one step; NaN where there is no map."""
    cells, peaks = decoding.stored_maps(table, query)
    return cells, peaks / np.float32(LEVELS)
