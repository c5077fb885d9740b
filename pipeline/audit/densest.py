"""Where most scores of a class lie: the shortest stretch with half of them."""

import numpy as np
from numpy.typing import NDArray

from pipeline.audit.histograms import HistogramSums
from pipeline.audit.inference import Array


def densest_parts(data: HistogramSums) -> tuple[Array, Array]:
    """(C,) robust deviation of one state, and (C, K) centre of each class's densest half."""
    bins = data.counts.shape[2]
    cumulated = np.pad(data.counts.cumsum(axis=2), ((0, 0), (0, 0), (1, 0)))
    half = data.images / 2
    spans = np.full(half.shape, bins)
    centre = data.mean.copy()
    step = data.centres[:, 1] - data.centres[:, 0]
    for span in np.unique(np.geomspace(1, bins, 40).astype(int))[::-1]:
        mass = cumulated[..., span:] - cumulated[..., :-span]
        start = mass.argmax(axis=2)
        enough = np.take_along_axis(mass, start[..., None], axis=2)[..., 0] >= half
        spans = np.where(enough, span, spans)
        middle = data.centres[:, :1] + (start + (span - 1) / 2) * step[:, None]
        centre = np.where(enough & (data.images > 0), middle, centre)
    large = data.images >= data.images.max(axis=1, keepdims=True) / 50
    width = _weighted_median(spans, np.where(large, data.images, 0)) * step / 1.349
    return np.maximum(width, data.floor), centre


def _weighted_median(values: NDArray[np.int64], weights: Array) -> Array:
    """(C,) weighted median of each row."""
    order = values.argsort(axis=1)
    cumulated = np.take_along_axis(weights, order, axis=1).cumsum(axis=1)
    middle = (cumulated < cumulated[:, -1:] / 2).sum(axis=1)
    ranked = np.take_along_axis(values, order, axis=1)
    result: Array = ranked[np.arange(len(values)), middle].astype(np.float64)
    return result
