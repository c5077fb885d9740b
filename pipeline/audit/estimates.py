"""Share of images with a cue, estimated from a few labels and everyone's predictions.

A person looks at n of a group's N images, drawn with known probabilities; a predictor ``f`` gives
a probability of presence for all N. With weights ``w`` that sum to one (inverse probabilities,
scaled to the size of each stratum) the share is

    theta = lam mean_N(f) + sum_n w (Y - lam f),

the difference estimator of survey sampling (Cochran 1977, chapters 5A and 7), which is the
prediction-powered mean of PPI++ (Angelopoulos, Duchi and Zrnic 2023, arXiv 2311.01453) for labels
that are a part of the N. ``f`` and ``lam`` are fitted on other folds of the labels
(cross-prediction, Zrnic and Candes 2024, arXiv 2309.16598), so the estimate is unbiased whatever
the predictor is worth: a poor one costs labels and not validity.

Intervals are Wilson's at an effective number of labels, as for complex surveys (Korn and Graubard
1998), because a normal interval fails where three of fifty images have the cue. Two groups are
compared by the method of variance estimates recovery (Donner and Zou 2012; for differences this is
Newcombe 1998, method 10), which keeps the skewness of both intervals.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import logit
from scipy.stats import norm

from pipeline.audit.inference import Array, share_interval

_TRUST = 2.0  # labels' worth of belief that predictions are calibrated (lam = 1)
_MISSED = 1.0  # images with the cue, added as if no prediction told them: guards small counts


@dataclass(frozen=True)
class Labelled:
    """The answered images of a group.

    Attributes:
        present: (n,) 1.0 where the cue is present, 0.0 where it is absent.
        stratum: (n,) index of the stratum that an image was drawn from, ordered by score.
        weight: (n,) inverse of the probability of being drawn, up to a factor within a stratum.
        predicted: (n,) probability of presence, by a predictor that did not see the fold's labels.
        fold: (n,) fold of each label, 0 to F - 1.
    """

    present: Array
    stratum: NDArray[np.int64]
    weight: Array
    predicted: Array
    fold: NDArray[np.int64]


@dataclass(frozen=True)
class ShareEstimate:
    """Estimated share of a group's images with the cue.

    Attributes:
        share: between 0 and 1.
        low, high: 95 % interval.
        variance: variance of the share.
        labels: answered images.
        effective: how many labels of a plain random sample would tell as much.
        lam: mean weight of the predictions; 0 where the labels alone are used.
        correlation: correlation of labels and predictions; NaN where either is constant.
    """

    share: float
    low: float
    high: float
    variance: float
    labels: int
    effective: float
    lam: float
    correlation: float


@dataclass(frozen=True)
class Comparison:
    """A group's share against another's.

    Attributes:
        difference: difference of the shares; its 95 % interval is ``difference_low`` to
            ``difference_high``.
        odds_ratio: odds ratio, which may be infinite; its 95 % interval is ``odds_low`` to
            ``odds_high``.
        p: two-sided p-value of the hypothesis that the shares are equal.
    """

    difference: float
    difference_low: float
    difference_high: float
    odds_ratio: float
    odds_low: float
    odds_high: float
    p: float


def estimate_share(sample: Labelled, sizes: Array, expected: Array) -> ShareEstimate:
    """Estimate a group's share of images with the cue.

    Args:
        sample: the answered images. Unanswerable ones are left out: the estimate is of the images
            of which a person can tell.
        sizes: (S,) images of the group in each stratum, labelled or not.
        expected: (F,) mean prediction over all images of the group, by each fold's predictor.

    Raises:
        ValueError: no labels, or the group has no images.
    """
    count, images = len(sample.present), float(sizes.sum())
    if not count or not images:
        raise ValueError("estimate_share: expected at least one label and one image")
    strata, weights = _weights(sample, sizes)
    alone = float(weights @ sample.present)
    correlation = _correlation(sample.present, sample.predicted, weights)
    residual, lam = sample.present, 0.0
    if count > 3 and correlation > 1 / np.sqrt(count - 2):
        lams = _cross_fitted_weight(sample, weights, len(expected))
        residual = sample.present - lams * (sample.predicted - expected[sample.fold])
        lam = float(lams.mean())
    share = float(np.clip(weights @ residual, 0, 1))
    missed = _MISSED / count
    binary = alone * (1 - alone) / max(count - 1, 1) + missed / count
    unexplained = _design_variance(residual, weights, strata, sizes)
    unexplained += missed * float((weights**2).sum()) * max(1 - count / images, 0.0)
    effective = count / (unexplained / binary + min(count / images, 1.0))
    low, high = share_interval(share * effective, effective)
    inner = (share * effective + 0.5) / (effective + 1)
    return ShareEstimate(
        share=share,
        low=min(float(low), share),
        high=max(float(high), share),
        variance=inner * (1 - inner) / effective,
        labels=count,
        effective=effective,
        lam=lam,
        correlation=correlation,
    )


def compare_shares(group: ShareEstimate, other: ShareEstimate) -> Comparison:
    """Difference of shares and odds ratio of a group against another, independent one.

    The odds ratio's interval recovers the variances from the logits of both Wilson intervals; the
    p value is that of the score test of equal shares at the effective numbers of labels.
    """
    shares = np.array([group.share, other.share])
    lows, highs = np.array([group.low, other.low]), np.array([group.high, other.high])
    labels = np.array([group.effective, other.effective])
    low, high = _recovered(shares, lows, highs)
    with np.errstate(divide="ignore"):
        edges = logit(lows), logit(highs)
    inner = logit((shares * labels + 0.5) / (labels + 1))  # finite at shares of 0 and 1
    log_low, log_high = _recovered(np.clip(inner, *edges), *edges)
    pooled = float(shares @ labels / labels.sum())
    error = np.sqrt(max(pooled * (1 - pooled), 0) * (1 / labels).sum())
    gap = float(shares[0] - shares[1])
    return Comparison(
        difference=gap,
        difference_low=low,
        difference_high=high,
        odds_ratio=float(np.exp(inner[0] - inner[1])),
        odds_low=float(np.exp(log_low)),
        odds_high=float(np.exp(log_high)),
        p=float(2 * norm.sf(abs(gap) / error)) if error > 0 else 1.0,
    )


def _recovered(values: Array, lows: Array, highs: Array) -> tuple[float, float]:
    """Interval of a difference of two values from their own intervals."""
    gap = values[0] - values[1]
    low = gap - np.hypot(values[0] - lows[0], highs[1] - values[1])
    high = gap + np.hypot(highs[0] - values[0], values[1] - lows[1])
    return float(low), float(high)


def _weights(sample: Labelled, sizes: Array) -> tuple[NDArray[np.int64], Array]:
    """(n,) stratum after merging, and weights that sum to each stratum's part of the group.

    A stratum with fewer than two labels has no variance of its own: it is merged with the one
    below it, the lowest with the one above.
    """
    merged = np.arange(len(sizes))
    labels = np.bincount(sample.stratum, minlength=len(sizes))
    total = 0
    group = 0
    for stratum in range(len(sizes)):
        merged[stratum] = group
        total += labels[stratum]
        if total >= 2:
            group, total = group + 1, 0
    merged[merged == group] = max(group - 1, 0)
    strata = merged[sample.stratum]
    part = np.bincount(merged, sizes) / sizes.sum()
    sums = np.bincount(strata, sample.weight, minlength=len(part))
    return strata, part[strata] * sample.weight / sums[strata]


def _cross_fitted_weight(sample: Labelled, weights: Array, folds: int) -> Array:
    """(n,) lam of each label, fitted on the other folds: Cov(Y, f) / Var(f), shrunk towards 1.

    For n labels out of the N predicted images this is the optimum; PPI++ divides by 1 + n/N'
    because its N' predicted images are others than the n labelled ones.
    """
    lams = np.zeros(len(weights))
    for fold in range(folds):
        inside = sample.fold == fold
        if not inside.any() or inside.all():
            continue
        present, predicted = sample.present[~inside], sample.predicted[~inside]
        w = weights[~inside] / weights[~inside].sum()
        centred = predicted - w @ predicted
        variance = float(w @ centred**2)
        slope = float(w @ (centred * present)) / variance if variance > 0 else 1.0
        lams[inside] = np.clip((slope * len(w) + _TRUST) / (len(w) + _TRUST), 0, 1)
    return lams


def _correlation(present: Array, predicted: Array, weights: Array) -> float:
    """Weighted correlation; NaN where either is constant."""
    a, b = present - weights @ present, predicted - weights @ predicted
    product = float(weights @ a**2) * float(weights @ b**2)
    return float(weights @ (a * b)) / np.sqrt(product) if product > 0 else float("nan")


def _design_variance(
    residual: Array, weights: Array, strata: NDArray[np.int64], sizes: Array
) -> float:
    """Variance of the weighted mean of strata that are drawn separately, without replacement."""
    total = 0.0
    for stratum in np.unique(strata):
        inside = strata == stratum
        count, part = int(inside.sum()), float(weights[inside].sum())
        if count < 2:
            continue
        w = weights[inside]
        deviation = residual[inside] - (w @ residual[inside]) / part
        unseen = max(1 - count / (part * float(sizes.sum())), 0.0)
        total += unseen * count / (count - 1) * float(w**2 @ deviation**2)
    return total
