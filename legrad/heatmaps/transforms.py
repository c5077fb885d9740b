"""Transformations of maps before they are shown: normalise, suppress, upsample."""

import numpy as np
from numpy.typing import NDArray

from legrad.preprocess import Box

PUBLISHED_THRESHOLD = 0.8


def normalize(heatmap: NDArray[np.floating]) -> NDArray[np.float32]:
    """Min-max each (h, w) map of (..., h, w) to [0, 1]; a constant map gives zeros."""
    low = heatmap.min(axis=(-2, -1), keepdims=True)
    span = heatmap.max(axis=(-2, -1), keepdims=True) - low
    scaled: NDArray[np.floating] = (heatmap - low) / np.where(span > 0, span, 1)
    return scaled.astype(np.float32)


def suppress(
    heatmap: NDArray[np.floating],
    baseline: NDArray[np.floating],
    threshold: float = PUBLISHED_THRESHOLD,
) -> NDArray[np.float32]:
    """Zero the cells in which the map of a baseline query is hot.

    Some tokens attract attention whatever the text, and are hot even for an empty one. LeGrad's
    published code zeroes them for SigLIP, with an empty prompt as the baseline. Stored maps are
    raw: apply this to a map that was read and the baseline's map of the same image.

    Args:
        heatmap: (..., h, w), raw.
        baseline: (h, w) or (..., h, w), the baseline's map of the same images.
        threshold: cells above it in the baseline's min-max-normalised map become zero.

    Returns:
        A copy; all other cells as they were. A constant baseline suppresses nothing.

    Raises:
        ValueError: the grids differ, or the threshold is outside [0, 1].
    """
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold {threshold}: expected 0 to 1")
    if heatmap.shape[-2:] != baseline.shape[-2:]:
        raise ValueError(
            f"the map is {heatmap.shape[-2:]} and its baseline {baseline.shape[-2:]}: expected "
            "maps of one image, on one grid"
        )
    kept: NDArray[np.floating] = np.where(normalize(baseline) > threshold, 0, heatmap)
    return kept.astype(np.float32)


def upsample(
    heatmap: NDArray[np.floating], size: tuple[int, int], box: Box | None = None
) -> NDArray[np.float32]:
    """Bilinear (h, w) -> size (height, width), grid cells centred on their patches.

    Args:
        heatmap: (h, w).
        size: (height, width) in pixels, not smaller than the grid.
        box: the part of these pixels that the grid covers; default: all. Pixels whose centre lies
            outside are zero.
    """
    height, width = size
    left, top, right, bottom = box or (0.0, 0.0, float(width), float(height))
    rows = _interpolation(height, top, bottom, heatmap.shape[0])
    columns = _interpolation(width, left, right, heatmap.shape[1])
    placed = rows @ heatmap.astype(np.float32) @ columns.T
    return np.asarray(placed, dtype=np.float32)


def _interpolation(pixels: int, start: float, stop: float, cells: int) -> NDArray[np.float32]:
    """(pixels, cells): how much of each cell's value each pixel shows; rows sum to 1, or to 0."""
    centre = np.arange(pixels) + 0.5
    inside = (centre >= start) & (centre < stop)
    position = (centre - start) / (stop - start) * cells - 0.5
    distance = np.abs(position.clip(0, cells - 1)[:, None] - np.arange(cells))
    weights: NDArray[np.floating] = np.maximum(1 - distance, 0) * inside[:, None]
    return weights.astype(np.float32)
