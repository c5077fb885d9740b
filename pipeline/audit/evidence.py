"""Heat as evidence: does the heat of a class lie on the cue? It is described and decides nothing.

Smooth maps overlap by chance, and all of them prefer the same part of the image. So the overlap of
the class map and the cue map is compared with that of the same class map and the cue map of
*another* image of the class, and ranked among the class's decoys, which overlap by chance only.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from legrad.preprocess import Box
from pipeline.audit.class_maps import MapSample, stored_maps
from pipeline.audit.inference import Array, mean_interval
from pipeline.audit.presence import Presence
from pipeline.audit.scores import Population
from pipeline.results.results import Results
from pipeline.schema import map_column, score_column

CUE_REGION = 0.10
"""Share of the cells that count as the cue: the hottest of its map."""
COLUMNS = (
    "maps",
    "overlap_excess",
    "overlap_low",
    "overlap_high",
    "heat_on_cue",
    "heat_on_cue_low",
    "heat_on_cue_high",
    "heat_images",
)


class Evidence:
    """Maps of a sample of images, compared class by class.

    Args:
        class_maps: code of a class -> name of its maps, see `Names.class_maps`.

    An image with several labels is compared once with each of its classes.

    Attributes:
        codes: (n,) class of each image.
        fitted: (n,) class with which its presence is computed.
        of_class: (n, cells) map of the image's class; NaN where there is none.
    """

    def __init__(
        self,
        results: Results,
        population: Population,
        sample: MapSample,
        class_maps: Mapping[int, str],
    ) -> None:
        self.grid = results.grid
        self.groups = {group: pa.concat_tables(parts) for group, parts in sample.tables.items()}
        members, fitted = population.members(next(iter(self.groups.values())))
        self.codes, self.fitted = members.codes, fitted[members.rows]
        if population.has_sets:
            rows = pa.array(members.rows)
            self.groups = {group: table.take(rows) for group, table in self.groups.items()}
        first = next(iter(self.groups.values()))
        self.shown = results.shown(first).reshape(len(self.codes), -1)
        self.of_class = self._of_class(class_maps)

    def maps(self, query: str) -> Array:
        """(n, cells) raw maps of one query; NaN where there are none."""
        for group, table in self.groups.items():
            if query in group:
                cells, scale = stored_maps(table, query)
                return cells.astype(np.float64) * scale[:, None]
        return np.full(self.shown.shape, np.nan)

    def scores(self, query: str) -> Array:
        """(n,) scores of one query."""
        for table in self.groups.values():
            if score_column(query) in table.column_names:
                result: Array = table[score_column(query)].to_numpy().astype(np.float64)
                return result
        raise KeyError(query)

    def _of_class(self, class_maps: Mapping[int, str]) -> Array:
        maps = np.full(self.shown.shape, np.nan)
        for query in set(class_maps.values()):
            codes = [code for code, name in class_maps.items() if name == query]
            rows = np.isin(self.codes, codes)
            maps[rows] = self.maps(query)[rows]
        return maps

    def frame(self, population: Population, presence: Presence) -> pd.DataFrame:
        """One row per (class, cue) with maps: class, cue, and `COLUMNS`; bounds are 95 %."""
        of_class = _centred(self.of_class)
        rows = []
        for index, cue in enumerate(presence.histograms.cues):
            if not any(map_column(cue) in table.column_names for table in self.groups.values()):
                continue
            cue_maps = self.maps(cue)
            of_cue = _centred(cue_maps)
            present = presence.of(index, self.fitted, self.scores(cue)) > 0.5
            present &= bool(presence.measured[index])
            heat = heat_enrichment(
                self.of_class[:, :, None].astype(np.float32),
                np.nan_to_num(cue_maps)[:, :, None].astype(np.float32),
                shown=self.shown[:, :, None],
            )
            for code in range(population.audited):
                images = np.flatnonzero(self.codes == code)
                both = np.isfinite(of_class[images, 0]) & np.isfinite(of_cue[images, 0])
                images = images[both]
                excess = mean_interval(overlap_excess(of_class[images], of_cue[images]))
                on_cue = heat[images][present[images]]
                on_cue = on_cue[np.isfinite(on_cue)]
                counts = (len(images), len(on_cue))
                row = [counts[0], *excess, *mean_interval(on_cue), counts[1]]
                rows.append([population.classes[code], cue, *row])
        return pd.DataFrame(rows, columns=["class", "cue", *COLUMNS])


def overlap_excess(of_class: Array, of_cue: Array) -> Array:
    """(n,) correlation of an image's class and cue maps, minus that with another image's cue map.

    Args:
        of_class, of_cue: (n, cells) centred maps of images of one class; the other image is the
            previous one.

    Returns:
        Empty for fewer than two images.
    """
    if len(of_class) < 2:
        return np.zeros(0)
    elsewhere = np.roll(of_cue, 1, axis=0)
    return _correlation(of_class, of_cue) - _correlation(of_class, elsewhere)


def _correlation(a: Array, b: Array) -> Array:
    product = np.einsum("nc,nc->n", a, b)
    scale = np.sqrt(np.einsum("nc,nc->n", a, a) * np.einsum("nc,nc->n", b, b))
    return np.where(scale > 0, product / np.where(scale > 0, scale, 1), 0.0)


def _centred(maps: Array) -> Array:
    """Centre maps twice: scaled to sum 1, less the map's mean, less the mean map of all images."""
    total = maps.sum(axis=1, keepdims=True)
    shares = np.divide(maps, total, out=np.zeros_like(maps), where=total > 0)
    stored = np.isfinite(maps[:, 0])
    shares -= shares.mean(axis=1, keepdims=True)
    if stored.any():
        shares -= shares[stored].mean(axis=0)
    shares[~stored] = np.nan
    result: Array = shares
    return result


