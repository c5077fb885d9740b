"""Histograms of the scores by class, and the sums of them that a fit needs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from pipeline.audit.inference import Array
from pipeline.audit.scores import Population, Readable, batches
from pipeline.audit.split import confirming

_COARSE_BINS = 128  # enough to find where the states are


@dataclass(frozen=True)
class Histograms:
    """Histograms of the scores of C cues in K classes, B bins each.

    Attributes:
        cues: (C,) names.
        edges: (C, 2) lowest and highest score; the bins of a cue are equally wide.
        counts: (C, K, B) images.
    """

    cues: tuple[str, ...]
    edges: Array
    counts: NDArray[np.float32]

    @property
    def width(self) -> Array:
        """(C,) width of a bin."""
        result: Array = (self.edges[:, 1] - self.edges[:, 0]) / self.counts.shape[2]
        return result

    @property
    def centres(self) -> Array:
        """(C, B) score in the middle of each bin."""
        return self.edges[:, :1] + (np.arange(self.counts.shape[2]) + 0.5) * self.width[:, None]

    def bins(self, cue: int, scores: Array) -> NDArray[np.int64]:
        """(n,) bin of each score."""
        low, high = self.edges[cue]
        count = self.counts.shape[2]
        scaled = (scores - low) * (count / (high - low)) + 1e-9  # a score on an edge is above it
        result: NDArray[np.int64] = scaled.astype(np.int64).clip(0, count - 1)
        return result


def count_histograms(
    results: Readable,
    population: Population,
    cues: Sequence[str],
    bins: int,
    thresholds: Mapping[str, float] | None = None,
    halved: frozenset[str] = frozenset(),
) -> Histograms:
    """Histograms of all cues in two passes over the scores: first their ranges, then the counts.

    Args:
        thresholds: cue -> score that must lie on the edge of a bin.
        halved: cues that were found by looking at these images, of which only the confirming half
            counts.
    """
    edges = np.tile([np.inf, -np.inf], (len(cues), 1))
    for batch in batches(results, population, cues):
        for row, cue in enumerate(cues):
            scores = batch.scores(cue)
            edges[row] = min(edges[row, 0], scores.min()), max(edges[row, 1], scores.max())
    flat = ~(edges[:, 1] > edges[:, 0])  # constant scores, or no images: any width will do
    edges[flat] = np.where(np.isfinite(edges[flat]), edges[flat], 0.0) + np.array([-0.5, 0.5])
    for cue, threshold in (thresholds or {}).items():
        row = list(cues).index(cue)
        edges[row] = _edges_through(edges[row], threshold, bins)
    classes = len(population.classes)
    histograms = Histograms(tuple(cues), edges, np.zeros((len(cues), classes, bins), np.float32))
    extra = ["image_id"] if halved else []
    for batch in batches(results, population, cues, extra):
        half = confirming(batch.table["image_id"].to_pylist()) if halved else None
        for row, cue in enumerate(cues):
            rows = half if half is not None and cue in halved else slice(None)
            cells = batch.codes[rows] * bins + histograms.bins(row, batch.scores(cue)[rows])
            counted = np.bincount(cells, minlength=classes * bins)
            histograms.counts[row] += counted.reshape(classes, bins)
    return histograms


def _edges_through(edges: Array, threshold: float, bins: int) -> Array:
    """Lowest and highest score, moved by less than a bin so that a bin begins at the threshold."""
    low, high = min(edges[0], threshold), max(edges[1], threshold)
    width = (high - low) / (bins - 1.5)
    start = threshold - np.ceil((threshold - low) / width) * width
    return np.array([start, start + bins * width])


@dataclass(frozen=True)
class HistogramSums:
    """Histograms of C cues in K classes with the sums that a fit needs.

    Attributes:
        counts: (C, K, B) images.
        centres: (C, B) score in the middle of each bin.
        images: (C, K) number of images.
        mean: (C, K) mean score, 0 for an empty class.
        within: (C,) sum of squared deviations from the class means.
        floor: (C,) smallest standard deviation that bins of this width can resolve.
    """

    counts: Array
    centres: Array
    images: Array
    mean: Array
    within: Array
    floor: Array

    @classmethod
    def of(cls, histogram: NDArray[np.floating], centres: Array, width: Array) -> "HistogramSums":
        """Compute the sums from counts (C, K, B), bin centres (C, B) and bin widths (C,)."""
        counts: Array = histogram.astype(np.float64)
        images = counts.sum(axis=2)
        mean = np.einsum("ckb,cb->ck", counts, centres) / np.maximum(images, 1)
        squares = np.einsum("ckb,ckb->c", counts, (centres[:, None] - mean[..., None]) ** 2)
        return cls(counts, centres, images, mean, squares, width / 2)

    def take(self, cues: NDArray[np.int64]) -> "HistogramSums":
        """The same for some of the cues, by index."""
        return HistogramSums(*(getattr(self, field.name)[cues] for field in fields(self)))

    def leading(self, classes: int) -> "HistogramSums":
        """The same for the largest classes only."""
        if self.images.shape[1] <= classes:
            return self
        order = np.argsort(-self.images.sum(axis=0), kind="stable")[:classes]
        width = self.floor * 2
        return HistogramSums.of(self.counts[:, order], self.centres, width)

    def coarse(self) -> "HistogramSums":
        """The same with fewer bins, if their number can be divided evenly."""
        cues, classes, bins = self.counts.shape
        factor = bins // _COARSE_BINS
        if factor < 2 or bins % _COARSE_BINS:
            return self
        shape = (cues, classes, _COARSE_BINS, factor)
        counts = self.counts.reshape(shape).sum(axis=3)
        centres = self.centres.reshape(cues, _COARSE_BINS, factor).mean(axis=2)
        return HistogramSums.of(counts, centres, self.floor * 2 * factor)
