"""The images that a report shows: small copies, their maps, and copies of edited images."""

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
from PIL import Image

from legrad.heatmaps.codec import encode_maps
from legrad.preprocess import Preprocess, to_rgb
from pipeline.auditor import Audit
from pipeline.errors import UsageError
from pipeline.machine import map_in_threads
from pipeline.report.contents import EditPicture, Grid, Limits, Picture
from pipeline.results import Results
from pipeline.schema import FETCH_COLUMNS

_QUALITY = 72  # of WebP
_EDITS_PER_PAIR = 4
PICTURE_COLUMNS = ("image_id", *FETCH_COLUMNS, "width", "height")


def fetch_pictures(results: Results, image_ids: Iterable[str], side: int) -> dict[str, Picture]:
    """Copies of some images, by image_id, whose longer side has ``side`` pixels at most."""
    wanted = sorted(set(image_ids))
    if not wanted:
        return {}
    table = results.dataset.to_table(columns=list(PICTURE_COLUMNS), filter=_among(wanted))
    rows = table.to_pylist()
    pictures = map_in_threads(lambda row: copy_picture(results, row, side), rows)
    return {row["image_id"]: picture for row, picture in zip(rows, pictures, strict=True)}


def copy_picture(results: Results, row: Mapping[str, Any], side: int) -> Picture:
    """A copy of the image of a row with `PICTURE_COLUMNS`; without data if there can be none."""
    size = (int(row["width"] or 1), int(row["height"] or 1))
    box = grid_box(results.preprocess, size)
    try:
        return Picture(_shrink(results.origin.open(row), side), size, box)
    except UsageError as error:  # the map can be shown without the picture
        return Picture(None, size, box, str(error))
    except Exception as error:  # noqa: BLE001 - decoders raise anything; the page says what
        why = f"{row['image_id']}: cannot be decoded: {type(error).__name__}: {error}"
        return Picture(None, size, box, why)


def _shrink(opened: Image.Image, side: int) -> bytes:
    """An opened image as a small WebP, upright."""
    with opened as image:
        image.draft("RGB", (2 * side, 2 * side))  # JPEG decodes faster to about this size
        small = to_rgb(image)
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    return _webp(small)


def _webp(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=_QUALITY, method=4)
    return buffer.getvalue()


def grid_box(preprocess: Preprocess, size: tuple[int, int]) -> tuple[float, float, float, float]:
    """Left, top, width and height of the map's grid, as shares of the picture's sides."""
    width, height = size
    left, top, right, bottom = preprocess.box(width, height)
    return (left / width, top / height, (right - left) / width, (bottom - top) / height)


def read_grids(
    results: Results, wanted: Mapping[str, Sequence[str]]
) -> dict[tuple[str, str], Grid]:
    """Maps of some images by (query, image_id); images without a map are left out.

    Args:
        results: results of a run.
        wanted: query -> image_ids.
    """
    grids = {}
    for query, image_ids in wanted.items():
        ids, maps = results.maps(query, sorted(set(image_ids)))
        kept = np.isfinite(maps).all(axis=(1, 2))
        cells, peaks = encode_maps(maps[kept])
        for image_id, grid, peak in zip(ids[kept], cells, peaks, strict=True):
            grids[query, str(image_id)] = Grid(grid.tobytes(), float(peak))
    return grids


def _among(image_ids: Sequence[str]) -> ds.Expression:
    return ds.field("image_id").isin(pa.array(list(image_ids), pa.string()))


def edit_pictures(audit: Audit, cls: str, cue: str, limits: Limits) -> list[EditPicture]:
    """A few edits of a pair; none if it was not tested, or if no image may be shown."""
    if audit.settings.depth != "reliance" or not limits.images:
        return []
    if (cls, cue) not in audit.reliance.pairs:
        return []
    from pipeline.reliance.edits import Kind

    count = min(_EDITS_PER_PAIR, limits.each)
    return [
        EditPicture(
            edit.kind is Kind.DELETED,
            _uri(edit.before),
            _uri(edit.after),
            _uri(edit.control),
            edit.change,
            edit.control_change,
        )
        for edit in audit.reliance.examples(cls, cue, count, limits.side)
    ]


def _uri(picture: Image.Image) -> str:
    return f"data:image/webp;base64,{base64.b64encode(_webp(picture)).decode()}"
