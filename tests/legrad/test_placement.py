"""Heat lies on the right pixels: from an encoded file through preprocessing to the overlay."""

import io

import numpy as np
import pytest
from PIL import Image

from legrad.heatmaps import FigureRow, grid_figure, overlay
from legrad.heatmaps.layout import lay_out
from legrad.preprocess import RESIZE_MODES, Preprocess, ResizeMode, to_rgb

ORIENTATION = 0x0112
PATCH, GRID = 8, 14
SIZES = [(300, 200), (200, 300), (224, 224), (640, 180)]
STORED_AS = {
    1: None,
    3: Image.Transpose.ROTATE_180,
    6: Image.Transpose.ROTATE_90,
    8: Image.Transpose.ROTATE_270,
}
"""EXIF orientation -> how a camera stores an upright picture under it."""


def scene(size: tuple[int, int], orientation: int) -> tuple[Image.Image, tuple[float, float]]:
    """A dark picture with one red square off its middle, from JPEG bytes; the square's centre.

    All within the middle square, which every preprocessing keeps.
    """
    width, height = size
    side = min(size) // 5
    centre = (width / 2 + 0.2 * min(size), height / 2 - 0.25 * min(size))
    pixels = np.full((height, width, 3), 20, dtype=np.uint8)
    left, top = round(centre[0] - side / 2), round(centre[1] - side / 2)
    pixels[top : top + side, left : left + side, 0] = 250
    stored = Image.fromarray(pixels)
    turn = STORED_AS[orientation]
    stored = stored if turn is None else stored.transpose(turn)
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    buffer = io.BytesIO()
    stored.save(buffer, "JPEG", quality=95, subsampling=0, exif=exif)
    image = Image.open(io.BytesIO(buffer.getvalue()))
    assert image.size == (size if orientation in (1, 3) else size[::-1])
    return image, (left + side / 2, top + side / 2)


def oracle_heat(preprocess: Preprocess, image: Image.Image) -> np.ndarray:
    """What a perfect model would see: how red each patch of its input is, greys being nothing."""
    red, green, blue = preprocess(image).astype(float)
    excess = red - np.maximum(green, blue)
    return (excess.reshape(GRID, PATCH, GRID, PATCH).mean(axis=(1, 3)) - 12).clip(min=0)


def centre_of_heat(shown: Image.Image, plain: Image.Image) -> tuple[float, float]:
    """(x, y) of what heat added to a picture."""
    added = np.abs(np.asarray(shown, dtype=float) - np.asarray(plain, dtype=float)).sum(axis=-1)
    rows, columns = np.indices(added.shape) + 0.5
    return float((added * columns).sum() / added.sum()), float((added * rows).sum() / added.sum())


@pytest.mark.parametrize("orientation", STORED_AS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("mode", RESIZE_MODES)
def test_heat_lies_on_the_square(mode: ResizeMode, size: tuple[int, int], orientation: int) -> None:
    image, centre = scene(size, orientation)
    preprocess = Preprocess((PATCH * GRID, PATCH * GRID), mode)
    upright = to_rgb(image)
    assert upright.size == size
    heat, box = oracle_heat(preprocess, image), preprocess.box(*upright.size)
    shown = overlay(upright, heat, box=box)
    seen = centre_of_heat(shown, overlay(upright, heat * 0, box=box))
    cell = ((box[2] - box[0]) / GRID, (box[3] - box[1]) / GRID)
    for place, expected, half in zip(seen, centre, cell, strict=True):
        assert abs(place - expected) < half / 2


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("mode", RESIZE_MODES)
def test_heat_lies_on_the_square_of_a_figure(mode: ResizeMode, size: tuple[int, int]) -> None:
    image, centre = scene(size, 1)
    preprocess = Preprocess((PATCH * GRID, PATCH * GRID), mode)
    heat, box = oracle_heat(preprocess, image), preprocess.box(*size)
    cold = np.zeros_like(heat)
    row = FigureRow([heat, cold], to_rgb(image), "square", ["+1", "+0"], box=box)
    figure = grid_figure([row], ["hot", "cold"], cell=240)
    picture, hot, plain = lay_out([size], 3, 240).cells[0]
    crops = [figure.crop((c.left, c.top, c.left + c.width, c.top + c.height)) for c in (hot, plain)]
    seen = centre_of_heat(*crops)
    scale = picture.width / size[0]
    for place, expected, low, high in zip(seen, centre, box[:2], box[2:], strict=True):
        assert abs(place - expected * scale) < 0.5 * scale * (high - low) / GRID
    original = figure.crop(
        (picture.left, picture.top, picture.left + picture.width, picture.top + picture.height)
    )
    rows, columns = np.nonzero(np.asarray(original)[..., 0] > 135)
    assert abs(columns.mean() + 0.5 - centre[0] * scale) < 1.5
    assert abs(rows.mean() + 0.5 - centre[1] * scale) < 1.5
