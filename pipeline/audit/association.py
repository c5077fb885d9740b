"""Association: a class and a cue occur together in the data.

Counts are expected numbers from probabilities of presence. Sources: Haldane and Anscombe (half an
image added to every cell), Woolf (standard error of the log odds ratio), percentile bootstrap over
images, Benjamini and Hochberg (1995).
The odds ratios of all pairs are computed here, as statsmodels takes one table at a time.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from pipeline.audit import mixture
from pipeline.audit.class_view import ClassView, Everyone
from pipeline.audit.histograms import Histograms, HistogramSums
from pipeline.audit.inference import Z95, Array, adjusted, ratio
from pipeline.audit.presence import Presence
from pipeline.config.audit_settings import Gates

_LEVELS = np.array([0.01, 0.1, 0.5, 0.9, 0.99])
"""The bootstrap groups images by these posteriors, as those of one group differ little."""


@dataclass(frozen=True)
class Association:
    """Association of C cues with K classes, arrays (C, K).

    Attributes:
        images: explained images of the class.
        with_cue: expected number of them that have the cue.
        elsewhere, elsewhere_with: the same for all other labelled images.
        effect, low, high: odds ratio and its 95 % interval.
        p: two-sided p-value; NaN where the pair was not tested.
        q: the same adjusted over all tested pairs (Benjamini, Hochberg).
        tested: whether the pair could be tested.
        auc: P(score in the class > score elsewhere). A description, not a test.
        aligned: scores are higher in the class, but only a mixture without class offsets finds two
            states. The cause may be the cue or the class itself.
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
        return ratio(self.with_cue, self.images)

    @property
    def share_elsewhere(self) -> Array:
        """P(cue | not class)."""
        return ratio(self.elsewhere_with, self.elsewhere)

    @property
    def lift(self) -> Array:
        """P(cue | class) / P(cue)."""
        overall = ratio(self.with_cue + self.elsewhere_with, self.images + self.elsewhere)
        return ratio(self.share, overall)


def associate(view: ClassView, gates: Gates, resamples: int, seed: int) -> Association:
    """Test every measured cue in every class that has other images to be compared with.

    Args:
        view: presence by class.
        gates: images of a class that a test needs.
        resamples: bootstrap resamples of the images.
        seed: random seed of the bootstrap.
    """
    presence, everyone = view.presence, view.everyone
    counts = presence.histograms.counts
    images = counts.sum(axis=2, dtype=np.float64)
    with_cue = np.einsum("ckb,ckb->ck", counts, presence.posterior, dtype=np.float64)
    rest, rest_with = _others(images), _others(with_cue)
    if everyone is not None:
        rest = _others(images, everyone.counts.sum(axis=1))
        rest_with = _others(with_cue, everyone.present.sum(axis=1))
    log_odds, error = log_odds_ratio(with_cue, images, rest_with, rest)
    low, high = log_odds - Z95 * error, log_odds + Z95 * error
    for cue in map(int, np.flatnonzero(presence.measured)):
        rng = np.random.default_rng([seed, cue])
        drawn = _resampled(counts[cue], presence.posterior[cue], resamples, rng)
        others = _others(drawn)
        if everyone is not None:
            others = _resampled(*_without_class(presence, everyone, cue), resamples, rng)
        with np.errstate(all="raise"):
            resampled, _ = log_odds_ratio(drawn, images[cue], others, rest[cue])
        bounds = np.quantile(resampled, [0.025, 0.975], axis=0)
        low[cue], high[cue] = np.minimum(low[cue], bounds[0]), np.maximum(high[cue], bounds[1])
        error[cue] = np.maximum(error[cue], resampled.std(axis=0))
    enough = (images >= gates.class_images) & (rest >= gates.class_images)
    tested = enough & presence.measured[:, None] & ~presence.unconfirmed
    p = np.where(tested, 2 * norm.sf(np.abs(log_odds) / error), np.nan)
    unknown = ~(presence.measured[:, None] & (images > 0) & (rest > 0)) | presence.unconfirmed
    effect, low, high = (np.where(unknown, np.nan, np.exp(v)) for v in (log_odds, low, high))
    aligned = _aligned(view, gates) | (presence.unconfirmed & presence.measured[:, None])
    return Association(
        images=images,
        with_cue=np.where(presence.measured[:, None] & ~presence.unconfirmed, with_cue, np.nan),
        elsewhere=rest,
        elsewhere_with=np.where(presence.measured[:, None], rest_with, np.nan),
        effect=effect,
        low=low,
        high=high,
        p=p,
        q=adjusted(p),
        tested=tested,
        auc=_auc(counts, everyone),
        aligned=aligned,
    )


