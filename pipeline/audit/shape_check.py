"""Are there two states, or one state with a long tail? A comparison without normal distributions.

Two normal states fit heavy or skewed tails better than one normal state does, so a gain in
likelihood over one normal state does not show that there are two. Here both sides may have any
unimodal shape: one state, against two or three states that share one shape and lie where the
mixture put them. Shapes are the maximum-likelihood unimodal densities (Grenander 1956; isotonic
regression on either side of the mode) of scores standardised by class, so that neither tails nor
skewness nor classes of unequal spread can be taken for presence: only an emptier stretch between
two fuller ones counts. Shares and places that the data have to choose are paid for as in Schwarz's
criterion (1978); a class pays for a share of its own only where that is worth it.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

from pipeline.audit.inference import Array
from pipeline.audit.mixture import HIGH, LOW, MIDDLE, Mixture
from pipeline.audit.scores import HistogramSums

_STEP, _REACH = 0.25, 60.0  # of the grid of standardised scores
_GRID = np.arange(-_REACH, _REACH + _STEP / 2, _STEP)
_MODES = np.flatnonzero(np.abs(_GRID) <= 1.5)
_ROUNDS = 4  # of assigning images to states and estimating the shape
_EVERYWHERE = 1e-4  # mass of the shape that is spread over the whole grid
_PRIOR_IMAGES = 20.0  # that a class's own spread is shrunk by, towards the usual one
_HALF_TO_DEVIATION = 1.349  # width of a normal distribution's densest half, in deviations


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
    centre, width = _densest_halves(counts, scores)
    images = counts.sum(axis=1)
    usual = np.log(np.median(width))
    log_spread = (images * np.log(width) + _PRIOR_IMAGES * usual) / (images + _PRIOR_IMAGES)
    cells = _Cells(counts, scores, np.maximum(np.exp(log_spread), 2 * data.floor[cue])[:, None])
    single = (scores - centre[:, None]) / cells.spread
    density = _at(_unimodal(_on_grid(single, counts)), single) - np.log(cells.spread)
    return _several_states(cells, found, cue, filled) - float((counts * density).sum())


def _several_states(cells: _Cells, found: Mixture, cue: int, filled: NDArray[np.bool_]) -> float:
    """Penalised log-likelihood of the mixture's states with one unimodal shape."""
    states = [MIDDLE, HIGH, LOW][: 3 if found.low[cue] else 2]
    offset = found.offset[cue][filled][None, :, None]
    shift = found.shift[cue][states][:, None, None]
    distance = cells.scores - offset - shift
    log_share = np.log(found.share[cue][filled][:, states].T)[..., None]
    log = log_share - 0.5 * (distance / found.sigma[cue]) ** 2
    images = cells.counts.sum(axis=1)
    freed = len(states) - 1
    value = -np.inf
    for _ in range(_ROUNDS):
        posterior = np.exp(log - log.max(axis=0))
        weights = posterior / posterior.sum(axis=0) * cells.counts
        sizes = weights.sum(axis=2)
        shape = _unimodal(_on_grid(distance / cells.spread, weights))
        density = _at(shape, distance / cells.spread) - np.log(cells.spread)
        own = _mixed(density, (sizes + 0.5) / (images + 0.5 * len(states)))
        common = np.repeat(sizes.sum(axis=1, keepdims=True) / images.sum(), len(images), axis=1)
        shared = _mixed(density, common)
        gain = [(cells.counts * _total(log)).sum(axis=1) for log in (own, shared)]
        gain[0] = gain[0] - 0.5 * freed * np.log(np.maximum(images, 2))
        log = np.where((gain[0] > gain[1])[:, None], own, shared)
        value = float(np.maximum(*gain).sum()) - freed * np.log(images.sum())
    return value


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


def _densest_halves(counts: Array, scores: Array) -> tuple[Array, Array]:
    """(K,) centre of the shortest stretch with half of a class's images, and its deviation."""
    classes, bins = counts.shape
    step = scores[1] - scores[0]
    centre, width = np.empty(classes), np.empty(classes)
    starts = np.arange(bins)
    for row in range(classes):
        cumulated = np.concatenate([[0.0], counts[row].cumsum()])
        ends = np.searchsorted(cumulated, cumulated[:-1] + cumulated[-1] / 2)
        spans = np.where(ends <= bins, ends - starts, bins + 1)
        start = int(spans.argmin())
        centre[row] = scores[0] + (start + (spans[start] - 1) / 2) * step
        width[row] = max(int(spans[start]), 1) * step / _HALF_TO_DEVIATION
    return centre, width
