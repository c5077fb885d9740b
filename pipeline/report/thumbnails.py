"""Small copies of the images that are shown, and their maps, each read once."""

import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
from PIL import Image

from legrad.heatmaps.codec import encode_maps
from legrad.preprocess import Preprocess, to_rgb
from pipeline.errors import UsageError
from pipeline.machine import map_in_threads
from pipeline.report.contents import Grid, Picture
from pipeline.results import Results
from pipeline.schema import FETCH_COLUMNS

_QUALITY = 72
_COLUMNS = ("image_id", *FETCH_COLUMNS, "width", "height")


def fetch_pictures(results: Results, image_ids: Iterable[str], side: int) -> dict[str, Picture]:
    """Copies no longer than ``side`` of some images, from where they are stored."""
    wanted = sorted(set(image_ids))
    if not wanted:
        return {}
    table = results.dataset.to_table(columns=list(_COLUMNS), filter=_among(wanted))
    rows = table.to_pylist()
    pictures = map_in_threads(lambda row: _picture(results, row, side), rows)
    return {row["image_id"]: picture for row, picture in zip(rows, pictures, strict=True)}


def _picture(results: Results, row: Mapping[str, Any], side: int) -> Picture:
    size = (int(row["width"] or 1), int(row["height"] or 1))
    box = grid_box(results.preprocess, size)
    try:
        return Picture(shrink(results.origin.fetch(row), side), size, box)
    except UsageError as error:  # the picture is gone, its map is not
        return Picture(None, size, box, str(error))


def shrink(data: bytes, side: int) -> bytes:
    """An encoded image as a small WebP, upright."""
    with Image.open(io.BytesIO(data)) as image:
        image.draft("RGB", (2 * side, 2 * side))  # JPEG decodes faster to about this size
        small = to_rgb(image)
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, "WEBP", quality=_QUALITY, method=4)
    return buffer.getvalue()


def grid_box(preprocess: Preprocess, size: tuple[int, int]) -> tuple[float, float, float, float]:
    """Left, top, width, height of the map's grid in shares of the picture's sides."""
    width, height = size
    left, top, right, bottom = preprocess.box(width, height)
    return (left / width, top / height, (right - left) / width, (bottom - top) / height)


def read_grids(
    results: Results, wanted: Mapping[str, Sequence[str]]
) -> dict[tuple[str, str], Grid]:
    """Maps of some images by (query, image_id); what has none is left out.

    Args:
        wanted: query -> image_ids.
    """
    found = {}
    for query, names in wanted.items():
        ids, maps = results.maps(query, sorted(set(names)))
        there = np.isfinite(maps).all(axis=(1, 2))
        cells, peaks = encode_maps(maps[there])
        for name, grid, peak in zip(ids[there], cells, peaks, strict=True):
            found[query, str(name)] = Grid(grid.tobytes(), float(peak))
    return found


def _among(image_ids: Sequence[str]) -> ds.Expression:
    return ds.field("image_id").isin(pa.array(list(image_ids), pa.string()))
