"""Originals, fetched again, and heat over them."""

import io
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from legrad import heatmaps
from legrad.preprocess import to_rgb
from pipeline.errors import UsageError
from pipeline.results.errors import UnknownNameError
from pipeline.results.rows import ID
from pipeline.results.run import Run
from pipeline.schema import FETCH_COLUMNS

if TYPE_CHECKING:
    from pipeline.results.opened import Opened


def original(results: "Opened", image_id: str) -> Image.Image:
    """The upright RGB original."""
    return _fetched(*_found(results, image_id))


def overlay(results: "Opened", image_id: str, query: str, peak: float | None) -> Image.Image:
    """The original with heat over it."""
    run = results.run_of(query)
    home, row = _found(results, image_id)
    if row["status"] != "ok":
        raise UsageError(f"{image_id}: no map, its status is {row['status']}: {row['error']}")
    table = results.rows.select([image_id], run.map_columns([query]))
    heat = run.decode(table, query)[0]
    if np.isnan(heat).any():
        raise UsageError(f"{image_id}: no map of {query}, the run kept others (store.maps)")
    picture = _fetched(home, row)
    return heatmaps.overlay(picture, heat, peak=peak, box=run.preprocess.box(*picture.size))


def _found(results: "Opened", image_id: str) -> tuple[Run, dict[str, Any]]:
    """The first run that has an image, and the row that says where it lies."""
    for run in results.runs:
        table = run.rows.select([image_id], [ID, *FETCH_COLUMNS, "status", "error"])
        row: dict[str, Any] = table.to_pylist()[0]
        if row[ID] is not None:
            return run, row
    raise UnknownNameError(f"no image {image_id!r} in {results.uri}")


def _fetched(run: Run, row: dict[str, Any]) -> Image.Image:
    with Image.open(io.BytesIO(run.origin.fetch(row))) as image:
        return to_rgb(image)
