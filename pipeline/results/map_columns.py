"""Stored columns -> maps; padding."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from legrad import heatmaps
from legrad.heatmaps.codec import decode_maps
from pipeline.schema import map_column, peak_column

Maps = NDArray[np.float32]


def decode_columns(table: pa.Table, query: str, grid: tuple[int, int]) -> Maps:
    """(n, h, w) float32 maps of one query from a table's columns; NaN where null."""
    stored, peaks = table[map_column(query)], table[peak_column(query)]
    return decode_arrays(as_array(stored), as_array(peaks), grid)


def decode_arrays(stored: pa.Array, peaks: pa.Array, grid: tuple[int, int]) -> Maps:
    """(n, h, w) float32 maps from fixed-size binary cells and their maxima; NaN where null."""
    size = grid[0] * grid[1]
    there = pc.is_valid(stored).to_numpy(zero_copy_only=False)
    _, data = stored.buffers()
    raw = np.frombuffer(data or b"", dtype=np.uint8)
    cells = raw[stored.offset * size : (stored.offset + len(stored)) * size]
    maxima = peaks.to_numpy(zero_copy_only=False).astype(np.float32)
    maps = decode_maps(cells.reshape(-1, *grid), np.where(there, maxima, 0).astype(np.float32))
    maps[~there] = np.nan
    return maps


def shaped(maps: Maps, normalized: bool, size: int | tuple[int, int] | None) -> Maps:
    """Maps as they were asked for.

    Args:
        maps: (..., h, w).
        normalized: each from its lowest to its highest value, 0 to 1; a constant one is 0.
        size: (height, width), or the side of a square, to bring them to, bilinear; default the
            grid.

    Raises:
        ValueError: the size is below the grid's.
    """
    if normalized:
        maps = heatmaps.normalize(maps)
    if size is None:
        return maps
    h, w = maps.shape[-2:]
    height, width = (size, size) if isinstance(size, int) else size
    if height < h or width < w:
        raise ValueError(f"size={size}: expected at least the grid, {h} x {w}")
    if (height, width) == (h, w):
        return maps
    flat = maps.reshape(-1, *maps.shape[-2:])
    larger = np.empty((len(flat), height, width), np.float32)
    for i, heat in enumerate(flat):
        larger[i] = heatmaps.upsample(heat, (height, width))
    return larger.reshape(*maps.shape[:-2], height, width)


def as_array(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """A column in one piece."""
    if isinstance(column, pa.Array):
        return column
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
