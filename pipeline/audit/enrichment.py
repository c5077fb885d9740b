"""Heat on a region against the average of its map."""

import numpy as np
from numpy.typing import NDArray

CUE_REGION = 0.10


def heat_enrichment(
    heat: NDArray[np.float32],
    region_of: NDArray[np.float32],
    share: float = CUE_REGION,
    shown: NDArray[np.bool_] | None = None,
) -> NDArray[np.float64]:
    """Mean of (n, h, w) heat on the top cells of another map, over its mean; 1 is average.

    Args:
        heat: maps whose heat is measured.
        region_of: maps whose strongest ``share`` of cells is the region.
        shown: (n, h, w) cells that count, `Results.shown`; default all.

    Returns:
        (n,); NaN where either map is constant zero, or there is none.
    """
    flat = heat.reshape(len(heat), -1).astype(np.float64)
    guide = region_of.reshape(len(region_of), -1)
    counted = np.ones(flat.shape, bool) if shown is None else shown.reshape(flat.shape)
    cells = counted.sum(axis=1)
    order = np.argsort(np.where(counted, -guide, np.inf), axis=1, kind="stable")
    wanted = np.maximum(1, np.rint(share * cells))
    top = np.arange(flat.shape[1]) < wanted[:, None]
    inside = np.where(top, np.take_along_axis(flat, order, axis=1), 0).sum(axis=1) / wanted
    average = np.where(counted, flat, 0).sum(axis=1) / np.maximum(cells, 1)
    usable = (average > 0) & (guide.max(axis=1) > 0)
    return np.where(usable, inside / np.where(usable, average, 1), np.nan)
