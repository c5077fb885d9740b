"""Heat as regions of the original picture: masks, boxes, run lengths.

pycocotools encodes run lengths, too, but is a compiled package that nothing else here needs.
"""

from collections.abc import Sequence

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


def compressed(runs: Sequence[int]) -> str:
    """COCO's text form of run lengths.

    From the fourth on, a run is stored as its difference from the run two before. Each number is
    split into groups of 5 bits, lowest first, in two's complement; a sixth bit says that another
    group follows, and the character is "0" plus the group.
    """
    characters = []
    for number, run in enumerate(runs):
        value = run - runs[number - 2] if number > 2 else run
        more = True
        while more:
            group, value = value & 31, value >> 5
            more = value != (-1 if group & 16 else 0)
            characters.append(chr(ord("0") + group + 32 * more))
    return "".join(characters)
