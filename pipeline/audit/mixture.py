"""The class-aware mixture: every class has its own offset and shares, all share the states' places.

A score is ``mu_y + d z - g w + e``: an object shifts the score of every prompt (mu_y), the cue
raises it (d), and something that the model holds for its opposite may lower it (g, where the data
show such a state). A mixture without the offsets takes a class's shift for presence. Fitted to
histograms, so that the work depends on classes and bins and not on images.
"""

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from pipeline.audit.histogram_sums import Array, Moments

LOW, MIDDLE, HIGH = range(3)
_TWO = tuple((d, 0.0) for d in (1.5, 3.0, 5.0, 8.0, 12.0, 18.0, 27.0, 40.0))
_THREE = tuple((d, d * ratio) for d in (3.0, 6.0, 12.0, 24.0) for ratio in (0.5, 1.0, 2.0))
"""First distances up and down, in robust deviations of one state."""
_LEADING = 64  # largest classes, which decide where the states are
_FIRST_STEPS = 8
_MOST_STEPS = 200
_LAST_STEPS = 6
_SETTLED = 1e-3  # change of a log-likelihood
_PREFERENCE = 5.0  # log-likelihood by which a class must look shifted to start so
_FEW = 0.1
_NEVER = 1e-30


@dataclass(frozen=True)
class Mixture:
    """Fits of C cues over K classes.

    Attributes:
        offset: (C, K) mean score of the middle state: without the cue, and nothing lowers it.
        shift: (C, 3) of the states from it: low <= 0, 0, high >= 0.
        sigma: (C,) standard deviation within a state.
        share: (C, K, 3) of the class's images in each state.
        low: (C,) whether there is a low state.
    """

    offset: Array
    shift: Array
    sigma: Array
    share: Array
    low: NDArray[np.bool_]

    @property
    def distance(self) -> Array:
        """(C,) what the cue adds."""
        return self.shift[:, HIGH]

    def densities(self, centres: Array) -> Array:
        """(C, K, B, 3) log density of score and state, from (C, B) scores."""
        x = (centres[:, None, :] - self.offset[..., None])[..., None]
        x = (x - self.shift[:, None, None, :]) / self.sigma[:, None, None, None]
        constant = np.log(self.share) - np.log(self.sigma * np.sqrt(2 * np.pi))[:, None, None]
        result: Array = constant[:, :, None, :] - 0.5 * x**2
        return result

    def states(self, centres: Array) -> Array:
        """(C, K, B, 3) probability of each state."""
        log = self.densities(centres)
        odds = np.exp(log - log.max(axis=3, keepdims=True))
        result: Array = odds / odds.sum(axis=3, keepdims=True)
        return result

    def take(self, places: NDArray[np.int64]) -> "Mixture":
        """Some of the cues."""
        return Mixture(*(getattr(self, field.name)[places] for field in fields(self)))

    def put(self, places: NDArray[np.int64], other: "Mixture") -> None:
        """Overwrite some of the cues."""
        for field in fields(self):
            getattr(self, field.name)[places] = getattr(other, field.name)


def fit(data: Moments) -> Mixture:
    """Expectation-maximisation from several starts; the likeliest is followed to its end.

    Three states are taken only where they gain more than their parameters cost (Schwarz) and most
    images are in the middle one; otherwise the upper two could be a faint and a strong cue.
    """
    leading = data.leading(_LEADING)
    rough = leading.coarse()
    width, core = _cores(leading)
    two, three = (
        _settle(rough, _likeliest(rough, starts, np.maximum(width, rough.floor), core), _MOST_STEPS)
        for starts in (_TWO, _THREE)
    )
    gain = class_likelihoods(rough, three).sum(axis=1) - class_likelihoods(rough, two).sum(axis=1)
    images = rough.images.sum(axis=1)
    cost = 0.5 * (rough.images.shape[1] + 1) * np.log(np.maximum(images, 2))
    sizes = np.einsum("ck,cks->cs", rough.images, three.share)
    chosen = np.flatnonzero((gain > cost) & (sizes.argmax(axis=1) == MIDDLE))
    two.put(chosen, three.take(chosen))
    if leading is data:
        return _settle(data, two, _LAST_STEPS)
    every = _start(data.coarse(), two.shift, two.sigma, _cores(data)[1], two.low)
    return _settle(data, _settle(data.coarse(), every, _FIRST_STEPS), _LAST_STEPS)


def _likeliest(
    data: Moments, starts: tuple[tuple[float, float], ...], width: Array, core: Array
) -> Mixture:
    best: Mixture | None = None
    likeliest = np.full(len(width), -np.inf)
    for up, down in starts:
        shift = np.stack([-down * width, 0 * width, up * width], axis=1)
        found = _start(data, shift, width, core, np.full(len(width), down > 0))
        for _ in range(_FIRST_STEPS):
            found, _ = _step(data, found)
        likelihood = class_likelihoods(data, found).sum(axis=1)
        better = np.flatnonzero(likelihood > likeliest)
        if best is None:
            best = found
        else:
            best.put(better, found.take(better))
        likeliest[better] = likelihood[better]
    assert best is not None
    return best


def _settle(data: Moments, found: Mixture, most: int) -> Mixture:
    """Further steps for those cues whose likelihood still grows."""
    moving = np.arange(len(data.images))
    likelihood = np.full(len(moving), -np.inf)
    for _ in range(most):
        stepped, before = _step(data.take(moving), found.take(moving))
        found.put(moving, stepped)
        grown = before - likelihood[moving]
        likelihood[moving] = before
        moving = moving[grown > _SETTLED]
        if not len(moving):
            break
    return found