def with_ranks(frame: pd.DataFrame) -> pd.DataFrame:
    """Add ``overlap_rank``: share of the class's decoys with a smaller overlap excess."""
    frame = frame.copy()
    ranks = np.full(len(frame), np.nan)
    excess = frame["overlap_excess"].to_numpy(float)
    decoy = frame["decoy"].to_numpy(bool)
    for rows in frame.groupby("class", sort=False).indices.values():
        in_class = excess[rows]
        of_decoys = np.sort(in_class[decoy[rows] & np.isfinite(in_class)])
        if len(of_decoys):
            below = np.searchsorted(of_decoys, in_class) / len(of_decoys)
            ranks[rows] = np.where(np.isfinite(in_class), below, np.nan)
    frame["overlap_rank"] = ranks
    return frame


def heat_enrichment(
    heat: NDArray[np.float32],
    region_of: NDArray[np.float32],
    share: float = CUE_REGION,
    shown: NDArray[np.bool_] | None = None,
) -> Array:
    """Mean heat on the hottest cells of another map, over the mean heat of the image; 1 is average.

    Args:
        heat: (n, h, w) maps whose heat is measured.
        region_of: (n, h, w) maps whose hottest ``share`` of cells is the region.
        shown: (n, h, w) cells that show the image, see `Results.shown`; default all.

    Returns:
        (n,); NaN where either map is missing or zero everywhere.
    """
    count, cells_of_map = len(heat), int(np.prod(heat.shape[1:]))
    flat = heat.reshape(count, cells_of_map).astype(np.float64)
    guide = region_of.reshape(count, cells_of_map)
    counted = np.ones(flat.shape, bool) if shown is None else shown.reshape(flat.shape)
    cells = counted.sum(axis=1)
    order = np.argsort(np.where(counted, -guide, np.inf), axis=1, kind="stable")
    wanted = np.maximum(1, np.rint(share * cells))
    top = np.arange(flat.shape[1]) < wanted[:, None]
    inside = np.where(top, np.take_along_axis(flat, order, axis=1), 0).sum(axis=1) / wanted
    average = np.where(counted, flat, 0).sum(axis=1) / np.maximum(cells, 1)
    usable = (average > 0) & (guide.max(axis=1) > 0)
    return np.where(usable, inside / np.where(usable, average, 1), np.nan)


def heat_on_region(heat: NDArray[np.float32], cover: NDArray[np.floating]) -> float:
    """Mean heat on a true region over the mean heat of the image; 1 is average.

    Args:
        heat: (h, w) cells that show the image.
        cover: (h, w) share of each cell that the region covers.

    Returns:
        NaN for an empty region or a map without heat.
    """
    area, mean = cover.sum(), heat.mean(dtype=np.float64)
    return float((heat * cover).sum() / area / mean) if area > 0 and mean > 0 else float("nan")


def covered(region: NDArray[np.bool_], box: Box, grid: tuple[int, int]) -> Array:
    """The share of each cell that a region covers.

    Args:
        region: (H, W) mask or filled box.
        box: the part of the mask that the grid shows, in its pixels; may reach beyond it.
        grid: (h, w).

    Returns:
        (h, w).
    """
    left, top, right, bottom = box
    by_row = _sums_between(region.astype(np.float64), np.linspace(top, bottom, grid[0] + 1))
    sums = _sums_between(by_row.T, np.linspace(left, right, grid[1] + 1)).T
    return sums * grid[0] * grid[1] / ((bottom - top) * (right - left))


def _sums_between(values: Array, edges: Array) -> Array:
    """Sums of the rows (n, m) between edges (k,), which may lie within a row: (k - 1, m)."""
    sums = np.concatenate([np.zeros((1, values.shape[1])), values.cumsum(axis=0)])
    at = np.clip(edges, 0, len(values))
    row = np.minimum(at.astype(int), len(values) - 1)
    part = (at - row)[:, None]
    return np.diff(sums[row] * (1 - part) + sums[row + 1] * part, axis=0)


def heat_by_image(
    results: Results, query: str, regions: Mapping[str, NDArray[np.bool_]]
) -> pd.Series:
    """Heat of a query on true regions, by image_id: see `heat_on_region`.

    Args:
        regions: image_id -> (H, W) mask of the whole image, at any size.
    """
    ids, maps = results.maps(query, list(regions))
    values = []
    for image_id, heat in zip(ids, maps, strict=True):
        region = regions[str(image_id)].astype(bool)
        height, width = region.shape
        preprocess = results.preprocess
        cells = preprocess.cells(width, height, results.grid)
        cover = covered(region, preprocess.box(width, height), results.grid)
        values.append(heat_on_region(heat[cells], cover[cells]))
    return pd.Series(values, index=pd.Index(ids, name="image_id"), dtype=float)
