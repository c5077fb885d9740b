"""The scores of a class without two states: its shape, its likelihood, and where most scores lie.

The shape of a state, here and in `mixture`, is Student's t-distribution with 5 degrees of freedom.
It resembles a normal distribution in its core, and a score far from all others neither drags it
along nor needs a state of its own (Peel and McLachlan 2000). With 5 degrees the density is a power
of 3 in the squared distance, heavy enough for what scores showed.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

from pipeline.audit.histograms import HistogramSums
from pipeline.audit.inference import Array

DEGREES = 5.0
POWER = (DEGREES + 1) / 2
SCALE_OF_NORMAL = 0.8566
"""Scale of the likeliest such distribution for normal scores of deviation 1."""
LOG_CONSTANT = float(gammaln(POWER) - gammaln(DEGREES / 2) - 0.5 * np.log(DEGREES * np.pi))
_STEPS = 20


def log_density(squares: Array) -> Array:
    """Log density at squared distances in scales, of a distribution with scale 1."""
    result: Array = LOG_CONSTANT - POWER * np.log1p(squares / DEGREES)
    return result


def weights_of(squares: Array) -> Array:
    """How much scores at squared distances count in the fit: 1.2 in the middle, less outside."""
    result: Array = (DEGREES + 1) / (DEGREES + squares)
    return result


def likelihoods(data: HistogramSums, sigma: Array) -> Array:
    """(C, K) log-likelihood of each class as one distribution of scale (C,) about its mean."""
    squares = ((data.centres[:, None, :] - data.mean[..., None]) / sigma[:, None, None]) ** 2
    density = log_density(squares) - np.log(sigma)[:, None, None]
    result: Array = np.einsum("ckb,ckb->ck", data.counts, density)
    return result


def likeliest_sigma(data: HistogramSums) -> Array:
    """(C,) likeliest scale of one distribution about the class means."""
    images = np.maximum(data.images.sum(axis=1), 1)
    sigma: Array = np.maximum(np.sqrt(data.within / images), data.floor)
    squares = (data.centres[:, None, :] - data.mean[..., None]) ** 2
    for _ in range(_STEPS):
        weights = data.counts * weights_of(squares / sigma[:, None, None] ** 2)
        total = np.maximum(weights.sum(axis=(1, 2)), 1e-9)
        variance = np.einsum("ckb,ckb->c", weights, squares) / total
        sigma = np.maximum(np.sqrt(variance), data.floor)
    return sigma


def densest_parts(data: HistogramSums) -> tuple[Array, Array]:
    """(C,) robust deviation of one state, and (C, K) centre of each class's densest half.

    That is the shortest stretch with half of its scores.
    """
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