def _step(data: Moments, found: Mixture) -> tuple[Mixture, Array]:
    """One step, and (C,) the likelihood before it.

    The maximum is a regression of the score on the states within classes.
    """
    log = found.densities(data.centres)
    top = log.max(axis=3, keepdims=True)
    odds = np.exp(log - top)
    total = odds.sum(axis=3, keepdims=True)
    before = np.einsum("ckb,ckb->c", data.counts, (top + np.log(total))[..., 0])
    weights = odds * (data.counts[..., None] / total)
    size = weights.sum(axis=2)
    scores = np.einsum("ckbs,cb->cks", weights, data.centres)
    portion = size / np.maximum(data.images, 1)[..., None]
    covariance = (scores - size * data.mean[..., None]).sum(axis=1)
    variance = (size * (1 - portion)).sum(axis=1) + 1e-9
    cross = -(size[..., HIGH] * portion[..., LOW]).sum(axis=1)
    determinant = np.maximum(variance[:, LOW] * variance[:, HIGH] - cross**2, 1e-18)
    up = variance[:, LOW] * covariance[:, HIGH] - cross * covariance[:, LOW]
    down = variance[:, HIGH] * covariance[:, LOW] - cross * covariance[:, HIGH]
    high = np.where(found.low, up / determinant, covariance[:, HIGH] / variance[:, HIGH])
    low = np.where(found.low, down / determinant, 0)
    shift = np.stack([np.minimum(low, 0), 0 * low, np.maximum(high, 0)], axis=1)
    explained = (shift * covariance).sum(axis=1)
    residual = np.maximum(data.within - explained, 0) / np.maximum(data.images.sum(axis=1), 1)
    new = Mixture(
        offset=data.mean - np.einsum("cks,cs->ck", portion, shift),
        shift=shift,
        sigma=np.maximum(np.sqrt(residual), data.floor),
        share=_smoothed(size, found.low),
        low=found.low,
    )
    return new, before


def _smoothed(size: Array, low: NDArray[np.bool_]) -> Array:
    """Shares of the states, none quite 0, and no low one where there is none."""
    size = size + 0.5
    size[~low, :, LOW] = _NEVER
    result: Array = size / size.sum(axis=2, keepdims=True)
    return result


def class_likelihoods(data: Moments, found: Mixture) -> Array:
    """(C, K) log-likelihood of each class under the mixture."""
    log = found.densities(data.centres)
    top = log.max(axis=3)
    total = top + np.log(np.exp(log - top[..., None]).sum(axis=3))
    result: Array = np.einsum("ckb,ckb->ck", data.counts, total)
    return result


def one_state_likelihoods(data: Moments, sigma: Array) -> Array:
    """(C, K) log-likelihood of each class as one normal distribution about its mean."""
    x = (data.centres[:, None, :] - data.mean[..., None]) / sigma[:, None, None]
    density = -0.5 * x**2 - np.log(sigma[:, None, None] * np.sqrt(2 * np.pi))
    result: Array = np.einsum("ckb,ckb->ck", data.counts, density)
    return result


def one_state_sigma(data: Moments) -> Array:
    """(C,) deviation about the class means."""
    images = np.maximum(data.images.sum(axis=1), 1)
    result: Array = np.maximum(np.sqrt(data.within / images), data.floor)
    return result


def _start(
    data: Moments, shift: Array, sigma: Array, core: Array, low: NDArray[np.bool_]
) -> Mixture:
    """Every class's densest part is one of the states: the middle, unless another fits better."""
    options, likelihoods = [], []
    for state in (MIDDLE, LOW, HIGH):
        share = np.full((*core.shape, 3), _FEW / 2)
        share[..., state] = 1 - _FEW
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


def _cores(data: Moments) -> tuple[Array, Array]:
    """(C,) width of one state as a deviation, and (C, K) centre of each class's densest half."""
    bins = data.counts.shape[2]
    cumulated = np.pad(data.counts.cumsum(axis=2), ((0, 0), (0, 0), (1, 0)))
    half = data.images / 2
    spans = np.full(half.shape, bins)
    centre = data.mean.copy()
    step = data.centres[:, 1] - data.centres[:, 0]
    for span in np.unique(np.geomspace(1, bins, 40).astype(int))[::-1]:
        mass = cumulated[..., span:] - cumulated[..., :-span]
        place = mass.argmax(axis=2)
        enough = np.take_along_axis(mass, place[..., None], axis=2)[..., 0] >= half
        spans = np.where(enough, span, spans)
        middle = data.centres[:, :1] + (place + (span - 1) / 2) * step[:, None]
        centre = np.where(enough & (data.images > 0), middle, centre)
    large = data.images >= data.images.max(axis=1, keepdims=True) / 50
    width = _weighted_median(spans, np.where(large, data.images, 0)) * step / 1.349
    return np.maximum(width, data.floor), centre


def _weighted_median(values: NDArray[np.int64], weights: Array) -> Array:
    order = values.argsort(axis=1)
    cumulated = np.take_along_axis(weights, order, axis=1).cumsum(axis=1)
    place = (cumulated < cumulated[:, -1:] / 2).sum(axis=1)
    ranked = np.take_along_axis(values, order, axis=1)
    result: Array = ranked[np.arange(len(values)), place].astype(np.float64)
    return result
