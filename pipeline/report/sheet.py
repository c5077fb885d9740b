"""A sheet of overlays: an image a row; the picture, its class, a cue and the baseline."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from pipeline.results import Results

_CELL_INCHES = 1.85
_HEAD_INCHES = 0.75
_OUTLINE = "#35e0ff"
_INK = "#22252b"


@dataclass(frozen=True)
class SheetRow:
    """One row of the sheet.

    Attributes:
        image_id: which image.
        queries: names of the queries shown, left to right.
        note: a line under the label, such as what was planted.
        outlines: per query the true mask, bool (height, width) of the picture, where it is known.
    """

    image_id: str
    queries: Sequence[str]
    note: str = ""
    outlines: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)


def draw_sheet(
    results: Results, rows: Sequence[SheetRow], columns: Sequence[str], path: Path, title: str
) -> None:
    """Write the sheet as a PNG.

    All maps of a row share one colour scale, from zero to the row's largest value, so that a faint
    map looks faint. A cyan line is the outline of what is truly there.

    Args:
        results: where maps and pictures come from.
        rows: what to show, top to bottom.
        columns: headings of the query columns, as many as every row has queries.
        path: the PNG to write.
        title: headline.

    Raises:
        ValueError: there are no rows.
        KeyError: no such image or query.
    """
    if not rows:
        raise ValueError("a sheet needs at least one row")
    figure, grid = _canvas(len(rows), len(columns) + 1, title)
    frame = results.scores(sorted({query for row in rows for query in row.queries}))
    scores = {
        row.image_id: dict(
            zip(
                row.queries, frame.loc[[row.image_id], list(row.queries)].to_numpy()[0], strict=True
            )
        )
        for row in rows
    }
    labels = results.images(columns=["label"])["label"]
    for axes, row in zip(grid, rows, strict=True):
        _draw_row(axes, row, results, scores[row.image_id])
        axes[0].text(
            *(-0.06, 0.5),
            f"{labels[row.image_id]}\n{row.note}" if row.note else str(labels[row.image_id]),
            transform=axes[0].transAxes,
            ha="right",
            va="center",
            size=8.5,
            color=_INK,
            linespacing=1.5,
        )
    for axis, name in zip(grid[0], ["image", *columns], strict=True):
        axis.text(
            *(0.5, 1.16),
            name,
            transform=axis.transAxes,
            ha="center",
            size=10,
            weight="bold",
            color=_INK,
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def _canvas(down: int, across: int, title: str) -> tuple[Figure, NDArray[np.object_]]:
    """An empty sheet and its cells, (down, across)."""
    height = down * (_CELL_INCHES + 0.28) + _HEAD_INCHES
    figure = Figure(figsize=(across * (_CELL_INCHES + 0.12) + 1.75, height), dpi=130)
    figure.patch.set_facecolor("white")
    grid = figure.subplots(down, across, squeeze=False)
    figure.subplots_adjust(
        left=1.72 / figure.get_figwidth(),
        right=1 - 0.1 / figure.get_figwidth(),
        top=1 - _HEAD_INCHES / height,
        bottom=0.08 / height,
        wspace=0.06,
        hspace=0.16,
    )
    figure.text(
        0.012, 1 - 0.2 / height, title, color=_INK, size=11, weight="bold", ha="left", va="center"
    )
    return figure, grid


def _draw_row(
    axes: Sequence[Axes], row: SheetRow, results: Results, scores: Mapping[str, float]
) -> None:
    maps = {query: results.maps(query, [row.image_id])[1][0] for query in row.queries}
    peak = max(float(heat.max()) for heat in maps.values())
    _show(axes[0], results.image(row.image_id), "")
    for axis, query in zip(axes[1:], row.queries, strict=True):
        picture = results.overlay(row.image_id, query, peak=peak)
        _show(axis, picture, f"{query.replace('_', ' ')}   {scores[query]:+.2f}")
        if query in row.outlines:
            axis.contour(row.outlines[query], levels=[0.5], colors=_OUTLINE, linewidths=0.9)


def _show(axis: Axes, picture: Image.Image, title: str) -> None:
    axis.imshow(picture, interpolation="lanczos")
    axis.set_title(title, size=8, color=_INK, pad=3)
    axis.set_xticks([])
    axis.set_yticks([])
    for spine in axis.spines.values():
        spine.set_visible(False)
