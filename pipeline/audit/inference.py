"""Intervals and tests that several statistics of the audit share.

Shares and their differences come from statsmodels, the area under the ROC curve from scikit-learn,
the adjustment for many tests from scipy. The standard error of that area is ours, because none of
the three has it.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import false_discovery_control, norm

Array = NDArray[np.float64]
Z95 = float(norm.ppf(0.975))
"""Standard errors on either side of an estimate that make a 95 % interval."""
FEWEST_FOR_INTERVAL = 3
"""Values from which `mean_interval` gives bounds."""


def mean_interval(values: Array) -> tuple[float, float, float]:
    """Mean and its normal 95 % bounds; NaN where there are too few values."""
    if len(values) < FEWEST_FOR_INTERVAL:
        return (float(values.mean()) if len(values) else np.nan, np.nan, np.nan)
    mean, error = float(values.mean()), float(values.std(ddof=1)) / np.sqrt(len(values))
    z = round(Z95, 6)  # as in the outputs of earlier versions
    return (mean, mean - z * error, mean + z * error)


def share_interval(count: ArrayLike, images: ArrayLike) -> tuple[Array, Array]:
    """95 % score interval of the share count / images (Wilson 1927), element by element."""
    from statsmodels.stats.proportion import proportion_confint

    low, high = proportion_confint(np.asarray(count), np.asarray(images), method="wilson")
    return np.asarray(low, np.float64), np.asarray(high, np.float64)


def gap_interval(
    count: ArrayLike, images: ArrayLike, other_count: ArrayLike, other_images: ArrayLike
) -> tuple[Array, Array]:
    """95 % interval of count / images - other_count / other_images (Newcombe 1998, method 10)."""
    from statsmodels.stats.proportion import confint_proportions_2indep

    numbers = [np.asarray(n, np.float64) for n in (count, images, other_count, other_images)]
    low, high = confint_proportions_2indep(*numbers, method="newcomb", compare="diff")
    return np.asarray(low, np.float64), np.asarray(high, np.float64)


def auc_interval(
    positive: NDArray[np.floating], negative: NDArray[np.floating]
) -> tuple[float, float, float]:
    """P(positive > negative), ties counting half, and its 95 % interval (Hanley, McNeil 1982).

    Returns:
        NaN where either group is empty.
    """
    from sklearn.metrics import roc_auc_score

    n1, n0 = len(positive), len(negative)
    if not n1 or not n0:
        return (np.nan, np.nan, np.nan)
    truth = np.repeat([True, False], [n1, n0])
    auc = float(roc_auc_score(truth, np.concatenate([positive, negative])))
    q1, q2 = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    variance = auc * (1 - auc) + (n1 - 1) * (q1 - auc**2) + (n0 - 1) * (q2 - auc**2)
    error = float(np.sqrt(max(variance, 0) / (n1 * n0)))
    return auc, auc - Z95 * error, min(1.0, auc + Z95 * error)


def adjusted(p: Array) -> Array:
    """q-values of Benjamini and Hochberg (1995) over the p-values that are not NaN."""
    q = np.full(p.shape, np.nan)
    tested = np.isfinite(p)
    if tested.any():
        q[tested] = false_discovery_control(p[tested])
    return q


def ratio(part: Array, whole: Array, empty: float = np.nan) -> Array:
    """part / whole, and ``empty`` where the whole is not positive."""
    return np.where(whole > 0, part / np.where(whole > 0, whole, 1), empty)
