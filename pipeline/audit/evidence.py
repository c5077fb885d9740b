"""Claim B, described: does the class's own heat lie on the cue? No test of reliance, never a gate.

Smooth maps overlap by chance, and all of them share a place they prefer. So the overlap of class
and cue map is compared with the same class map against the cue map of *another* image of the
class, and shown as a rank among the class's decoys, which overlap for no reason.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.audit.aggregate import Population
from pipeline.audit.class_maps import Sample, stored
from pipeline.audit.enrichment import heat_enrichment
from pipeline.audit.histogram_sums import Array
from pipeline.audit.presence import Presence
from pipeline.results.results import Results
from pipeline.schema import map_column, score_column

_Z = 1.959964
_LEAST = 3  # images from which an interval is given
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

    Attributes:
        codes: (n,) class of each image.
        own: (n, cells) map of the image's own class, NaN where it has none.
    """

    def __init__(
        self, results: Results, known: Population, sample: Sample, own: Mapping[int, str]
    ) -> None:
        self.grid = results.grid
        self.groups = {group: pa.concat_tables(parts) for group, parts in sample.tables.items()}
        first = next(iter(self.groups.values()))
        self.codes = known.codes(first["label"])
        self.shown = results.shown(first).reshape(len(self.codes), -1)
        self.own = self._own(own)

    def maps(self, query: str) -> Array:
        """(n, cells) raw maps of one query; NaN where there is none."""
        for group, table in self.groups.items():
            if query in group:
                cells, scale = stored(table, query)
                return cells.astype(np.float64) * scale[:, None]
        return np.full(self.shown.shape, np.nan)

    def scores(self, query: str) -> Array:
        """(n,) of one query."""
        for table in self.groups.values():
            if score_column(query) in table.column_names:
                result: Array = table[score_column(query)].to_numpy().astype(np.float64)
                return result
        raise KeyError(query)

    def _own(self, own: Mapping[int, str]) -> Array:
        found = np.full(self.shown.shape, np.nan)
        for query in set(own.values()):
            rows = np.isin(self.codes, [code for code, name in own.items() if name == query])
            found[rows] = self.maps(query)[rows]
        return found

    def frame(self, known: Population, presence: Presence) -> pd.DataFrame:
        """A row a (class, cue) with maps: overlap excess and heat on the cue, with 95 % bounds."""
        own = _centred(self.own)
        rows = []
        for place, cue in enumerate(presence.histograms.cues):
            if not any(map_column(cue) in table.column_names for table in self.groups.values()):
                continue
            guide = self.maps(cue)
            other = _centred(guide)
            having = presence.of(place, self.codes, self.scores(cue)) > 0.5
            having &= bool(presence.measured[place])
            heat = heat_enrichment(
                self.own[:, :, None].astype(np.float32),
                np.nan_to_num(guide)[:, :, None].astype(np.float32),
                shown=self.shown[:, :, None],
            )
            for code in range(known.audited):
                mine = np.flatnonzero(self.codes == code)
                mine = mine[np.isfinite(own[mine, 0]) & np.isfinite(other[mine, 0])]
                excess = overlap_excess(own[mine], other[mine])
                warm = heat[mine][having[mine]]
                warm = warm[np.isfinite(warm)]
                label = known.classes[code]
                row = [label, cue, len(mine), *_mean(excess), *_mean(warm), len(warm)]
                rows.append(row)
        return pd.DataFrame(rows, columns=["class", "cue", *COLUMNS])


def overlap_excess(own: Array, other: Array) -> Array:
    """(n,) correlation of class and cue map of an image, minus that with another image's cue map.

    Args:
        own, other: (n, cells) centred maps; the other image is the next one of the class.

    Returns:
        Empty for fewer than two images.
    """
    if len(own) < 2:
        return np.zeros(0)
    return _correlation(own, other) - _correlation(own, np.roll(other, 1, axis=0))


def _correlation(a: Array, b: Array) -> Array:
    product = np.einsum("nc,nc->n", a, b)
    scale = np.sqrt(np.einsum("nc,nc->n", a, a) * np.einsum("nc,nc->n", b, b))
    return np.where(scale > 0, product / np.where(scale > 0, scale, 1), 0.0)


def _centred(maps: Array) -> Array:
    """Doubly: each map brought to sum 1 and less its mean, then less the mean map of all images."""
    total = maps.sum(axis=1, keepdims=True)
    shares = np.divide(maps, total, out=np.zeros_like(maps), where=total > 0)
    there = np.isfinite(maps[:, 0])
    shares -= shares.mean(axis=1, keepdims=True)
    if there.any():
        shares -= shares[there].mean(axis=0)
    shares[~there] = np.nan
    result: Array = shares
    return result


def _mean(values: Array) -> tuple[float, float, float]:
    """Mean and 95 % bounds by the normal; NaN for too few."""
    if len(values) < _LEAST:
        return (float(values.mean()) if len(values) else np.nan, np.nan, np.nan)
    mean, error = float(values.mean()), float(values.std(ddof=1)) / np.sqrt(len(values))
    return (mean, mean - _Z * error, mean + _Z * error)


def with_ranks(frame: pd.DataFrame) -> pd.DataFrame:
    """Add ``overlap_rank``: share of the class's decoys whose overlap excess is below its own."""
    frame = frame.copy()
    ranks = np.full(len(frame), np.nan)
    excess = frame["overlap_excess"].to_numpy(float)
    fake = frame["decoy"].to_numpy(bool)
    for places in frame.groupby("class", sort=False).indices.values():
        mine = excess[places]
        decoys = np.sort(mine[fake[places] & np.isfinite(mine)])
        if len(decoys):
            below = np.searchsorted(decoys, mine) / len(decoys)
            ranks[places] = np.where(np.isfinite(mine), below, np.nan)
    frame["overlap_rank"] = ranks
    return frame


def heat_on_regions(maps: NDArray[np.float32], regions: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(n,) mean heat on true regions over the mean heat of the whole image; 1 is average.

    Args:
        maps: (n, h, w).
        regions: (n, H, W) masks or filled boxes, H and W multiples of h and w. A cell counts by the
            share of it that the region covers.

    Returns:
        NaN for an empty region or a map without heat.

    Raises:
        ValueError: the sides do not fit.
    """
    (count, h, w), (height, width) = maps.shape, regions.shape[1:]
    if height % h or width % w:
        raise ValueError(f"regions {height} x {width}: expected multiples of the grid {h} x {w}")
    cover = regions.reshape(count, h, height // h, w, width // w).mean(axis=(2, 4))
    area, mean = cover.sum(axis=(1, 2)), maps.mean(axis=(1, 2), dtype=np.float64)
    usable = (area > 0) & (mean > 0)
    inside = (maps * cover).sum(axis=(1, 2)) / np.where(area > 0, area, 1)
    return np.where(usable, inside / np.where(usable, mean, 1), np.nan)


def heat_by_image(
    results: Results, query: str, regions: Mapping[str, NDArray[np.bool_]]
) -> pd.Series:
    """Heat of a query on true regions (H, W) by image_id, see `heat_on_regions`."""
    ids, found = results.maps(query, list(regions))
    values = [
        heat_on_regions(heat[None], regions[str(i)][None].astype(bool))[0]
        for i, heat in zip(ids, found, strict=True)
    ]
    return pd.Series(values, index=pd.Index(ids, name="image_id"), dtype=float)
