"""Figures with one row per image and one column per query, on a common colour scale."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from legrad.heatmaps.layout import CAPTION, HEADING, MARGIN, Cell, Layout, lay_out
from legrad.heatmaps.overlay import heat_colours, overlay
from legrad.heatmaps.text import font, shortened, wrapped
from legrad.heatmaps.transforms import normalize
from legrad.preprocess import Box

Scale = Literal["row", "column", "figure", "map"]
CELL = 300
"""Width of a column in pixels."""
_SMALL, _TEXT, _HEAD = 15, 17, 21
_INK, _FAINT, _PAPER = "#22252b", "#6b7078", "white"
_OUTLINE = "#35e0ff"
_HEADING_LINES = 2
_NOTE = 200
"""Largest width of a note."""
SCALES: tuple[Scale, ...] = get_args(Scale)
_LEGENDS: Mapping[Scale, tuple[str, str]] = {
    "row": ("no heat", "strongest heat of its row"),
    "column": ("no heat", "strongest heat of its column"),
    "figure": ("no heat", "strongest heat of the figure"),
    "map": ("lowest", "highest value of each map"),
}


@dataclass(frozen=True)
class FigureRow:
    """One row of a figure: an image and its maps.

    Attributes:
        heatmaps: (h, w) raw maps, left to right.
        image: upright RGB; None shows the maps alone.
        label: text over the picture.
        captions: texts over the maps, such as scores.
        note: text left of the row; its line breaks are kept.
        box: the part of the image that the grid covers, in its pixels, see `Preprocess.box`.
        boxes: one box for each map, where the maps cover different parts; used instead of ``box``.
        outlines: column (0 is the first map) -> bool mask (height, width) of the image, such as
            the true object; its outline is drawn.
    """

    heatmaps: Sequence[NDArray[np.floating]]
    image: Image.Image | None = None
    label: str = ""
    captions: Sequence[str] = ()
    note: str = ""
    box: Box | None = None
    boxes: Sequence[Box] = ()
    outlines: Mapping[int, NDArray[np.bool_]] = field(default_factory=dict)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the picture, or of the grid if there is no picture."""
        if self.image is not None:
            return self.image.size
        h, w = self.heatmaps[0].shape
        return w, h


def grid_figure(
    rows: Sequence[FigureRow],
    columns: Sequence[str],
    *,
    title: str = "",
    scale: Scale = "row",
    cell: int = CELL,
) -> Image.Image:
    """Draw images with their heat for every query.

    Args:
        rows: top to bottom; all with as many maps as there are columns, all or none with an image.
        columns: headings of the maps, such as the queries' texts.
        title: headline.
        scale: which maps share one colour scale, from zero to their largest value: those of a
            ``row`` (an image), of a ``column`` (a query, the only scale on which maps of
            different images are comparable), or all of the ``figure``. ``map`` shows each from
            its own lowest to its own highest value, as LeGrad's authors do, so that no two maps
            are comparable.
        cell: width of a column in pixels.

    Returns:
        RGB image.

    Raises:
        ValueError: no rows, no columns, rows that do not fit the columns, or an unknown scale.
    """
    _check(rows, columns, scale)
    pictured = rows[0].image is not None
    headings = [wrapped(text, font(_TEXT, bold=True), cell, _HEADING_LINES) for text in columns]
    notes = [
        "\n".join(wrapped(line, font(_SMALL), _NOTE, 3) for line in row.note.splitlines())
        for row in rows
    ]
    layout = lay_out(
        [row.size for row in rows],
        len(columns) + pictured,
        cell,
        title=bool(title),
        notes=max(round(font(_SMALL).getlength(line)) for line in "\n".join(notes).split("\n")),
        heading_lines=max(text.count("\n") + 1 for text in headings) if any(columns) else 0,
    )
    canvas = Image.new("RGB", (layout.width, layout.height), _PAPER)
    pen = ImageDraw.Draw(canvas)
    face = font(_HEAD, bold=True)
    pen.text((MARGIN, MARGIN), shortened(title, face, layout.width - 2 * MARGIN), _INK, face)
    _draw_headings(pen, layout, [""] * pictured + headings)
    if scale == "map":
        rows = [replace(row, heatmaps=[normalize(heat) for heat in row.heatmaps]) for row in rows]
    for row, note, cells, peaks in zip(rows, notes, layout.cells, _peaks(rows, scale), strict=True):
        middle = cells[0].top + cells[0].height // 2
        pen.multiline_text((MARGIN, middle), note, _INK, font(_SMALL), anchor="lm", spacing=7)
        _draw_row(canvas, row, cells, peaks, cell)
    _draw_legend(canvas, layout, scale)
    return canvas


