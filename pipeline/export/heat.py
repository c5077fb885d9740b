"""Heat as regions of the original picture: masks, boxes, run lengths."""

import numpy as np
from numpy.typing import NDArray

from legrad.heatmaps.transforms import upsample
from legrad.preprocess import Preprocess

Mask = NDArray[np.bool_]


def hot_region(
    heat: NDArray[np.float32], size: tuple[int, int], preprocess: Preprocess, share: float
) -> Mask:
    """(height, width) pixels whose heat is at least a share of the map's maximum.

    Args:
        heat: (h, w) raw map.
        size: (width, height) of the original.
    """
    width, height = size
    if not float(heat.max()) > 0:
        return np.zeros((height, width), dtype=bool)
    large = upsample(heat, (height, width), preprocess.box(width, height))
    return np.asarray(large >= share * float(heat.max()))


def bounding_box(mask: Mask) -> tuple[int, int, int, int]:
    """COCO's box of a mask that is not empty: left, top, width, height."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    left, top = int(columns[0]), int(rows[0])
    return (left, top, int(columns[-1]) - left + 1, int(rows[-1]) - top + 1)


def run_lengths(mask: Mask) -> list[int]:
    """COCO's uncompressed run lengths: by columns, zeros first."""
    flat = mask.ravel(order="F").astype(np.int8)
    edges = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff(np.concatenate([[0], edges, [len(flat)]])).tolist()
    return [0, *runs] if flat[0] else [int(run) for run in runs]
