"""A mixture of states whose distances are common to all classes, with an offset of every class.

A score is ``mu_y + d z - g w + e``: the object shifts the score of every prompt (mu_y), the cue
raises it (d), and something that the model takes for its opposite may lower it (g, where the data
show such a state). A mixture without the offsets would mistake a class's shift for presence. States
have Student's t-distribution with 5 degrees of freedom, because a few scores far from all others
would drag a normal state along, or would make one of their own (Peel and McLachlan 2000). It is
fitted to histograms, so the work depends on classes and bins and not on the number of images.
scikit-learn's GaussianMixture fits neither histograms nor offsets by class, so the fit is ours.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from pipeline.audit.histograms import HistogramSums
from pipeline.audit.inference import Array
from pipeline.audit.one_state import (
    DEGREES,
    LOG_CONSTANT,
    POWER,
    SCALE_OF_NORMAL,
    densest_parts,
)

LOW, MIDDLE, HIGH = range(3)
_TWO = tuple((d, 0.0) for d in (1.5, 3.0, 5.0, 8.0, 12.0, 18.0, 27.0, 40.0))
_THREE = tuple((d, d * ratio) for d in (3.0, 6.0, 12.0, 24.0) for ratio in (0.5, 1.0, 2.0))
"""Distances up and down that the fit starts from, in robust standard deviations of one state."""
_LEADING_CLASSES = 64  # the largest ones, which decide where the states are
_FIRST_STEPS = 8
_MOST_STEPS = 200
_LAST_STEPS = 6
_PATIENCE = 25  # steps after which a fit is left as it is where its states lie
_HOPELESS = 2.0  # deviations apart or less, half of what presence needs
_SETTLED = 1e-3  # change of a log-likelihood
_PREFERENCE = 5.0  # log-likelihood in favour of starting a class in the middle state
_OTHER_STATES = 0.1  # share of a class that starts outside its main state
_NEVER = 1e-30


@dataclass(frozen=True)
class Mixture:
    """Mixtures fitted to C cues in K classes. The states are `LOW`, `MIDDLE` and `HIGH`.

    Attributes:
        offset: (C, K) mean score of the middle state, in which the cue is absent and nothing
            lowers the score.
        shift: (C, 3) distances of the states from the middle one: low <= 0, 0, high >= 0.
        sigma: (C,) scale of a state's t-distribution; see `deviation`.
        share: (C, K, 3) share of the class's images in each state.
        low: (C,) whether there is a low state.
    """

    offset: Array
    shift: Array
    sigma: Array
    share: Array
    low: NDArray[np.bool_]

    @property
    def distance(self) -> Array:
        """(C,) how far the cue raises the score."""
        return self.shift[:, HIGH]

    @property
    def deviation(self) -> Array:
        """(C,) standard deviation of normal scores whose fitted scale is ``sigma``."""
        return self.sigma / SCALE_OF_NORMAL

    @property
    def threshold(self) -> Array:
        """(C, K) score from which high is likelier than middle, between the two states."""
        d = np.maximum(self.distance, 1e-9 * self.sigma)[:, None] / self.sigma[:, None]
        r = (self.share[..., MIDDLE] / self.share[..., HIGH]) ** (1 / POWER)
        root = np.sqrt(np.maximum(r * d**2 - DEGREES * (1 - r) ** 2, 0))
        x = np.clip((r * d**2 - DEGREES * (1 - r)) / (r * d + root), 0, d)
        return self.offset + x * self.sigma[:, None]

    def nearness(self, centres: Array) -> Array:
        """(S, C, K, B) 1 / (1 + squared distance from the state in scales / degrees of freedom).

        S is 3, or 2 without the low state where no cue has one. The states come first, because
        numpy adds up whole arrays much faster than it sums over a last axis of three.
        """
        scale = self.sigma * np.sqrt(DEGREES)
        shift = self.shift[:, self._first :].T / scale
        away = (centres[:, None, :] - self.offset[..., None]) / scale[:, None, None]
        result: Array = away - shift[..., None, None]
        np.square(result, out=result)
        result += 1
        return np.reciprocal(result, out=result)

    def odds(self, nearness: Array) -> Array:
        """(S, C, K, B) density of state and score, up to the factor `log_factor`."""
        result = nearness**2  # the density is the third power, see `pipeline.audit.one_state`
        result *= nearness
        result *= np.moveaxis(self.share[..., self._first :], 2, 0)[..., None]
        return result

    @property
    def log_factor(self) -> Array:
        """(C,) logarithm of what turns `odds` into densities."""
        result: Array = LOG_CONSTANT - np.log(self.sigma)
        return result

    def present(self, centres: Array) -> Array:
        """(C, K, B) probability of the high state given a score, at scores (C, B)."""
        odds = self.odds(self.nearness(centres))
        result: Array = odds[-1] / odds.sum(axis=0)
        return result

    @property
    def _first(self) -> int:
        """The first state that any cue has."""
        return LOW if self.low.any() else MIDDLE

    def take(self, cues: NDArray[np.int64]) -> "Mixture":
        """The mixtures of some cues, by index."""
        return Mixture(*(getattr(self, field.name)[cues] for field in fields(self)))

    def put(self, cues: NDArray[np.int64], other: "Mixture") -> None:
        """Replace the mixtures of some cues, by index."""
        for field in fields(self):
            getattr(self, field.name)[cues] = getattr(other, field.name)


def fit(data: HistogramSums) -> Mixture:
    """Fit by expectation-maximisation from several starts, of which the likeliest is completed.

    Three states are chosen only where they gain more than their parameters cost (Schwarz's
    criterion) and most images are in the middle one; otherwise the upper two could be a faint and
    a strong form of the cue.
    """
    leading = data.leading(_LEADING_CLASSES)
    rough = leading.coarse()
    width, core = densest_parts(leading)
    two, three = (
        _likeliest(rough, starts, np.maximum(width, rough.floor), core) for starts in (_TWO, _THREE)
    )
    two = _settle(rough, two, _MOST_STEPS, np.ones(len(width), bool))
    three = _settle(rough, three, _MOST_STEPS, two.distance < _HOPELESS * two.deviation)
    gain = class_likelihoods(rough, three).sum(axis=1) - class_likelihoods(rough, two).sum(axis=1)
    images = rough.images.sum(axis=1)
    cost = 0.5 * (rough.images.shape[1] + 1) * np.log(np.maximum(images, 2))
    sizes = np.einsum("ck,cks->cs", rough.images, three.share)
    chosen = np.flatnonzero((gain > cost) & (sizes.argmax(axis=1) == MIDDLE))
    two.put(chosen, three.take(chosen))
    if leading is data:
        return _settle(data, two, _LAST_STEPS)
    started = _start(data.coarse(), two.shift, two.sigma, densest_parts(data)[1], two.low)
    return _settle(data, _settle(data.coarse(), started, _FIRST_STEPS), _LAST_STEPS)


def _likeliest(
    data: HistogramSums, starts: tuple[tuple[float, float], ...], width: Array, core: Array
) -> Mixture:
    """The likeliest fit of each cue after a few steps from every start."""
    best: Mixture | None = None
    likeliest = np.full(len(width), -np.inf)
    for up, down in starts:
        shift = np.stack([-down * width, 0 * width, up * width], axis=1)
        fitted = _start(data, shift, width, core, np.full(len(width), down > 0))
        for _ in range(_FIRST_STEPS):
            fitted, _ = _step(data, fitted)
        likelihood = class_likelihoods(data, fitted).sum(axis=1)
        better = np.flatnonzero(likelihood > likeliest)
        if best is None:
            best = fitted
        else:
            best.put(better, fitted.take(better))
        likeliest[better] = likelihood[better]
    assert best is not None
    return best


def _settle(
    data: HistogramSums,
    mixture: Mixture,
    most: int,
    may_be_left: NDArray[np.bool_] | None = None,
) -> Mixture:
    """Up to ``most`` further steps, for the cues whose likelihood still grows.

    Args:
        may_be_left: (C,) cues whose fit is left after `_PATIENCE` steps if its states are not
            `_HOPELESS` apart by then. One state alone is approached so slowly that it takes most of
            the time, and only the likeliest of all starts is continued.
    """
    moving = np.arange(len(data.images))
    likelihood = np.full(len(moving), -np.inf)
    for step in range(most):
        stepped, before = _step(data.take(moving), mixture.take(moving))
        mixture.put(moving, stepped)
        grown = before - likelihood[moving]
        likelihood[moving] = before
        moving = moving[grown > _SETTLED]
        if may_be_left is not None and step >= _PATIENCE:
            near = mixture.distance[moving] < _HOPELESS * mixture.deviation[moving]
            moving = moving[~(near & may_be_left[moving])]
        if not len(moving):
            break
    return mixture


def _step(data: HistogramSums, mixture: Mixture) -> tuple[Mixture, Array]:
    """The mixture after one step of the fit, and (C,) the log-likelihood before it.

    The maximisation is a regression of the score on the states within classes, in which scores
    count less the farther they are from their state.
    """
    near = mixture.nearness(data.centres)
    weights = mixture.odds(near)
    total = weights.sum(axis=0)
    before = np.einsum("ckb,ckb->c", data.counts, np.log(total))
    before = before + data.images.sum(axis=1) * mixture.log_factor
    weights *= data.counts / total
    size = _by_state(weights.sum(axis=3))
    weights *= near
    weights *= (DEGREES + 1) / DEGREES  # so that they count as `one_state.weights_of` says
    middle = data.centres.mean(axis=1)[:, None]
    mass, scores, squares = (_by_state(sums) for sums in _moments(weights, data.centres - middle))
    whole = np.maximum(mass.sum(axis=2), 1e-9)
    mean = scores.sum(axis=2) / whole
    portion = mass / whole[..., None]
    covariance = (scores - mass * mean[..., None]).sum(axis=1)
    variance = (mass * (1 - portion)).sum(axis=1) + 1e-9
    cross = -(mass[..., HIGH] * portion[..., LOW]).sum(axis=1)
    determinant = np.maximum(variance[:, LOW] * variance[:, HIGH] - cross**2, 1e-18)
    up = variance[:, LOW] * covariance[:, HIGH] - cross * covariance[:, LOW]
    down = variance[:, HIGH] * covariance[:, LOW] - cross * covariance[:, HIGH]
    high = np.where(mixture.low, up / determinant, covariance[:, HIGH] / variance[:, HIGH])
    low = np.where(mixture.low, down / determinant, 0)
    shift = np.stack([np.minimum(low, 0), 0 * low, np.maximum(high, 0)], axis=1)
    explained = (shift * covariance).sum(axis=1)
    within = (squares.sum(axis=2) - mean**2 * whole).sum(axis=1)
    residual = np.maximum(within - explained, 0) / np.maximum(whole.sum(axis=1), 1)
    new = Mixture(
        offset=mean + middle - np.einsum("cks,cs->ck", portion, shift),
        shift=shift,
        sigma=np.maximum(np.sqrt(residual), data.floor),
        share=_smoothed(size, mixture.low),
        low=mixture.low,
    )
    return new, before


def _moments(weights: Array, scores: Array) -> Iterator[Array]:
    """Sums (S, C, K) over the bins of weights (S, C, K, B) times 1, the scores (C, B), squares."""
    powers = np.stack([np.ones_like(scores), scores, scores**2], axis=2)
    yield from np.moveaxis(weights @ powers, 3, 0)


def _by_state(sums: Array) -> Array:
    """(C, K, 3) from (S, C, K); 0 for a low state that is left out."""
    result = np.zeros((*sums.shape[1:], 3))
    result[..., -len(sums) :] = np.moveaxis(sums, 0, 2)
    return result


def _smoothed(size: Array, low: NDArray[np.bool_]) -> Array:
    """Shares of the states, none exactly 0; the low state is empty where it does not exist."""
    size = size + 0.5
    size[~low, :, LOW] = _NEVER
    result: Array = size / size.sum(axis=2, keepdims=True)
    return result


def class_likelihoods(data: HistogramSums, mixture: Mixture) -> Array:
    """(C, K) log-likelihood of each class under the mixture."""
    total = mixture.odds(mixture.nearness(data.centres)).sum(axis=0)
    result: Array = np.einsum("ckb,ckb->ck", data.counts, np.log(total))
    result += data.images * mixture.log_factor[:, None]
    return result


def _start(
    data: HistogramSums, shift: Array, sigma: Array, core: Array, low: NDArray[np.bool_]
) -> Mixture:
    """Start every class with its densest part in the middle state, unless another fits better."""
    options, likelihoods = [], []
    for state in (MIDDLE, LOW, HIGH):
        share = np.full((*core.shape, 3), _OTHER_STATES / 2)
        share[..., state] = 1 - _OTHER_STATES
        share[~low, :, LOW] = _NEVER
        option = Mixture(core - shift[:, [state]], shift, sigma, share, low)
        options.append(option)
        likelihoods.append(class_likelihoods(data, option))
    likelihoods[0] = likelihoods[0] + _PREFERENCE
    best = np.argmax(likelihoods, axis=0)
    return Mixture(
        np.choose(best, [option.offset for option in options]),
        shift,
        sigma,
        np.choose(best[..., None], [option.share for option in options]),
        low,
    )
