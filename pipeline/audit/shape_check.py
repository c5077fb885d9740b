"""Are there two states, or one state with a long tail? A comparison without normal distributions.

Two normal states fit heavy or skewed tails better than one normal state does, so a gain in
likelihood over one normal state does not show that there are two. Here both sides may have any
unimodal shape: one state about the medians or the densest parts of the classes, against two or
three states that share one shape and lie where the mixture put them, or about the means of the
images that it counts to them. Shapes are the maximum-likelihood unimodal densities (Grenander 1956;
isotonic regression on either side of the mode) of scores standardised by class, so that neither
tails nor skewness nor classes of unequal spread can be taken for presence: only an emptier stretch
between two fuller ones counts. Shares and places that the data have to choose are paid for as in
Schwarz's criterion (1978); a class pays for a share of its own only where that is worth it.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

from pipeline.audit.histograms import HistogramSums
from pipeline.audit.inference import Array
from pipeline.audit.mixture import HIGH, LOW, MIDDLE, Mixture

LEAST_GAIN = 5.0
"""Gain that shows two states: odds of 150 to 1, after what the states' shares and places cost.

Absent cues with normal, exponential, log-normal and t-distributed scores (3 degrees of freedom) in
11 classes of 300, 1,000 or 3,000 images reached 4.7 once in 480 cues, and were below 1.2 otherwise.
"""
_STEP, _REACH = 0.25, 60.0  # of the grid of standardised scores
_GRID = np.arange(-_REACH, _REACH + _STEP / 2, _STEP)
_MODES = np.flatnonzero(np.abs(_GRID) <= 1.5)
_ROUNDS = 4  # of assigning images to states and estimating the shape
_EVERYWHERE = 1e-4  # mass of the shape that is spread over the whole grid
_PRIOR_IMAGES = 30.0  # that a class's own spread is shrunk by, towards the usual one
_CORE, _CORE_WIDTH = 1 / 3, 0.8615  # share of a class in its core; how wide in deviations (normal)


@dataclass(frozen=True)
class _Cells:
    """Histogram cells of a cue: counts (K, B), scores (B,), and each class's spread (K, 1)."""

    counts: Array
    scores: Array
    spread: Array


def gain_of_states(data: HistogramSums, found: Mixture, cue: int) -> float:
    """Log-likelihood of the mixture's states of one shape above a single state of any shape.

    Args:
        data: histograms of C cues.
        found: their fitted mixture, which says where the states lie.
        cue: index of one of them.
    """
    counts = data.counts[cue]
    filled = counts.sum(axis=1) > 0
    counts, scores = counts[filled], data.centres[cue]
    centre, width = _cores(counts, scores)
    images = counts.sum(axis=1)
    usual = np.log(np.median(width))
    log_spread = (images * np.log(width) + _PRIOR_IMAGES * usual) / (images + _PRIOR_IMAGES)
    cells = _Cells(counts, scores, np.maximum(np.exp(log_spread), 2 * data.floor[cue])[:, None])
    single = max(_one_state(cells, place) for place in (centre, _medians(counts, scores)))
    states = [MIDDLE, HIGH, LOW][: 3 if found.low[cue] else 2]
    shift = found.shift[cue][states][:, None, None]
    share = found.share[cue][filled][:, states].T[..., None]
    distance = scores - found.offset[cue][filled][None, :, None] - shift
    log = np.log(share) - 0.5 * (distance / found.deviation[cue]) ** 2
    weights = _posterior(log) * counts
    centred = distance - (weights * distance).sum(axis=(0, 2), keepdims=True) / weights.sum(
        axis=(0, 2), keepdims=True
    )
    return max(_several_states(cells, places, log) for places in (distance, centred)) - single


def _one_state(cells: _Cells, centre: Array) -> float:
    """Log-likelihood of one unimodal shape about the (K,) centres."""
    distance = (cells.scores - centre[:, None]) / cells.spread
    density = _at(_unimodal(_on_grid(distance, cells.counts)), distance) - np.log(cells.spread)
    return float((cells.counts * density).sum())


