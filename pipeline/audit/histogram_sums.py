"""Histograms of scores by class, summed up for a fit: all, the largest classes only, few bins."""

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
_COARSE = 128  # bins that are enough to find the states


@dataclass(frozen=True)
class Moments:
    """What a histogram says of its classes.

    Attributes:
        counts: (C, K, B).
        centres: (C, B).
        images: (C, K).
        mean: (C, K), 0 for an empty class.
        within: (C,) sum of squares about the class means.
        floor: (C,) smallest standard deviation that bins of this width can tell.
    """

    counts: Array
    centres: Array
    images: Array
    mean: Array
    within: Array
    floor: Array

    @classmethod
    def of(cls, histogram: NDArray[np.floating], centres: Array, width: Array) -> "Moments":
        """Sum up a histogram."""
        counts: Array = histogram.astype(np.float64)
        images = counts.sum(axis=2)
        mean = np.einsum("ckb,cb->ck", counts, centres) / np.maximum(images, 1)
        squares = np.einsum("ckb,ckb->c", counts, (centres[:, None] - mean[..., None]) ** 2)
        return cls(counts, centres, images, mean, squares, width / 2)

    def take(self, places: NDArray[np.int64]) -> "Moments":
        """Some of the cues."""
        return Moments(*(getattr(self, field.name)[places] for field in fields(self)))

    def leading(self, classes: int) -> "Moments":
        """The largest classes only."""
        if self.images.shape[1] <= classes:
            return self
        order = np.argsort(-self.images.sum(axis=0), kind="stable")[:classes]
        width = self.floor * 2
        return Moments.of(self.counts[:, order], self.centres, width)

    def coarse(self) -> "Moments":
        """The same with few bins, where they divide evenly."""
        cues, classes, bins = self.counts.shape
        factor = bins // _COARSE
        if factor < 2 or bins % _COARSE:
            return self
        shape = (cues, classes, _COARSE, factor)
        counts = self.counts.reshape(shape).sum(axis=3)
        centres = self.centres.reshape(cues, _COARSE, factor).mean(axis=2)
        return Moments.of(counts, centres, self.floor * 2 * factor)
