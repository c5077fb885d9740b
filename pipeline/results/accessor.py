"""``frame.legrad``: scores and maps of any frame that was read from a run's Parquet files."""

import math
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.results.errors import unknown
from pipeline.results.map_columns import Maps, decode_arrays, shaped
from pipeline.schema import map_column, peak_column

_SCORE, _MAP = "score__", "heatmap__"


@pd.api.extensions.register_dataframe_accessor("legrad")
class LegradAccessor:
    """Scores and maps in a frame's columns, however the frame was read.

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
        """Names that have a score or a map here."""
        names = (str(name) for name in self._frame.columns)
        found = [
            name.removeprefix(prefix)
            for name in names
            for prefix in (_SCORE, _MAP)
            if name.startswith(prefix)
        ]
        return list(dict.fromkeys(found))

    @property
    def scores(self) -> pd.DataFrame:
        """The scores, a column a query, named by it."""
        columns = {str(n): str(n).removeprefix(_SCORE) for n in self._frame.columns}
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
        """(n, h, w) float32 raw maps of one query, in the frame's order; NaN for none.

        Args:
            query: its name; the frame needs heatmap__NAME and heatmap_max__NAME.
            grid: (h, w) of the stored maps; default square.
            normalized: each from its lowest to its highest value, 0 to 1.
            size: (height, width), or the side of a square, to bring them to, bilinear.

        Raises:
            KeyError: the columns are not there.  ValueError: the maps are not square.
        """
        for column in (map_column(query), peak_column(query)):
            if column not in self._frame.columns:
                raise unknown("column", column, map(str, self._frame.columns), "this frame")
        values: Any = self._frame[map_column(query)]
        stored = pa.array([None if _absent(value) else value for value in values], pa.binary())
        sizes = {len(value) for value in stored.to_pylist() if value is not None}
        cells = sizes.pop() if sizes else 0 if grid is None else math.prod(grid)
        side = math.isqrt(cells)
        shape = grid or (side, side)
        if math.prod(shape) != cells:
            raise ValueError(f"maps of {cells} cells: give their grid=(h, w), {shape} does not fit")
        if not cells:
            return np.full((len(self._frame), 0, 0), np.nan, np.float32)
        peaks: NDArray[np.float32] = self._frame[peak_column(query)].to_numpy(np.float32)
        maps = decode_arrays(stored.cast(pa.binary(cells)), pa.array(peaks), shape)
        return shaped(maps, normalized, size)


def _absent(value: object) -> bool:
    return not isinstance(value, bytes)
