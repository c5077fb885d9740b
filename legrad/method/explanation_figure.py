"""An `Explanation` as a figure."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from legrad.heatmaps.figure import FigureRow, Scale, grid_figure
from legrad.heatmaps.maps import Box
from legrad.heatmaps.text import signed

if TYPE_CHECKING:
    from torch import Tensor

    from legrad.method.explanation import Explanation
    from legrad.preprocess import Preprocess

_PREVIEW_ROWS, _PREVIEW_COLUMNS, _PREVIEW_CELL = 6, 6, 160


def draw(
    found: "Explanation",
    images: Sequence[Image.Image] | None,
    queries: Sequence[str] | None,
    *,
    preprocess: "Preprocess | None",
    names: Sequence[str] | None,
    scale: Scale,
) -> Image.Image:
    """The figure of `Explanation.figure`, which says what the arguments are."""
    count, columns = found.maps.shape[:2]
    for what, given, wanted in (
        ("images", images, count),
        ("names", names, count),
        ("queries", queries, columns),
    ):
        if given is not None and len(given) != wanted:
            raise ValueError(f"{what}: expected {wanted}, found {len(given)}")
    names = names or [f"image {i}" for i in range(count)]
    maps, scores = _shown(found.maps), found.scores.float().cpu().numpy()
    boxes: list[Box | None] = [None] * count
    if preprocess and images:
        boxes = [preprocess.box(*image.size) for image in images]
    elif found.boxes is not None:
        boxes = [(box[0], box[1], box[2], box[3]) for box in found.boxes.tolist()]
    rows = [
        FigureRow(
            heatmaps=list(maps[i]),
            image=None if images is None else images[i].convert("RGB"),
            label=names[i],
            captions=[signed(score) for score in scores[i]],
            note=names[i] if images is None else "",
            box=boxes[i],
        )
        for i in range(count)
    ]
    return grid_figure(rows, queries or [f"query {i}" for i in range(columns)], scale=scale)


def preview(found: "Explanation") -> Image.Image:
    """A small figure of the first maps, each query on its own scale; says what it leaves out."""
    count, columns = found.maps.shape[:2]
    maps = _shown(found.maps[:_PREVIEW_ROWS, :_PREVIEW_COLUMNS])
    scores = found.scores[:_PREVIEW_ROWS, :_PREVIEW_COLUMNS].tolist()
    rows = [
        FigureRow(list(heat), captions=[signed(score) for score in line], note=f"image {i}")
        for i, (heat, line) in enumerate(zip(maps, scores, strict=True))
    ]
    headings = [f"query {i}" for i in range(maps.shape[1])]
    some = f"{len(rows)} of {count} images, {len(headings)} of {columns} queries"
    cut = len(rows) < count or len(headings) < columns
    return grid_figure(
        rows, headings, title=some if cut else "", scale="column", cell=_PREVIEW_CELL
    )


def _shown(maps: "Tensor") -> NDArray[np.float32]:
    """Maps to draw; one that was not asked for has no heat."""
    drawn: NDArray[np.float32] = maps.float().nan_to_num(0).cpu().numpy()
    return drawn