def _check(rows: Sequence[FigureRow], columns: Sequence[str], scale: str) -> None:
    if not rows or not columns:
        raise ValueError("a figure needs at least one row and one column")
    if scale not in SCALES:
        raise ValueError(f"scale {scale!r}: expected one of {SCALES}")
    for row in rows:
        if len(row.heatmaps) != len(columns):
            raise ValueError(f"row {row.label!r}: {len(row.heatmaps)} maps, {len(columns)} columns")
        if (row.image is None) != (rows[0].image is None):
            raise ValueError("either all rows of a figure have an image, or none")


def _peaks(rows: Sequence[FigureRow], scale: Scale) -> NDArray[np.float64]:
    """(rows, columns): the value that is drawn at full strength in each map."""
    maxima = np.array([[float(heat.max()) for heat in row.heatmaps] for row in rows])
    if scale == "map":
        return maxima
    axis = {"row": 1, "column": 0, "figure": None}[scale]
    return np.broadcast_to(maxima.max(axis=axis, keepdims=True), maxima.shape)


def _draw_row(
    canvas: Image.Image,
    row: FigureRow,
    cells: Sequence[Cell],
    peaks: NDArray[np.float64],
    column: int,
) -> None:
    """Draw the picture, if there is one, and the maps, with a caption over each."""
    pen = ImageDraw.Draw(canvas)
    if row.image is not None:
        canvas.paste(_fitted(row.image, cells[0]), (cells[0].left, cells[0].top))
        _draw_caption(pen, cells[0], row.label, column, bold=True)
    map_cells = cells[-len(row.heatmaps) :]
    for i, cell in enumerate(map_cells):
        canvas.paste(_picture(row, i, cell, peaks[i]), (cell.left, cell.top))
    for cell, caption in zip(map_cells, row.captions, strict=False):
        _draw_caption(pen, cell, caption, column)


def _picture(row: FigureRow, column: int, cell: Cell, peak: float) -> Image.Image:
    if row.image is None:
        blank = Image.new("RGB", (cell.width, cell.height))
        return overlay(blank, row.heatmaps[column], peak=peak, opacity=1)
    across, down = cell.width / row.image.width, cell.height / row.image.height
    box = row.boxes[column] if row.boxes else row.box
    left, top, right, bottom = box or (0, 0, *row.image.size)
    scaled = (left * across, top * down, right * across, bottom * down)
    shown = overlay(_fitted(row.image, cell), row.heatmaps[column], peak=peak, box=scaled)
    if column in row.outlines:
        shown.paste(_OUTLINE, mask=_edge(row.outlines[column], cell))
    return shown


def _fitted(image: Image.Image, cell: Cell) -> Image.Image:
    return image.resize((cell.width, cell.height), Image.Resampling.LANCZOS)


def _edge(mask: NDArray[np.bool_], cell: Cell) -> Image.Image:
    """The outline of a mask, as opacity."""
    soft = Image.fromarray(mask.astype(np.uint8) * 255).resize((cell.width, cell.height))
    hard = soft.point([0] * 128 + [255] * 128)
    return ImageChops.subtract(hard.filter(ImageFilter.MaxFilter(5)), hard)


def _draw_caption(
    pen: ImageDraw.ImageDraw, cell: Cell, caption: str, column: int, *, bold: bool = False
) -> None:
    """Draw the line over a cell, from the left of its picture to the right of its column."""
    face = font(_SMALL, bold=bold)
    text = shortened(caption, face, column - (column - cell.width) // 2)
    pen.text((cell.left, cell.top - 6), text, _INK, face, anchor="ls")


def _draw_headings(pen: ImageDraw.ImageDraw, layout: Layout, headings: Sequence[str]) -> None:
    """Draw each heading on the line above its column's first caption."""
    bottom = layout.cells[0][0].top - CAPTION - 4
    for index, text in enumerate(headings):
        position = (layout.column(index), bottom - (text.count("\n") + 1) * HEADING)
        pen.multiline_text(position, text, _INK, font(_TEXT, bold=True), spacing=6)


def _draw_legend(canvas: Image.Image, layout: Layout, scale: Scale) -> None:
    """Draw the colour scale under the figure: ``no heat [colours] strongest heat of its row``."""
    pen, face = ImageDraw.Draw(canvas), font(_SMALL)
    middle = layout.height - MARGIN - 6
    left, width = layout.left, 120
    low, high = _LEGENDS[scale]
    pen.text((left, middle), low, _FAINT, face, anchor="lm")
    left += round(face.getlength(low)) + 10
    steps = np.linspace(0, 1, width)
    colours = heat_colours()[np.rint(steps * 255).astype(int)]
    grey = np.full((1, 3), 80.0)
    bar = grey * (1 - steps[:, None]) + colours * steps[:, None]
    strip = np.broadcast_to(np.rint(bar).astype(np.uint8), (12, width, 3))
    canvas.paste(Image.fromarray(np.ascontiguousarray(strip)), (left, middle - 6))
    pen.text((left + width + 10, middle), high, _FAINT, face, anchor="lm")
