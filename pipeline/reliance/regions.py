"""The region of a cue in an image, other positions for its shape, and fills of a region.

Regions are cells of the map's grid until `pixels_of` makes pixels of them.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.signal import correlate2d

Cells = NDArray[np.bool_]
Mask = NDArray[np.bool_]
Pixels = NDArray[np.uint8]
_SMOOTHING = 1 / 12  # standard deviation of the smooth fill, as a share of the longer side


def hottest(
    heat: NDArray[np.floating], share: float, shown: Cells | None = None, floor: float = 0.0
) -> Cells:
    """(h, w) the hottest cells of a map; none if the map has no heat.

    Args:
        heat: (h, w) non-negative.
        share: largest share of the cells.
        shown: (h, w) cells that are not padding; default all.
        floor: share of the maximum below which a cell is never chosen.
    """
    inside = np.ones(heat.shape, bool) if shown is None else shown
    values = np.where(inside, np.nan_to_num(heat), -1.0).ravel()
    count = max(1, round(share * int(inside.sum())))
    chosen = np.argsort(-values, kind="stable")[:count]
    cells = np.zeros(values.shape, dtype=bool)
    least = floor * values.max()
    cells[chosen[(values[chosen] > 0) & (values[chosen] >= least)]] = True
    return cells.reshape(heat.shape)


def elsewhere(region: Cells, taken: Cells, rng: np.random.Generator) -> Cells | None:
    """(h, w) a region moved to another position; None if it fits nowhere.

    The shape is not rotated, not wrapped around an edge and not cut off at one.

    Args:
        region: (h, w) cells.
        taken: (h, w) cells that the new position must not touch.
        rng: chooses among the possible positions.
    """
    if not region.any():
        return None
    rows, columns = np.flatnonzero(region.any(axis=1)), np.flatnonzero(region.any(axis=0))
    shape = region[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    touched = correlate2d((taken | region).astype(np.int32), shape.astype(np.int32), mode="valid")
    positions = np.argwhere(touched == 0)
    if not len(positions):
        return None
    top, left = positions[int(rng.integers(len(positions)))]
    moved = np.zeros_like(region)
    moved[top : top + shape.shape[0], left : left + shape.shape[1]] = shape
    return moved


def pixels_of(cells: Cells, size: tuple[int, int]) -> NDArray[np.bool_]:
    """(height, width) pixels of some cells; height and width are multiples of the grid's."""
    down, across = size[0] // cells.shape[0], size[1] // cells.shape[1]
    return np.repeat(np.repeat(cells, down, axis=0), across, axis=1)


def cells_of(mask: NDArray[np.bool_], grid: tuple[int, int], least: float = 0.1) -> Cells:
    """(h, w) cells of which a mask (height, width) covers at least the share ``least``."""
    down, across = mask.shape[0] // grid[0], mask.shape[1] // grid[1]
    cover = mask.reshape(grid[0], down, grid[1], across).mean(axis=(1, 3))
    result: Cells = cover >= least
    return result


def mean_colour(pixels: Pixels, mask: Mask) -> Pixels:
    """Fill a region with the mean colour of the rest of the image.

    Args:
        pixels: (3, height, width).
        mask: (height, width), True in the region.

    Returns:
        A copy.
    """
    rest = pixels[:, ~mask] if not mask.all() else pixels.reshape(3, -1)
    colour = np.rint(rest.mean(axis=1)).astype(np.uint8)
    return np.where(mask, colour[:, None, None], pixels)


def surroundings(pixels: Pixels, mask: Mask) -> Pixels:
    """Fill a region with a smooth continuation of its surroundings; arguments as `mean_colour`.

    Normalised convolution (Knutsson and Westin 1993): a Gaussian mean over the known pixels only.
    """
    reach = _SMOOTHING * max(mask.shape)
    known = (~mask).astype(np.float32)
    weight = gaussian_filter(known, reach, truncate=6.0)
    smooth = np.stack(
        [
            gaussian_filter(channel * known, reach, truncate=6.0)
            for channel in pixels.astype(np.float32)
        ]
    )
    deep = weight <= 1e-4  # too far from any known pixel
    filled = np.rint(smooth / np.where(deep, 1, weight)).clip(0, 255).astype(np.uint8)
    filled = np.where(deep, mean_colour(pixels, mask), filled)
    return np.where(mask, filled, pixels)


FILLS: dict[str, Callable[[Pixels, Mask], Pixels]] = {
    "mean": mean_colour,
    "surroundings": surroundings,
}
