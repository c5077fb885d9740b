"""A linear probe on the labels: discriminants with a shared, ridged covariance.

Fisher's linear discriminant between two classes, ``w = (S + ridge)^-1 (mu_a - mu_b)``, with ``S``
the pooled within-class covariance. Exact from sums, so that it is fitted anew for every fold and
every resample without the images.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

from pipeline.audit.inference import Array
from pipeline.reliance.probe_statistics import FOLDS, ProbeSums


@dataclass(frozen=True)
class Probe:
    """A fitted probe.

    Attributes:
        images: (K,) of each class that it saw.
        means: (K, E); rows of classes without images are 0.
    """

    images: Array
    means: Array
    _factor: tuple[Array, bool]

    def direction(self, one: NDArray[np.int64], other: NDArray[np.int64]) -> Array:
        """(P, E) directions that tell one class from another, for P pairs of classes."""
        found: Array = self._solve(self.means[one] - self.means[other])
        return found

    def classifier(self) -> tuple[Array, Array]:
        """Weights (K, E) and offsets (K,) of all classes at equal priors; -inf for unseen ones."""
        weights = self._solve(self.means)
        offsets = -0.5 * np.einsum("ke,ke->k", weights, self.means)
        return weights, np.where(self.images > 0, offsets, -np.inf)

    def rivals(self, least: int, audited: int | None = None) -> NDArray[np.int64]:
        """(K,) for each class the one that is hardest to tell from it (Mahalanobis distance).

        Args:
            least: images that a rival must have.
            audited: how many of the classes are labels of their own, the first ones; None: all.

        Returns:
            -1 where there is none.
        """
        weights = self._solve(self.means)
        own = np.einsum("ke,ke->k", weights, self.means)
        distance = own[:, None] + own[None] - 2 * weights @ self.means.T
        usable = (self.images >= least) & (np.arange(len(own)) < (audited or len(own)))
        distance[:, ~usable] = np.inf
        np.fill_diagonal(distance, np.inf)
        nearest: NDArray[np.int64] = distance.argmin(axis=1)
        nearest[~np.isfinite(distance.min(axis=1))] = -1
        return nearest

    def _solve(self, rows: Array) -> Array:
        solved: Array = cho_solve(self._factor, rows.T, check_finite=False).T
        return solved


def fit(sums: ProbeSums, weights: Array, ridge: float) -> Probe:
    """Fit on groups, each counted as often as its weight says.

    Args:
        weights: (G,) non-negative.
        ridge: added to the covariance, as a share of its mean eigenvalue.
    """
    images = weights @ sums.images
    totals = np.tensordot(weights, sums.sums, axes=1)
    safe = np.maximum(images, 1)[:, None]
    means = totals / safe
    scatter = np.tensordot(weights, sums.products, axes=1) - totals.T @ means
    covariance = scatter / max(images.sum() - (images > 0).sum(), 1)
    strength = ridge * np.trace(covariance) / len(covariance)
    covariance[np.diag_indices_from(covariance)] += max(strength, 1e-12)
    return Probe(images, means, cho_factor(covariance, overwrite_a=True, check_finite=False))


def cross_fitted(sums: ProbeSums, weights: Array, ridge: float) -> list[Probe]:
    """A probe for every fold that saw all groups but this fold's."""
    return [fit(sums, np.where(sums.fold == fold, 0.0, weights), ridge) for fold in range(FOLDS)]
