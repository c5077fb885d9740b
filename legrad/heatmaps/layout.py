"""Positions and sizes in a figure, in whole pixels."""

from collections.abc import Sequence
from dataclasses import dataclass

MARGIN = 22
GAP = 12
CAPTION = 26
"""Height of the line over a cell."""
HEADING = 24
"""Height of one line of a column's heading."""
TITLE = 46
LEGEND = 44
_TALLEST = 1.5


@dataclass(frozen=True)
class Cell:
    """A rectangle, in pixels of the figure."""

    left: int
    top: int
    width: int
    height: int


@dataclass(frozen=True)
class Layout:
    """A figure's size and its cells.

    Attributes:
        width, height: size of the figure in pixels.
        left: x of the first column.
        cells: for each row, its cells left to right, with the proportions of its picture.
        cell: width of a column.
    """

    width: int
    height: int
    left: int
    cells: tuple[tuple[Cell, ...], ...]
    cell: int

    def column(self, index: int) -> int:
        """Left edge of a column."""
        return self.left + index * (self.cell + GAP)


def lay_out(
    sizes: Sequence[tuple[int, int]],
    columns: int,
    cell: int,
    *,
    title: bool = False,
    notes: int = 0,
    heading_lines: int = 1,
) -> Layout:
    """Place the rows of a figure.

    Args:
        sizes: (width, height) of each row's picture, in any unit.
        columns: number of cells per row.
        cell: width of a column in pixels; a very tall picture is narrower and centred in it.
        title: whether there is a headline.
        notes: width of the notes left of the rows in pixels; 0 for none.
        heading_lines: number of lines of the columns' headings; 0 for none.
    """
    left = MARGIN + (notes + MARGIN if notes else 0)
    top = MARGIN + (TITLE if title else 0) + heading_lines * HEADING
    cells = []
    for width, height in sizes:
        tall = max(1, min(round(cell * height / width), round(cell * _TALLEST)))
        wide = max(1, min(cell, round(tall * width / height)))
        inset = (cell - wide) // 2
        lefts = [left + i * (cell + GAP) + inset for i in range(columns)]
        cells.append(tuple(Cell(x, top + CAPTION, wide, tall) for x in lefts))
        top += CAPTION + tall + GAP
    right = left + columns * (cell + GAP) - GAP + MARGIN
    return Layout(right, top + LEGEND, left, tuple(cells), cell)