def _several_states(cells: _Cells, distance: Array, log: Array) -> float:
    """Penalised log-likelihood of S states with one unimodal shape.

    Args:
        cells: the histogram.
        distance: (S, K, B) distance of the scores from the centre of each state.
        log: (S, K, B) log of state and density to start from.
    """
    images = cells.counts.sum(axis=1)
    freed = len(distance) - 1
    value = -np.inf
    for _ in range(_ROUNDS):
        weights = _posterior(log) * cells.counts
        sizes = weights.sum(axis=2)
        shape = _unimodal(_on_grid(distance / cells.spread, weights))
        density = _at(shape, distance / cells.spread) - np.log(cells.spread)
        own = _mixed(density, (sizes + 0.5) / (images + 0.5 * len(distance)))
        common = np.repeat(sizes.sum(axis=1, keepdims=True) / images.sum(), len(images), axis=1)
        shared = _mixed(density, common)
        gain = [(cells.counts * _total(log)).sum(axis=1) for log in (own, shared)]
        gain[0] = gain[0] - 0.5 * freed * np.log(np.maximum(images, 2))
        log = np.where((gain[0] > gain[1])[:, None], own, shared)
        value = float(np.maximum(*gain).sum()) - freed * np.log(images.sum())
    return value


def _posterior(log: Array) -> Array:
    """(S, K, B) probability of each state, from the log of state and density."""
    odds = np.exp(log - log.max(axis=0))
    result: Array = odds / odds.sum(axis=0)
    return result


def _mixed(density: Array, share: Array) -> Array:
    """(S, K, B) log of share times density."""
    return density + np.log(np.maximum(share, 1e-12))[..., None]


def _total(log: Array) -> Array:
    """(K, B) log of the sum over states."""
    top = log.max(axis=0)
    result: Array = top + np.log(np.exp(log - top).sum(axis=0))
    return result


def _on_grid(positions: Array, weights: Array) -> Array:
    """Mass on the grid, each weight split between the two nearest points."""
    place = np.clip((positions + _REACH) / _STEP, 0, len(_GRID) - 1.001).ravel()
    left: NDArray[np.int64] = place.astype(np.int64)
    part, mass = place - left, np.broadcast_to(weights, positions.shape).ravel()
    lower: Array = np.bincount(left, mass * (1 - part), len(_GRID)).astype(np.float64)
    upper: Array = np.bincount(left + 1, mass * part, len(_GRID)).astype(np.float64)
    return lower + upper


def _at(log_density: Array, positions: Array) -> Array:
    result: Array = np.interp(positions, _GRID, log_density)
    return result


def _unimodal(mass: Array) -> Array:
    """Log of the likeliest unimodal density on the grid whose mode is near 0."""
    likeliest, best = -np.inf, mass
    for mode in _MODES:
        rising = isotonic_regression(mass[: mode + 1]).x
        falling = isotonic_regression(mass[mode + 1 :], increasing=False).x
        density = np.concatenate([rising, falling])
        likelihood = float(mass @ np.log(np.maximum(density, 1e-300)))
        if likelihood > likeliest:
            likeliest, best = likelihood, density
    density = (1 - _EVERYWHERE) * best / (mass.sum() * _STEP) + _EVERYWHERE / (2 * _REACH)
    result: Array = np.log(density)
    return result


def _medians(counts: Array, scores: Array) -> Array:
    """(K,) median score of each class, from counts (K, B)."""
    cumulated = counts.cumsum(axis=1)
    half = cumulated[:, -1:] / 2
    place = (cumulated < half).sum(axis=1)
    rows = np.arange(len(counts))
    inside = (half[:, 0] - cumulated[rows, place] + counts[rows, place]) / counts[rows, place]
    result: Array = scores[place] + (inside - 0.5) * (scores[1] - scores[0])
    return result


def _cores(counts: Array, scores: Array) -> tuple[Array, Array]:
    """(K,) centre of the shortest stretch with a third of a class's images, and its deviation.

    A third, so that it lies in one state even where two states hold half of the class each.
    """
    classes, bins = counts.shape
    step = scores[1] - scores[0]
    centre, width = np.empty(classes), np.empty(classes)
    starts = np.arange(bins)
    for row in range(classes):
        cumulated = np.concatenate([[0.0], counts[row].cumsum()])
        ends = np.searchsorted(cumulated, cumulated[:-1] + cumulated[-1] * _CORE)
        spans = np.where(ends <= bins, ends - starts, bins + 1)
        start = int(spans.argmin())
        centre[row] = scores[0] + (start + (spans[start] - 1) / 2) * step
        width[row] = max(int(spans[start]), 1) * step / _CORE_WIDTH
    return centre, width
