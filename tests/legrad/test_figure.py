"""Figures: sizes, scales, text that fits, and what an `Explanation` shows of itself."""

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from legrad import Explanation
from legrad.heatmaps import FigureRow, Scale, grid_figure
from legrad.heatmaps.layout import lay_out
from legrad.heatmaps.text import font, shortened, signed, wrapped
from legrad.preprocess import Preprocess

SIZE = (60, 40)
GREY = Image.new("RGB", SIZE, (90, 90, 90))
WEAK, STRONG = np.full((2, 3), 1.0), np.full((2, 3), 4.0)


def cell_means(figure: Image.Image, rows: int, columns: int, cell: int) -> np.ndarray:
    """(rows, columns) mean brightness of the maps."""
    layout = lay_out([SIZE] * rows, columns + 1, cell)
    grey = np.asarray(figure.convert("L"), dtype=float)
    return np.array(
        [
            [grey[c.top : c.top + c.height, c.left : c.left + c.width].mean() for c in row[1:]]
            for row in layout.cells
        ]
    )


@pytest.mark.parametrize("scale", ["row", "column", "figure"])
def test_maps_on_one_scale_differ_as_their_values(scale: Scale) -> None:
    """Values 1 4 / 4 8: which cells are shown at full strength is what the scale is."""
    rows = [
        FigureRow([WEAK, STRONG], GREY, "one"),
        FigureRow([STRONG, 2 * STRONG], GREY, "two"),
    ]
    seen = cell_means(grid_figure(rows, ["a", "b"], scale=scale, cell=80), 2, 2, 80)
    full = {"row": [(0, 1), (1, 1)], "column": [(1, 0), (1, 1)], "figure": [(1, 1)]}[scale]
    for place in np.ndindex(2, 2):
        if place in full:
            assert seen[place] == pytest.approx(seen.max(), abs=1)
        else:
            assert seen[place] < seen.max() - 20


def test_maps_on_their_own_scales_show_their_form_alone() -> None:
    ramp = np.linspace(0, 1, 6).reshape(2, 3)
    row = FigureRow([ramp, 100 + 3 * ramp], GREY)
    left, right = (
        np.asarray(grid_figure([row], ["a", "b"], scale="map", cell=80).crop(box), dtype=float)
        for box in (
            (c.left, c.top, c.left + c.width, c.top + c.height)
            for c in lay_out([SIZE], 3, 80).cells[0][1:]
        )
    )
    assert np.abs(left - right).max() <= 1
    assert left.max() - left.min() > 100


def test_pictures_keep_their_proportions_and_stay_within_the_figure() -> None:
    sizes = [(100, 100), (400, 100), (100, 1000), (1, 1), (3000, 10)]
    layout = lay_out(sizes, 3, 200, title=True, notes=80)
    for (width, height), cells in zip(sizes, layout.cells, strict=True):
        for index, cell in enumerate(cells):
            assert 0 < cell.width <= 200
            assert abs(cell.width * height / width - cell.height) <= max(1, height / width)
            assert layout.column(index) <= cell.left
            assert cell.left + cell.width <= layout.column(index) + 200
            assert cell.top + cell.height < layout.height
    tops = [row[0].top for row in layout.cells]
    ends = [row[0].top + row[0].height for row in layout.cells]
    assert all(top > end for top, end in zip(tops[1:], ends, strict=False))


def test_a_map_may_cover_a_part_of_its_own() -> None:
    """The second map covers the right half only; the rest of its cell is drawn as without heat."""
    width, height = SIZE
    boxes = [(0, 0, width, height), (width / 2, 0, width, height)]
    row = FigureRow([STRONG, STRONG], GREY, boxes=boxes)
    figure = np.asarray(grid_figure([row], ["a", "b"], cell=80).convert("L"), dtype=float)
    _, first, second = lay_out([SIZE], 3, 80).cells[0]
    cells = [figure[c.top : c.top + c.height, c.left : c.left + c.width] for c in (first, second)]
    edge = second.width // 2
    np.testing.assert_allclose(cells[0][:, edge + 2 :], cells[1][:, edge + 2 :], atol=1)
    assert (cells[0][:, : edge - 2] > cells[1][:, : edge - 2] + 20).all()


