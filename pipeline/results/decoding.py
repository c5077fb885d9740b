"""Stored columns -> maps, for our tables and, as ``frame.legrad``, for frames of plain pandas."""

import math
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from legrad import heatmaps
from legrad.heatmaps.codec import decode_maps
from pipeline.errors import unknown_name
from pipeline.schema import map_column, peak_column, score_column

Maps = NDArray[np.float32]
_SCORE, _MAP = score_column(""), map_column("")


def stored_maps(table: pa.Table, query: str) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """The stored form of one query's maps: (n, cells) bytes and (n,) maxima, NaN where null."""
    return stored_arrays(as_array(table[map_column(query)]), as_array(table[peak_column(query)]))


def stored_arrays(
    cells: pa.Array, peaks: pa.Array
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """(n, cells) bytes and (n,) maxima from a fixed-size binary and a float array; NaN where null.

    The bytes are those of the column, not a copy.
    """
    size = cells.type.byte_width
    _, data = cells.buffers()
    raw = np.frombuffer(data or b"", dtype=np.uint8)
    raw = raw[cells.offset * size : (cells.offset + len(cells)) * size]
    has_map = pc.is_valid(cells).to_numpy(zero_copy_only=False)
    maxima = np.where(has_map, peaks.to_numpy(zero_copy_only=False), np.nan)
    return raw.reshape(-1, size), maxima.astype(np.float32)


def decode_columns(table: pa.Table, query: str, grid: tuple[int, int]) -> Maps:
    """(n, h, w) float32 maps of one query from the columns of a table; NaN where null."""
    return decode_arrays(
        as_array(table[map_column(query)]), as_array(table[peak_column(query)]), grid
    )


def decode_arrays(cells: pa.Array, peaks: pa.Array, grid: tuple[int, int]) -> Maps:
    """(n, h, w) float32 maps from fixed-size binary cells and their maxima; NaN where null."""
    raw, maxima = stored_arrays(cells, peaks)
    return decode_maps(raw.reshape(-1, *grid), maxima)


def shaped(maps: Maps, normalized: bool, size: int | tuple[int, int] | None) -> Maps:
    """Maps in the requested value range and size.

    Args:
        maps: (..., h, w).
        normalized: scale each map from its lowest to its highest value, to 0 to 1; a constant map
            becomes 0.
        size: (height, width), or the side of a square, to interpolate to (bilinear); default the
            grid.

    Raises:
        ValueError: the size is smaller than the grid.
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
    flat = maps.reshape(-1, h, w)
    larger = np.empty((len(flat), height, width), np.float32)
    for i, heat in enumerate(flat):
        larger[i] = heatmaps.upsample(heat, (height, width))
    return larger.reshape(*maps.shape[:-2], height, width)


def as_array(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """A column as one array."""
    if isinstance(column, pa.Array):
        return column
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)


@pd.api.extensions.register_dataframe_accessor("legrad")
class LegradAccessor:
    """Scores and maps in the columns of a frame, whatever read it from a run's Parquet files.

    Registered by ``import pipeline.results``::

        frame = pd.read_parquet("out/images", columns=["label", "heatmap__dog",
                                                       "heatmap_max__dog"])
        frame[frame.label == "dog"].legrad.maps("dog").mean(axis=0)
    """

    def __init__(self, frame: pd.DataFrame) -> None:
        self._frame = frame
        if not any(str(name).startswith((_SCORE, _MAP)) for name in frame.columns):
            raise AttributeError(
                "no legrad columns in this frame: expected some of score__NAME, or heatmap__NAME "
                "with heatmap_max__NAME, as pd.read_parquet('OUT/images') gives"
            )

    @property
    def queries(self) -> list[str]:
        """Names of the queries that have a score or a map in the frame."""
        names = [
            name.removeprefix(prefix)
            for name in map(str, self._frame.columns)
            for prefix in (_SCORE, _MAP)
            if name.startswith(prefix)
        ]
        return list(dict.fromkeys(names))

    @property
    def scores(self) -> pd.DataFrame:
        """The scores, one column per query, named by the query."""
        columns = {str(name): str(name).removeprefix(_SCORE) for name in self._frame.columns}
        wanted = [name for name in columns if name.startswith(_SCORE)]
        return self._frame[wanted].rename(columns=columns)

    def maps(
        self,
        query: str,
        *,
        grid: tuple[int, int] | None = None,
        normalized: bool = False,
        size: int | tuple[int, int] | None = None,
    ) -> Maps:
        """(n, h, w) float32 raw maps of one query, in the order of the frame; NaN where none.

        Args:
            query: its name; the frame needs heatmap__NAME and heatmap_max__NAME.
            grid: (h, w) of the stored maps; default a square.
            normalized: scale each map from its lowest to its highest value, to 0 to 1.
            size: (height, width), or the side of a square, to interpolate to (bilinear).

        Raises:
            KeyError: the columns are missing.  ValueError: the maps do not fit the grid.
        """
        for column in (map_column(query), peak_column(query)):
            if column not in self._frame.columns:
                raise unknown_name("column", column, map(str, self._frame.columns), "this frame")
        values: Any = self._frame[map_column(query)]
        cells = pa.array([v if isinstance(v, bytes) else None for v in values], pa.binary())
        lengths = {len(value) for value in cells.to_pylist() if value is not None}
        length = lengths.pop() if lengths else 0 if grid is None else math.prod(grid)
        side = math.isqrt(length)
        shape = grid or (side, side)
        if math.prod(shape) != length:
            raise ValueError(
                f"maps of {length} cells: expected grid=(h, w) with h * w cells, found {shape}"
            )
        if not length:
            return np.full((len(self._frame), 0, 0), np.nan, np.float32)
        peaks: NDArray[np.float32] = self._frame[peak_column(query)].to_numpy(np.float32)
        maps = decode_arrays(cells.cast(pa.binary(length)), pa.array(peaks), shape)
        return shaped(maps, normalized, size)
