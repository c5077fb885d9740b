"""Where a cue is in an image, and where else a region of its shape could lie. Cells, no pixels."""

import numpy as np
from numpy.typing import NDArray
from scipy.signal import correlate2d

Cells = NDArray[np.bool_]


def hottest(
    heat: NDArray[np.floating], share: float, shown: Cells | None = None, floor: float = 0.0
) -> Cells:
    """(h, w) the hottest cells of a map; none where the map has no heat.

    Args:
        heat: (h, w) non-negative.
        share: of the cells, at most.
        shown: cells that are not padding.
        floor: share of the maximum below which a cell is not hot, however few there are.
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
    """A region of the same shape in another place, whole and upright; None where it fits nowhere.

    Nothing is wrapped around an edge or cut off at one: either would make another shape.

    Args:
        region: (h, w).
        taken: (h, w) cells that the new place must not touch.
        rng: draws one of the places.
    """
    if not region.any():
        return None
    rows, columns = np.flatnonzero(region.any(axis=1)), np.flatnonzero(region.any(axis=0))
    shape = region[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    touched = correlate2d((taken | region).astype(np.int32), shape.astype(np.int32), mode="valid")
    places = np.argwhere(touched == 0)
    if not len(places):
        return None
    top, left = places[int(rng.integers(len(places)))]
    moved = np.zeros_like(region)
    moved[top : top + shape.shape[0], left : left + shape.shape[1]] = shape
    return moved


def pixels_of(cells: Cells, size: tuple[int, int]) -> NDArray[np.bool_]:
    """(height, width) the pixels of some cells; sides are multiples of the grid's."""
    down, across = size[0] // cells.shape[0], size[1] // cells.shape[1]
    return np.repeat(np.repeat(cells, down, axis=0), across, axis=1)


def cells_of(mask: NDArray[np.bool_], grid: tuple[int, int], least: float = 0.1) -> Cells:
    """(h, w) cells of which a mask (height, width) covers at least a share."""
    down, across = mask.shape[0] // grid[0], mask.shape[1] // grid[1]
    cover = mask.reshape(grid[0], down, grid[1], across).mean(axis=(1, 3))
    result: Cells = cover >= least
    return result
