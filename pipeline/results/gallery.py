"""A grid of pictures with a query's heat, for a cell of a notebook."""

from base64 import b64encode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from io import BytesIO

import numpy as np
from PIL import Image

from legrad import heatmaps
from pipeline.errors import UsageError
from pipeline.results import drawing
from pipeline.results.answers import Selection, maps
from pipeline.results.opened import Opened
from pipeline.schema import score_column

MOST_IMAGES = 60
_SIDE = 192
_QUALITY = 80
_STYLE = (
    ".legrad{display:flex;flex-wrap:wrap;gap:12px}"
    ".legrad figure{margin:0;width:192px;font-size:12px}"
    ".legrad .picture{display:grid}.legrad img{grid-area:1/1;max-width:100%}"
    ".legrad .picture:hover img+img{opacity:0}"
    ".legrad figcaption{overflow-wrap:anywhere}"
)


@dataclass(frozen=True)
class Cell:
    """An image of a gallery.

    Attributes:
        image_id, label: as in the results; the label may be empty.
        score: of the query, None where the image has none.
        picture: the original, with sides of at most 192 pixels; None if it can no longer be read.
        heat: the same with heat over it; None where there is no map.
    """

    image_id: str
    label: str
    score: float | None
    picture: Image.Image | None
    heat: Image.Image | None

    @property
    def caption(self) -> str:
        """Score, label and id, as far as there are any."""
        score = "no score" if self.score is None else f"{self.score:+.3f}"
        return " · ".join(text for text in (score, self.label, self.image_id) if text)


@dataclass(frozen=True)
class Gallery:
    """Images with a query's heat: a notebook shows them as a grid, and print lists them.

    All maps have one scale, so that heat on an image without the cue is as faint as it is there.
    The original is seen while the pointer rests on a picture.

    Attributes:
        query: name of the query.
        cells: the images.
    """

    query: str
    cells: tuple[Cell, ...]

    def __repr__(self) -> str:
        return "\n".join([f"{self.query}:", *(f"  {cell.caption}" for cell in self.cells)])

    def _repr_html_(self) -> str:
        figures = "".join(
            f"<figure>{_pictures(cell)}<figcaption>{escape(cell.caption)}</figcaption></figure>"
            for cell in self.cells
        )
        return f"<style>{_STYLE}</style><div class='legrad'>{figures}</div>"


def gallery(results: Opened, query: str, image_ids: Sequence[str]) -> Gallery:
    """The gallery of some images; their files are read again.

    Raises:
        KeyError: no such query or image.
        UsageError: no image, or more than `MOST_IMAGES`.
    """
    if not 0 < len(image_ids) <= MOST_IMAGES:
        raise UsageError(f"view: expected 1 to {MOST_IMAGES} images, found {len(image_ids)}")
    run = results.run_of(query)
    ids, heat = maps(Selection(results.rows, {query: run}, image_ids))
    scored = query in {q.name for q in results.queries}
    columns = ["label", *([score_column(query)] if scored else [])]
    rows = results.rows.select(list(ids), columns).to_pylist()
    peak = float(np.nanmax(heat)) if np.isfinite(heat).any() else None
    cells = []
    for image_id, cells_of_map, row in zip(ids, heat, rows, strict=True):
        picture = with_heat = None
        try:
            picture = drawing.original(results, image_id)
        except UsageError:
            pass  # the cell says so
        else:
            picture.thumbnail((_SIDE, _SIDE))
            if np.isfinite(cells_of_map).all():
                box = run.preprocess.box(*picture.size)
                with_heat = heatmaps.overlay(picture, cells_of_map, peak=peak, box=box)
        score = row.get(score_column(query))
        cells.append(Cell(image_id, row["label"] or "", score, picture, with_heat))
    return Gallery(query, tuple(cells))


def _pictures(cell: Cell) -> str:
    """The original, and its heat above it."""
    if cell.picture is None:
        return "<p>its file can no longer be read</p>"
    return f"<div class='picture'>{''.join(_images(cell))}</div>"


def _images(cell: Cell) -> Iterator[str]:
    for picture in (cell.picture, cell.heat):
        if picture is not None:
            file = BytesIO()
            picture.save(file, "JPEG", quality=_QUALITY)
            yield f"<img alt='' src='data:image/jpeg;base64,{b64encode(file.getvalue()).decode()}'>"
