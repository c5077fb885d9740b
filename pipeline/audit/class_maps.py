"""Mean maps of every class and query in one stream, and where a class's heat differs from all.

A stored map is bytes times a scale, so the sum over a class is one product of a sparse matrix
(class x image, holding the scales) with the bytes: no map is decoded by itself.
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
from pipeline.audit.aggregate import Population, Readable
from pipeline.audit.histogram_sums import Array
from pipeline.audit.split import folds
from pipeline.machine import cores
from pipeline.schema import Status, map_column, peak_column

_TOGETHER = 8  # queries read at once
_BATCH_ROWS = 16_384
_FINE = 1 << 30


@dataclass
class MapSums:
    """Sums over the maps of one query.

    Attributes:
        images: (K,) maps summed by class.
        sums: (K, cells) of their values.
        squares: (cells,) of the squared values of all classes.
    """

    images: Array
    sums: Array
    squares: Array

    @classmethod
    def empty(cls, classes: int, cells: int) -> "MapSums":
        """Nothing summed yet."""
        return cls(np.zeros(classes), np.zeros((classes, cells)), np.zeros(cells))

    def mean(self, code: int | None = None) -> Array:
        """(cells,) mean map of a class, or of all images; NaN where it has none."""
        images = self.images.sum() if code is None else self.images[code]
        total = self.sums.sum(axis=0) if code is None else self.sums[code]
        return total / images if images else np.full(len(total), np.nan)


@dataclass(frozen=True)
class Difference:
    """A class's mean map minus that of all images, (h, w), and which cells differ.

    Attributes:
        difference: in the units of the maps.
        t: the same in standard errors.
        p: two-sided, times the number of cells (Bonferroni), at most 1.
        images: maps of the class.
    """

    difference: Array
    t: Array
    p: Array
    images: int

    @property
    def differs(self) -> NDArray[np.bool_]:
        """(h, w) cells with p below .05: a fixed place, for this class and query."""
        return np.asarray(self.p < 0.05)


def difference(sums: MapSums, code: int, grid: tuple[int, int]) -> Difference:
    """Fixed-location test: ``t(u) = (mean_y(u) - mean(u)) / (s(u) sqrt(1/n_y - 1/n))``.

    ``s`` is the deviation over all images. Maps of one class vary less than that where the class
    has a shape of its own, so the test rather misses than invents.
    """
    images, every = float(sums.images[code]), float(sums.images.sum())
    gap = sums.mean(code) - sums.mean()
    variance = np.maximum(sums.squares / max(every, 1) - sums.mean() ** 2, 0)
    spread = max(1 / max(images, 1) - 1 / max(every, 1), 0.0)
    error = np.sqrt(variance * spread)
    t = np.where(error > 0, gap / np.where(error > 0, error, 1), 0.0)
    p = np.minimum(2 * norm.sf(np.abs(t)) * len(t), 1.0)
    return Difference(gap.reshape(grid), t.reshape(grid), p.reshape(grid), int(images))


@dataclass
class Sample:
    """Stored maps of some images of every class, small enough for the memory.

    Attributes:
        chances: (K,) share of each class's images that are taken, by hash of image_id.
        tables: rows by group of queries, as they were read.
    """

    chances: Array
    tables: dict[tuple[str, ...], list[pa.Table]] = field(default_factory=dict)

    @classmethod
    def of(cls, known: Population, each: int, total: int) -> "Sample":
        """Plan to take ``each`` images a class, ``total`` in all, more or less."""
        wanted = np.minimum(known.sizes, each).astype(np.float64)
        wanted *= min(1.0, total / max(wanted.sum(), 1))
        return cls(wanted / np.maximum(known.sizes, 1))

    def take(self, group: tuple[str, ...], table: pa.Table, codes: NDArray[np.int64]) -> None:
        """Keep those rows of a table that belong to the sample."""
        likely = np.flatnonzero(self.chances[codes] > 0)
        ids = table["image_id"].to_pylist()
        draw = folds([ids[row] for row in likely], _FINE) / _FINE
        rows = likely[draw < self.chances[codes[likely]]]
        if len(rows):
            self.tables.setdefault(group, []).append(table.take(pa.array(rows)))


def read_maps(
    results: Readable,
    known: Population,
    queries: Sequence[str],
    sample: Sample | None = None,
    columns: Sequence[str] = (),
) -> dict[str, MapSums]:
    """Sum the stored maps of some queries by class, a few queries at a time.

    Args:
        queries: names with map columns of their own (``own_label`` counts as one).
        sample: filled on the way.
        columns: further ones that the sample keeps.
    """
    found: dict[str, MapSums] = {}
    with ThreadPoolExecutor(cores()) as pool:
        for start in range(0, len(queries), _TOGETHER):
            group = tuple(queries[start : start + _TOGETHER])
            for query in group:
                cells = results.dataset.schema.field(map_column(query)).type.byte_width
                found[query] = MapSums.empty(len(known.classes), cells)
            for table in _tables(results, group, ["image_id", *columns] if sample else []):
                codes = known.codes(table["label"])
                list(pool.map(lambda q, t=table, c=codes: _add(found[q], t, q, c), group))
                if sample is not None:
                    sample.take(group, table, codes)
    return found


def _tables(results: Readable, queries: Sequence[str], extra: Sequence[str]) -> Iterator[pa.Table]:
    """Explained, labelled rows with maps, as a stream."""
    columns = ["label", "status", *extra]
    columns += [column(query) for query in queries for column in (map_column, peak_column)]
    scan = results.dataset.to_batches(
        columns=list(dict.fromkeys(columns)),
        batch_size=_BATCH_ROWS,
        batch_readahead=2,
        fragment_readahead=1,
    )
    for batch in scan:
        fine = pc.and_(pc.equal(batch["status"], str(Status.OK)), pc.is_valid(batch["label"]))
        table = pa.Table.from_batches([batch]).filter(fine)
        if table.num_rows:
            yield table


def _add(sums: MapSums, table: pa.Table, query: str, codes: NDArray[np.int64]) -> None:
    cells, scale = stored(table, query)
    there = np.isfinite(scale)
    weight = np.where(there, scale, 0).astype(np.float32)
    rows = np.arange(len(codes))
    shape = (len(sums.images), len(codes))
    values = cells.astype(np.float32)
    sums.images += np.bincount(codes[there], minlength=shape[0])
    sums.sums += sp.csr_matrix((weight, (codes, rows)), shape=shape) @ values
    np.multiply(values, values, out=values)
    sums.squares += (weight * weight) @ values


def stored(table: pa.Table, query: str) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """(n, cells) bytes and (n,) what one step of them is worth, NaN where there is no map."""
    column = table[map_column(query)].combine_chunks()
    if isinstance(column, pa.ChunkedArray):
        column = column.chunk(0) if column.num_chunks else pa.array([], column.type)
    size = column.type.byte_width
    _, data = column.buffers()
    raw = np.frombuffer(data or b"", dtype=np.uint8)
    cells = raw[column.offset * size : (column.offset + len(column)) * size].reshape(-1, size)
    peaks = table[peak_column(query)].to_numpy().astype(np.float32)
    there = pc.is_valid(column).to_numpy(zero_copy_only=False)
    return cells, np.where(there, peaks / LEVELS, np.nan).astype(np.float32)
