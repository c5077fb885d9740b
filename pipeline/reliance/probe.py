"""A linear probe on the labels: a discriminant with a shared, ridged covariance, cross-fitted.

Fisher's linear discriminant between two classes, ``w = (S + ridge)^-1 (mu_a - mu_b)``, with ``S``
the pooled within-class covariance. Images fall into groups by a hash of their id, and every
statistic is a sum by group: leaving groups out (cross-fitting) and drawing groups again (bootstrap)
add up sums, so the embeddings are read once. scikit-learn's discriminant would have to read the
images again for every fit.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.sparse import csr_array

from pipeline.audit.inference import Array, auc_interval, share_interval
from pipeline.audit.presence import Presence
from pipeline.audit.scores import Batch, Population, Readable, batches, embeddings
from pipeline.audit.split import folds
from pipeline.errors import UsageError
from pipeline.schema import EMBEDDING

GROUPS = 40
FOLDS = 5
"""Group g belongs to fold ``g % FOLDS``."""


@dataclass(frozen=True)
class ProbeSums:
    """Sums over the images of G groups, for K classes, C cues and embeddings of width E.

    An image with several labels counts once for each of its classes.

    Attributes:
        cues: (C,) names of the cues.
        images: (G, K) number of images.
        sums: (G, K, E) sum of the embeddings.
        products: (G, E, E) sum of their outer products.
        present: (G, C, K) expected number of images with the cue.
        shared: (K, K) number of images that are in both classes.
    """

    cues: tuple[str, ...]
    images: Array
    sums: NDArray[np.float32]
    products: Array
    present: Array
    shared: Array

    @property
    def width(self) -> int:
        """E, the width of the embeddings."""
        return int(self.sums.shape[2])


def groups(image_ids: Sequence[str]) -> NDArray[np.int64]:
    """(n,) group of each image; it depends on the id alone."""
    return folds(image_ids, GROUPS)


def collect(
    results: Readable, population: Population, presence: Presence, cues: Sequence[str]
) -> ProbeSums:
    """Sum the embeddings and the presence of some cues, in one pass.

    Raises:
        UsageError: the run stored no embeddings, or no explained image has a label.
    """
    if EMBEDDING not in results.dataset.schema.names:
        raise UsageError(
            "reliance needs the embeddings of the images, and this run stored none "
            "(store.embeddings: false). Make a run with them, into another output"
        )
    classes = len(population.classes)
    sums: ProbeSums | None = None
    for batch in batches(results, population, cues, ["image_id", EMBEDDING]):
        vectors = embeddings(batch.table)
        if sums is None:
            width = vectors.shape[1]
            sums = ProbeSums(
                tuple(cues),
                np.zeros((GROUPS, classes)),
                np.zeros((GROUPS, classes, width), np.float32),
                np.zeros((GROUPS, width, width)),
                np.zeros((GROUPS, len(cues), classes)),
                np.zeros((classes, classes)),
            )
        _add(sums, batch, vectors, presence)
    if sums is None:
        raise UsageError("reliance: no explained image has a label, so no probe can be trained")
    return sums


def _add(sums: ProbeSums, batch: Batch, vectors: NDArray[np.float32], presence: Presence) -> None:
    members, classes = batch.members, sums.images.shape[1]
    group = groups(batch.table["image_id"].to_pylist())[members.rows]
    names = presence.histograms.cues
    present = [presence.of(names.index(cue), batch.codes, batch.scores(cue)) for cue in sums.cues]
    places = members.rows, members.codes
    inside = csr_array((np.ones(len(group)), places), (len(vectors), classes))
    sums.shared[...] += (inside.T @ inside).toarray()
    for number in np.unique(group):
        chosen = np.flatnonzero(group == number)
        rows, codes = members.rows[chosen], members.codes[chosen]
        of_group = vectors[rows]
        sums.images[number] += np.bincount(codes, minlength=classes)
        np.add.at(sums.sums[number], codes, of_group)
        sums.products[number] += (of_group.T @ of_group).astype(np.float64)
        for cue, values in enumerate(present):
            sums.present[number, cue] += np.bincount(codes, values[rows], minlength=classes)


@dataclass(frozen=True)
class Probe:
    """A fitted probe.

    Attributes:
        images: (K,) number of images of each class that it was fitted on.
        means: (K, E) mean embeddings, 0 for classes without images.
    """

    images: Array
    means: Array
    _factor: tuple[Array, bool]

    def direction(self, classes: NDArray[np.int64], rivals: NDArray[np.int64]) -> Array:
        """(P, E) directions from rivals to classes, for P pairs of codes."""
        return self._solve(self.means[classes] - self.means[rivals])

    def classifier(self) -> tuple[Array, Array]:
        """Weights (K, E) and offsets (K,) of all classes, equal priors; -inf for unseen ones."""
        weights = self._solve(self.means)
        offsets = -0.5 * np.einsum("ke,ke->k", weights, self.means)
        return weights, np.where(self.images > 0, offsets, -np.inf)

    def rivals(self, shared: Array, least: int, audited: int | None = None) -> NDArray[np.int64]:
        """(K,) code of each class's rival: the nearest other class by Mahalanobis distance.

        Args:
            shared: (K, K) number of images in both classes, see `ProbeSums`.
            least: number of images that each of the two must have without the other's label.
            audited: number of classes, from the first, that may be rivals; default all.

        Returns:
            -1 for a class without a rival.
        """
        weights = self._solve(self.means)
        squares = np.einsum("ke,ke->k", weights, self.means)
        distance = squares[:, None] + squares[None] - 2 * weights @ self.means.T
        count = len(squares)
        alone = self.images[:, None] - shared
        distance[np.minimum(alone, alone.T) < least] = np.inf
        distance[:, audited or count :] = np.inf
        np.fill_diagonal(distance, np.inf)
        nearest: NDArray[np.int64] = distance.argmin(axis=1)
        nearest[~np.isfinite(distance.min(axis=1))] = -1
        return nearest

    def _solve(self, rows: Array) -> Array:
        solved: Array = cho_solve(self._factor, rows.T, check_finite=False).T
        return solved


def fit(sums: ProbeSums, weights: Array, ridge: float) -> Probe:
    """Fit a probe to weighted groups.

    Args:
        weights: (G,) how often each group counts.
        ridge: what is added to the covariance, as a share of its mean eigenvalue.
    """
    images = weights @ sums.images
    totals = np.tensordot(weights, sums.sums, axes=1)
    safe = np.maximum(images, 1)[:, None]
    means = totals / safe
    scatter = np.tensordot(weights, sums.products, axes=1) - totals.T @ means
    covariance = scatter / max(images.sum() - (images > 0).sum(), 1)
    return from_moments(images, means, covariance, ridge)


def from_moments(images: Array, means: Array, covariance: Array, ridge: float) -> Probe:
    """A probe from images (K,), means (K, E) and covariance (E, E) within classes; see `fit`."""
    covariance = covariance.copy()
    strength = ridge * np.trace(covariance) / len(covariance)
    covariance[np.diag_indices_from(covariance)] += max(strength, 1e-12)
    return Probe(images, means, cho_factor(covariance, overwrite_a=True, check_finite=False))


def cross_fitted(sums: ProbeSums, weights: Array, ridge: float) -> list[Probe]:
    """For every fold, a probe fitted to the groups of all other folds."""
    folds_of_groups = np.arange(GROUPS) % FOLDS
    return [
        fit(sums, np.where(folds_of_groups == fold, 0.0, weights), ridge) for fold in range(FOLDS)
    ]


QUALITY_COLUMNS = (
    "class",
    "images",
    "accuracy",
    "accuracy_low",
    "accuracy_high",
    "chance",
    "rival",
    "auc",
    "auc_low",
    "auc_high",
)


@dataclass
class _HeldOut:
    """Values of the direction between a class and its rival, on held-out images of both."""

    of_class: list[NDArray[np.float32]]
    of_rival: list[NDArray[np.float32]]


def probe_quality(
    results: Readable, population: Population, probes: list[Probe], rivals: NDArray[np.int64]
) -> pd.DataFrame:
    """Accuracy of the probe on every class, by a second pass over the embeddings.

    Args:
        probes: for each fold, the probe that classifies its images, see `cross_fitted`.
        rivals: (K,) see `Probe.rivals`.

    Returns:
        One row per class: ``accuracy`` among all classes with equal priors and its interval
        (Wilson), ``chance`` (one over the number of classes), ``rival``, and ``auc`` of the
        direction between class and rival with its interval; NaN without a rival. Images with both
        labels do not count for ``auc``.
    """
    classes = len(population.classes)
    classifiers = [probe.classifier() for probe in probes]
    pairs = np.flatnonzero(rivals >= 0)
    lines = np.stack([probe.direction(pairs, rivals[pairs]) for probe in probes])
    lines = lines.astype(np.float32)
    right, images = np.zeros(classes), np.zeros(classes)
    held_out = {int(code): _HeldOut([], []) for code in pairs}
    for batch in batches(results, population, [], ["image_id", EMBEDDING]):
        fold = groups(batch.table["image_id"].to_pylist()) % FOLDS
        vectors, members = embeddings(batch.table), batch.members
        predicted = np.zeros(len(vectors), np.int64)
        for number, (weights, offsets) in enumerate(classifiers):
            rows = np.flatnonzero(fold == number)
            if len(rows):
                predicted[rows] = (vectors[rows] @ weights.T + offsets).argmax(axis=1)
        hits = members.codes[predicted[members.rows] == members.codes]
        right += np.bincount(hits, minlength=classes)
        images += np.bincount(members.codes, minlength=classes)
        for pair, code in enumerate(map(int, pairs)):
            of_class, of_rival = (
                members.of_class(int(c), len(vectors)) for c in (code, rivals[code])
            )
            for inside, kept in (
                (of_class & ~of_rival, held_out[code].of_class),
                (of_rival & ~of_class, held_out[code].of_rival),
            ):
                rows = np.flatnonzero(inside)
                kept.append(np.einsum("ne,ne->n", vectors[rows], lines[fold[rows], pair]))
    chance = 1 / max((images > 0).sum(), 1)
    table = []
    for code, label in enumerate(population.classes[: population.audited]):
        count = max(images[code], 1)
        low, high = (float(bound) for bound in share_interval(right[code], count))
        row = [label, int(images[code]), right[code] / count, low, high, chance]
        table.append([*row, *_against_rival(population, rivals[code], held_out.get(code))])
    return pd.DataFrame(table, columns=list(QUALITY_COLUMNS))


def _against_rival(
    population: Population, rival: int, held_out: _HeldOut | None
) -> tuple[str, float, float, float]:
    """Name of the rival, and the AUC with its interval."""
    if held_out is None:
        return ("", np.nan, np.nan, np.nan)
    auc = auc_interval(np.concatenate(held_out.of_class), np.concatenate(held_out.of_rival))
    return (population.classes[int(rival)], *auc)
