"""Values over images with bootstrap intervals."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Statistic = Callable[[Array], Array]
"""From the means of K columns, (R, K), to R values."""
DRAWS = 2000


@dataclass(frozen=True)
class Estimate:
    """A value, and its interval over images."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.1f} ({self.low:.1f} to {self.high:.1f})"


def _first(means: Array) -> Array:
    return means[:, 0]


def estimate(
    rows: NDArray[np.floating], statistic: Statistic = _first, level: float = 0.95
) -> Estimate:
    """The value of a statistic over images, with a percentile bootstrap interval.

    Args:
        rows: (N,) or (N, K), one row per image.
        statistic: function from the means of the K columns to the value, for many draws at once;
            default: the first mean.
        level: share of the draws that the interval holds.
    """
    table = np.asarray(rows, dtype=np.float64).reshape(len(rows), -1)
    weights = np.random.default_rng(0).multinomial(
        len(table), np.full(len(table), 1 / len(table)), size=DRAWS
    )
    drawn = statistic(weights @ table / len(table))
    low, high = np.nanquantile(drawn, ((1 - level) / 2, (1 + level) / 2))
    return Estimate(float(statistic(table.mean(axis=0)[None])[0]), float(low), float(high))