def test_an_outline_is_drawn_around_what_is_there() -> None:
    mask = np.zeros((40, 60), dtype=bool)
    mask[10:30, 20:40] = True
    row = FigureRow([WEAK * 0], GREY)
    cell = lay_out([SIZE], 2, 120).cells[0][1]
    box = (cell.left, cell.top, cell.left + cell.width, cell.top + cell.height)
    pictures = [
        np.asarray(grid_figure([r], ["q"], cell=120).crop(box), dtype=float)
        for r in (row, replace(row, outlines={0: mask}))
    ]
    rows, columns = np.nonzero(np.abs(pictures[0] - pictures[1]).sum(axis=-1))
    assert (rows.min(), rows.max()) == pytest.approx((20, 59), abs=4)
    assert (columns.min(), columns.max()) == pytest.approx((40, 79), abs=4)
    assert not np.abs(pictures[0] - pictures[1])[30:50, 50:70].any()


@pytest.mark.parametrize(
    ("rows", "columns", "scale", "words"),
    [
        ([], ["a"], "row", "at least one row"),
        ([FigureRow([], GREY)], [], "row", "at least one row and one column"),
        ([FigureRow([WEAK], GREY)], ["a", "b"], "row", "1 maps, 2 columns"),
        ([FigureRow([WEAK], GREY), FigureRow([WEAK])], ["a"], "row", "all rows .* or none"),
        ([FigureRow([WEAK], GREY)], ["a"], "rows", "expected one of"),
    ],
)
def test_what_is_no_figure(
    rows: list[FigureRow], columns: list[str], scale: Scale, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        grid_figure(rows, columns, scale=scale)


@pytest.mark.parametrize("text", ["short", "a/very/long/path/" * 9 + "x.jpg", "", "W" * 300])
def test_text_is_cut_in_its_middle_to_the_width(text: str) -> None:
    face = font(15)
    seen = shortened(text, face, 120)
    assert face.getlength(seen) <= 120
    assert seen == text or (seen[0] == text[0] and seen[-1] == text[-1] and "\u2026" in seen)
    lines = wrapped(text.replace("/", " "), face, 120, 2).split("\n")
    assert len(lines) <= 2
    assert all(face.getlength(line) <= 120 for line in lines)


def test_scores_have_a_sign() -> None:
    assert [signed(value) for value in (0.1234, -0.5)] == ["+0.123", "\u22120.500"]


def explanation(images: int, queries: int) -> Explanation:
    generator = torch.Generator().manual_seed(0)
    return Explanation(
        maps=torch.rand((images, queries, 4, 4), generator=generator),
        scores=torch.rand((images, queries), generator=generator),
        image_features=torch.zeros(images, 8),
        selected=torch.ones((images, queries), dtype=torch.bool),
        layers=1,
    )


@pytest.mark.parametrize(("images", "queries"), [(1, 1), (2, 3), (40, 90)])
def test_a_notebook_shows_maps_of_an_explanation(images: int, queries: int) -> None:
    with Image.open(io.BytesIO(explanation(images, queries)._repr_png_())) as picture:
        assert picture.format == "PNG"
        assert picture.width < 1500
        assert picture.height < 1500


def test_an_explanation_draws_itself_over_its_images() -> None:
    found = explanation(2, 3)
    preprocess = Preprocess((32, 32), "center_crop")
    names = ["first.png", "second.png"]
    seen = found.figure([GREY, GREY], ["a", "b", "c"], preprocess=preprocess, names=names)
    layout = lay_out([SIZE, SIZE], 4, 300)
    assert seen.size == (layout.width, layout.height)
    cell = layout.cells[0][1]
    shown = np.asarray(seen.convert("L"), dtype=float)[cell.top + cell.height // 2]
    outside, inside = shown[cell.left + 10], shown[cell.left + cell.width // 2]
    assert outside < 0.6 * inside
    assert found.figure().width < seen.width
    for wrong in ({"images": [GREY]}, {"queries": ["a"]}, {"names": ["a"] * 3}):
        with pytest.raises(ValueError, match="expected"):
            found.figure(**wrong)  # type: ignore[arg-type]
