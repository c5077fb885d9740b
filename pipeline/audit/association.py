"""Claim A: cue and class come together in the data. Soft counts, odds ratios, gates.

Sources: Haldane-Anscombe correction (one half in every cell), Woolf's standard error of the log
odds ratio, percentile bootstrap over images, Benjamini and Hochberg (1995).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import false_discovery_control, norm

from pipeline.audit import mixture
from pipeline.audit.aggregate import Histograms
from pipeline.audit.histogram_sums import Array, Moments
from pipeline.audit.presence import Presence
from pipeline.config.audit_settings import Gates

_LEVELS = np.array([0.01, 0.1, 0.5, 0.9, 0.99])
"""Posteriors are resampled in groups between these; within one they hardly differ."""
_Z = float(norm.ppf(0.975))


@dataclass(frozen=True)
class Association:
    """Every cue against every class, arrays (C, K).

    Attributes:
        images: explained images of the class.
        with_cue: of them, expected number with the cue.
        elsewhere, elsewhere_with: the same of all other labelled images.
        effect, low, high: odds ratio and its 95 % interval.
        p, q: two-sided, and adjusted over all tested pairs; NaN where nothing was tested.
        tested: whether the pair could be tested at all.
        auc: P(score in the class > score elsewhere); describes, see the module `ranking`.
        aligned: scores are higher in the class, but only a mixture without class offsets sees two
            states: the cue, or the class itself.
    """

    images: Array
    with_cue: Array
    elsewhere: Array
    elsewhere_with: Array
    effect: Array
    low: Array
    high: Array
    p: Array
    q: Array
    tested: NDArray[np.bool_]
    auc: Array
    aligned: NDArray[np.bool_]

    @property
    def share(self) -> Array:
        """P(cue | class)."""
        return _ratio(self.with_cue, self.images)

    @property
    def share_elsewhere(self) -> Array:
        """P(cue | not class)."""
        return _ratio(self.elsewhere_with, self.elsewhere)

    @property
    def lift(self) -> Array:
        """P(cue | class) / P(cue)."""
        every = _ratio(self.with_cue + self.elsewhere_with, self.images + self.elsewhere)
        return _ratio(self.share, every)


def associate(presence: Presence, gates: Gates, resamples: int, seed: int) -> Association:
    """Test every pair of a measured cue and a class that has another to be compared with."""
    counts = presence.histograms.counts
    images = counts.sum(axis=2, dtype=np.float64)
    with_cue = np.einsum("ckb,ckb->ck", counts, presence.posterior, dtype=np.float64)
    rest, rest_with = _others(images), _others(with_cue)
    log_odds, error = log_odds_ratio(with_cue, images, rest_with, rest)
    low, high = log_odds - _Z * error, log_odds + _Z * error
    for cue in map(int, np.flatnonzero(presence.measured)):
        rng = np.random.default_rng([seed, cue])
        drawn = _resampled(counts[cue], presence.posterior[cue], resamples, rng)
        with np.errstate(all="raise"):
            again, _ = log_odds_ratio(drawn, images[cue], _others(drawn), rest[cue])
        edges = np.quantile(again, [0.025, 0.975], axis=0)
        low[cue], high[cue] = np.minimum(low[cue], edges[0]), np.maximum(high[cue], edges[1])
        error[cue] = np.maximum(error[cue], again.std(axis=0))
    enough = (images >= gates.class_images) & (rest >= gates.class_images)
    tested = enough & presence.measured[:, None] & ~presence.unconfirmed
    p = np.where(tested, 2 * norm.sf(np.abs(log_odds) / error), np.nan)
    q = np.full(p.shape, np.nan)
    if tested.any():
        q[tested] = false_discovery_control(p[tested])
    unknown = ~(presence.measured[:, None] & (images > 0) & (rest > 0)) | presence.unconfirmed
    effect, low, high = (np.where(unknown, np.nan, np.exp(v)) for v in (log_odds, low, high))
    aligned = _aligned(presence, gates) | (presence.unconfirmed & presence.measured[:, None])
    return Association(
        images=images,
        with_cue=np.where(presence.measured[:, None] & ~presence.unconfirmed, with_cue, np.nan),
        elsewhere=rest,
        elsewhere_with=np.where(presence.measured[:, None], rest_with, np.nan),
        effect=effect,
        low=low,
        high=high,
        p=p,
        q=q,
        tested=tested,
        auc=_auc(counts),
        aligned=aligned,
    )


def log_odds_ratio(present: Array, images: Array, other: Array, rest: Array) -> tuple[Array, Array]:
    """Log odds ratio and its standard error, half an image added to every cell.

    Args:
        present, images: in the class: with the cue, all.
        other, rest: the same elsewhere.
    """
    cells = (present, images - present, other, rest - other)
    a, b, c, d = (np.maximum(cell, 0) + 0.5 for cell in cells)
    return np.log(a * d / (b * c)), np.sqrt(1 / a + 1 / b + 1 / c + 1 / d)


def _others(values: Array) -> Array:
    """Sum over the other classes, the last axis."""
    result: Array = np.maximum(values.sum(axis=-1, keepdims=True) - values, 0)
    return result


def _resampled(
    counts: NDArray[np.float32],
    posterior: NDArray[np.float32],
    resamples: int,
    rng: np.random.Generator,
) -> Array:
    """(R, K) expected number of images with the cue in resampled classes."""
    level = np.searchsorted(_LEVELS, posterior)
    groups = [np.where(level == i, counts, 0) for i in range(len(_LEVELS) + 1)]
    sizes = np.stack([group.sum(axis=1, dtype=np.float64) for group in groups], axis=1)
    sums = np.stack([(group * posterior).sum(axis=1, dtype=np.float64) for group in groups], axis=1)
    images = sizes.sum(axis=1)
    shares = sizes / np.maximum(images, 1)[:, None]
    shares[images == 0, 0] = 1.0
    drawn = rng.multinomial(images.astype(np.int64), shares, size=(resamples, len(images)))
    return np.asarray((drawn * _ratio(sums, sizes, empty=0.0)).sum(axis=2))


def _aligned(presence: Presence, gates: Gates) -> NDArray[np.bool_]:
    """(C, K) what a mixture pooled over classes would flag of the cues without two states."""
    hidden = np.flatnonzero(~presence.measured)
    counts = presence.histograms.counts
    found = np.zeros(counts.shape[:2], dtype=bool)
    if not len(hidden):
        return found
    pooled = _pooled_posterior(presence.histograms, hidden)
    images = counts[hidden].sum(axis=2, dtype=np.float64)
    present = np.einsum("ckb,cb->ck", counts[hidden], pooled)
    log_odds, error = log_odds_ratio(present, images, _others(present), _others(images))
    found[hidden] = (log_odds - _Z * error > np.log(gates.odds_ratio)) & (present >= gates.images)
    result: NDArray[np.bool_] = found & (counts.sum(axis=2) >= gates.class_images)
    return result


def _pooled_posterior(histograms: Histograms, cues: NDArray[np.int64]) -> Array:
    every = histograms.counts[cues].sum(axis=1, keepdims=True)
    data = Moments.of(every, histograms.centres[cues], histograms.width[cues])
    return mixture.fit(data).states(data.centres)[:, 0, :, mixture.HIGH]


def _auc(counts: NDArray[np.float32]) -> Array:
    """(C, K) area under the curve of score for class, ties of a bin half."""
    result = np.full(counts.shape[:2], np.nan)
    for cue, own in enumerate(counts.astype(np.float64)):
        rest = own.sum(axis=0) - own
        below = rest.cumsum(axis=1) - rest / 2
        pairs = own.sum(axis=1) * rest.sum(axis=1)
        result[cue] = _ratio((own * below).sum(axis=1), pairs)
    return result


def _ratio(part: Array, whole: Array, empty: float = np.nan) -> Array:
    return np.where(whole > 0, part / np.where(whole > 0, whole, 1), empty)
