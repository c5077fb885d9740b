"""Overlap statistics: how similar two maps of one image are."""

import math

import numpy as np
import pandas as pd
from numpy.typing import NDArray

STATISTICS = ("cosine", "soft_iou", "shared_mass", "pearson")


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
