"""Properties of an image that need no model: brightness, sharpness, JPEG quality and the like.

They are measured on the upright original and not on the model's input, so that runs with different
models agree in them. To stay within a few per cent of the time for decoding, `take_sample` takes
little of each image, and `measure` works on the samples of a whole batch:

- Colours and the frame: a regular grid of 48 x 48 pixels. They are not averages of their
  surroundings, so contrast does not depend on the size of the image.
- Sharpness depends on the scale at which one looks, so it has a fixed one: the image is resized,
  up or down, to a longer side of 256 pixels. Of this, a strip of at most 160 x 8 pixels in the
  middle is used.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.schema import PROPERTIES

Column = list[float | None]
_GRID = 48
_TOGETHER = 16  # images; arrays of more would leave the processor's cache
_SIDE, _COLUMNS, _ROWS = 256, 160, 8
_AXES = np.array([(0.299, 0.587, 0.114), (1, -1, 0), (0.5, 0.5, -1)], np.float32)
"""Luma, red against green and yellow against blue, of red, green and blue."""
_GREY_SPREAD = 12  # levels of 255 by which the channels of a grey pixel may differ
_FRAME_SPREAD = 16  # levels of 255 by which pixels of a frame may differ from its corner
_STANDARD_TABLE = (  # luminance, ITU-T T.81 annex K
    *(16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55),
    *(14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62),
    *(18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92),
    *(49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99),
)


@dataclass(frozen=True)
class PixelSample:
    """What `measure` needs of an image.

    Attributes:
        size: (width, height) of the upright original in pixels.
        quality: see `jpeg_quality`.
        colours: 48 * 48 RGB pixels, row by row.
        strip: luma of a strip at the scale of the sharpness.
        shape: (rows, columns) of it.
    """

    size: tuple[int, int]
    quality: float | None
    colours: bytes
    strip: bytes
    shape: tuple[int, int]


def take_sample(image: Image.Image, rgb: Image.Image, size: tuple[int, int]) -> PixelSample:
    """Take a sample of a decoded image.

    Args:
        image: as Pillow opened it.
        rgb: the same, upright and RGB; possibly decoded at a reduced scale.
        size: (width, height) of the upright original in pixels.
    """
    colours = rgb.resize((_GRID, _GRID), Image.Resampling.NEAREST).tobytes()
    strip, shape = _strip(rgb)
    return PixelSample(size, jpeg_quality(image), colours, strip, shape)


def measure(samples: Sequence[PixelSample]) -> dict[str, Column]:
    """The properties of some images, by name, one value per sample.

    ``brightness``: mean luma, 0 to 1. ``contrast``: standard deviation of luma, 0 to 0.5.
    ``colourfulness``: Hasler and Suesstrunk (2003), 0 for grey to above 100. ``greyness``: share of
    pixels without colour. ``sharpness``: variance of the Laplacian of luma (0 to 255), None for an
    image that is a line at that scale. ``jpeg_quality``: see there. ``aspect_ratio``: width /
    height. ``megapixels``: width * height / 10^6. ``uniform_frame``: share of the area outside the
    smallest box that holds all that differs from the corners; 0 if the corners differ.
    """
    columns: dict[str, Column] = {name: [] for name in PROPERTIES}
    for start in range(0, len(samples), _TOGETHER):
        for name, values in _measure(samples[start : start + _TOGETHER]).items():
            columns[name] += values
    return columns


def _measure(samples: Sequence[PixelSample]) -> dict[str, Column]:
    raw = np.frombuffer(b"".join(sample.colours for sample in samples), np.uint8)
    planes = np.ascontiguousarray(raw.reshape(len(samples), -1, 3).transpose(2, 0, 1))
    axes = (_AXES @ planes.reshape(3, -1).astype(np.float32)).reshape(3, len(samples), -1)
    means = axes.mean(axis=2)
    axes -= means[..., None]
    contrast, *spread = np.sqrt(np.einsum("anp,anp->an", axes, axes) / _GRID**2)
    brightness, *opponent = means
    grey = planes.max(axis=0) - planes.min(axis=0) <= _GREY_SPREAD
    grids = planes.reshape(3, -1, _GRID, _GRID).swapaxes(0, 1)
    return {
        "brightness": (brightness / 255).tolist(),
        "contrast": (contrast / 255).tolist(),
        "colourfulness": (np.hypot(*spread) + 0.3 * np.hypot(*opponent)).tolist(),
        "greyness": grey.mean(axis=1).tolist(),
        "sharpness": _sharpness(samples),
        "jpeg_quality": [sample.quality for sample in samples],
        "aspect_ratio": [sample.size[0] / sample.size[1] for sample in samples],
        "megapixels": [sample.size[0] * sample.size[1] / 1e6 for sample in samples],
        "uniform_frame": [_frame(grid) for grid in grids],
    }


def _frame(grid: NDArray[np.uint8]) -> float:
    """Share of the area outside the smallest box that holds all that differs from the corners.

    Args:
        grid: (3, rows, columns).
    """
    first, *others = (grid[:, y, x].tolist() for y in (0, -1) for x in (0, -1))
    if any(abs(a - b) > _FRAME_SPREAD for corner in others for a, b in zip(corner, first)):  # noqa: B905
        return 0.0
    low = np.array([[[max(0, level - _FRAME_SPREAD)]] for level in first], np.uint8)
    high = np.array([[[min(255, level + _FRAME_SPREAD)]] for level in first], np.uint8)
    differs = np.any((grid < low) | (grid > high), axis=0)
    rows, columns = np.flatnonzero(differs.any(axis=1)), np.flatnonzero(differs.any(axis=0))
    if not len(rows):
        return 1.0
    inside = int(rows[-1] - rows[0] + 1) * int(columns[-1] - columns[0] + 1)
    return 1.0 - inside / _GRID**2


def _strip(rgb: Image.Image) -> tuple[bytes, tuple[int, int]]:
    """Luma of a strip in the middle of the image at the fixed scale, and its (rows, columns)."""
    scale = _SIDE / max(rgb.size)
    width, height = (max(1, round(side * scale)) for side in rgb.size)
    columns, rows = min(width, _COLUMNS), min(height, _ROWS)
    wide, high = columns * rgb.width / width, rows * rgb.height / height
    left, top = (rgb.width - wide) / 2, (rgb.height - high) / 2
    x, y = int(left), int(top)
    right, bottom = min(math.ceil(left + wide), rgb.width), min(math.ceil(top + high), rgb.height)
    strip = rgb.crop((x, y, right, bottom)).convert("L")
    box = (left - x, top - y, min(left - x + wide, right - x), min(top - y + high, bottom - y))
    resized = strip.resize((columns, rows), Image.Resampling.BILINEAR, box, reducing_gap=1.0)
    return resized.tobytes(), (rows, columns)


def _sharpness(samples: Sequence[PixelSample]) -> Column:
    """Variance of the Laplacian of each sample's strip."""
    by_shape: dict[tuple[int, int], list[int]] = defaultdict(list)
    for number, sample in enumerate(samples):
        by_shape[sample.shape].append(number)
    column: Column = [None] * len(samples)
    for shape, numbers in by_shape.items():
        if min(shape) < 3:
            continue
        raw = np.frombuffer(b"".join(samples[number].strip for number in numbers), np.uint8)
        luma = raw.reshape(len(numbers), *shape).astype(np.float32)
        laplacian = luma[:, :-2, 1:-1] + luma[:, 2:, 1:-1]
        laplacian += luma[:, 1:-1, :-2] + luma[:, 1:-1, 2:]
        laplacian -= 4 * luma[:, 1:-1, 1:-1]
        for number, value in zip(numbers, laplacian.var(axis=(1, 2)).tolist(), strict=True):
            column[number] = value
    return column


def jpeg_quality(image: Image.Image) -> float | None:
    """The quality of libjpeg's scale whose luminance table sums to the same as the file's.

    Exact for files written with libjpeg's tables, an estimate for others.

    Args:
        image: as Pillow opened it.

    Returns:
        1 to 100; None for a file that is not a JPEG.
    """
    tables = getattr(image, "quantization", None)
    if image.format not in ("JPEG", "MPO") or not tables:
        return None
    return float(np.interp(sum(tables[min(tables)]), *_quality_by_sum()))


@cache
def _quality_by_sum() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Sums of libjpeg's luminance table, ascending, and the qualities that give them."""
    qualities = np.arange(100, 0, -1)
    scale = np.where(qualities < 50, 5000 // qualities, 200 - 2 * qualities)
    tables = (np.array(_STANDARD_TABLE) * scale[:, None] + 50) // 100
    return np.clip(tables, 1, 255).sum(axis=1), qualities