def log_odds_ratio(present: Array, images: Array, other: Array, rest: Array) -> tuple[Array, Array]:
    """Log odds ratio and its standard error (Woolf) with half an image added to every cell.

    Args:
        present, images: images of the class with the cue, and all of them.
        other, rest: the same for the other classes.
    """
    cells = (present, images - present, other, rest - other)
    a, b, c, d = (np.maximum(cell, 0) + 0.5 for cell in cells)
    return np.log(a * d / (b * c)), np.sqrt(1 / a + 1 / b + 1 / c + 1 / d)


def _others(values: Array, total: Array | None = None) -> Array:
    """Sum over all images outside of each class; classes are the last axis.

    Args:
        total: sum over all images; default the sum over the classes.
    """
    every = values.sum(axis=-1, keepdims=True) if total is None else total[..., None]
    result: Array = np.maximum(every - values, 0)
    return result


def _without_class(presence: Presence, everyone: Everyone, cue: int) -> tuple[Array, Array]:
    """Counts (K, B) of the images outside of each class, and their mean probability of the cue."""
    counts = presence.histograms.counts[cue].astype(np.float64)
    outside = np.maximum(everyone.counts[cue] - counts, 0)
    present = np.maximum(everyone.present[cue] - counts * presence.posterior[cue], 0)
    return outside, np.minimum(ratio(present, outside, empty=0.0), 1)


def _resampled(
    counts: NDArray[np.floating],
    posterior: NDArray[np.floating],
    resamples: int,
    rng: np.random.Generator,
) -> Array:
    """(R, K) expected number of images with the cue when the images of each class are resampled.

    Args:
        counts, posterior: (K, B) of one cue.
    """
    level = np.searchsorted(_LEVELS, posterior)
    groups = [np.where(level == i, counts, 0) for i in range(len(_LEVELS) + 1)]
    sizes = np.stack([group.sum(axis=1, dtype=np.float64) for group in groups], axis=1)
    sums = np.stack([(group * posterior).sum(axis=1, dtype=np.float64) for group in groups], axis=1)
    images = sizes.sum(axis=1)
    shares = sizes / np.maximum(images, 1)[:, None]
    shares[images == 0, 0] = 1.0
    drawn = rng.multinomial(images.astype(np.int64), shares, size=(resamples, len(images)))
    return np.asarray((drawn * ratio(sums, sizes, empty=0.0)).sum(axis=2))


def _aligned(view: ClassView, gates: Gates) -> NDArray[np.bool_]:
    """(C, K) pairs of unmeasured cues that a mixture pooled over the classes would flag."""
    presence = view.presence
    hidden = np.flatnonzero(~presence.measured)
    counts = presence.histograms.counts
    higher = np.zeros(counts.shape[:2], dtype=bool)
    if not len(hidden):
        return higher
    every = counts.sum(axis=1) if view.everyone is None else view.everyone.counts
    pooled = _pooled_posterior(presence.histograms, every, hidden)
    images = counts[hidden].sum(axis=2, dtype=np.float64)
    present = np.einsum("ckb,cb->ck", counts[hidden], pooled)
    rest_with, rest = _others(present), _others(images)
    if view.everyone is not None:
        rest_with = _others(present, (every[hidden] * pooled).sum(axis=1))
        rest = _others(images, every[hidden].sum(axis=1))
    log_odds, error = log_odds_ratio(present, images, rest_with, rest)
    higher[hidden] = (log_odds - Z95 * error > np.log(gates.odds_ratio)) & (present >= gates.images)
    result: NDArray[np.bool_] = higher & (counts.sum(axis=2) >= gates.class_images)
    return result


def _pooled_posterior(
    histograms: Histograms, every: NDArray[np.floating], cues: NDArray[np.int64]
) -> Array:
    """(C, B) probability of the high state by a mixture fitted to all images (C, B) together."""
    pooled = every[cues][:, None]
    data = HistogramSums.of(pooled, histograms.centres[cues], histograms.width[cues])
    return mixture.fit(data).present(data.centres)[:, 0]


def _auc(counts: NDArray[np.float32], everyone: Everyone | None) -> Array:
    """(C, K) area under the ROC curve of score for class; scores of one bin count as ties.

    Computed from histograms, which scikit-learn does not take.
    """
    auc = np.full(counts.shape[:2], np.nan)
    for cue, in_class in enumerate(counts.astype(np.float64)):
        every = in_class.sum(axis=0) if everyone is None else everyone.counts[cue]
        elsewhere = every - in_class
        below = elsewhere.cumsum(axis=1) - elsewhere / 2
        pairs = in_class.sum(axis=1) * elsewhere.sum(axis=1)
        auc[cue] = ratio((in_class * below).sum(axis=1), pairs)
    return auc
