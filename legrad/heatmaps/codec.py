"""Compressed maps: one byte per cell and one float per map."""

import numpy as np
from numpy.typing import NDArray

LEVELS = 255


def encode_maps(
    maps: NDArray[np.floating],
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Scale each map to its own maximum and round to a byte.

    Args:
        maps: (..., h, w) finite, non-negative.

    Returns:
        cells: (..., h, w) uint8; value = cell / 255 * peak, off by at most peak / 510.
        peaks: (...) float32, the maximum of each map; 0 for an all-zero map.

    Raises:
        ValueError: a value is negative or not finite.
    """
    if not np.isfinite(maps).all() or (maps < 0).any():
        raise ValueError("maps to encode must be finite and non-negative")
    peaks = maps.max(axis=(-2, -1)).astype(np.float32)
    scale = np.where(peaks > 0, peaks, 1)[..., None, None]
    cells = np.rint(maps / scale * LEVELS).clip(0, LEVELS).astype(np.uint8)
    return cells, peaks


def decode_maps(cells: NDArray[np.uint8], peaks: NDArray[np.floating]) -> NDArray[np.float32]:
    """Inverse of `encode_maps`: (..., h, w) float32 from cells (..., h, w) and peaks (...)."""
    step = (peaks.astype(np.float32) / np.float32(LEVELS))[..., None, None]
    return cells.astype(np.float32) * step
