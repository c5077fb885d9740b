"""Properties of an image that need no model: brightness, sharpness, JPEG quality and the like.

They are measured on the upright original and not on the model's input, so that runs with different
models agree in them. To stay within a few per cent of the time for decoding, `take_sample` takes
little of each image, and `measure` works on the samples of a whole batch:

- Colours and the frame: a regular grid of 48 x 48 pixels. They are not averages of their
  surroundings, so contrast does not depend on the size of the image.
- Sharpness depends on the scale at which one looks, so it has a fixed one: the image is resized,
  up or down, to a longer side of 256 pixels. Of this, two strips of at most 192 x 6 pixels are
  used: on the left at a quarter of the height, and on the right at three quarters.
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
_SIDE, _STRIP, _ROWS = 256, 192, 6
_GREY_SPREAD = 12  # levels of 255 by which the channels of a grey pixel may differ
_FRAME_SPREAD = 16  # levels of 255 by which pixels of a frame may differ from its corner
_STANDARD_TABLE = (  # luminance, ITU-T T.81 annex K
    *(16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55),
    *(14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62),
    *(18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92),
    *(49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99),
)


@dataclass(frozen=True)
class Sample:
    """What `measure` needs of an image.

    Attributes:
        size: (width, height) of the upright original in pixels.
        quality: see `jpeg_quality`.
        colours: 48 * 48 RGB pixels, row by row.
        strips: luma of the strips at the scale of the sharpness.
        shape: (strips, rows, columns) of them.
    """

    size: tuple[int, int]
    quality: float | None
    colours: bytes
    strips: bytes
    shape: tuple[int, int, int]


def take_sample(image: Image.Image, rgb: Image.Image) -> Sample:
    """Take a sample of a decoded image.

    Args:
        image: as Pillow opened it.
        rgb: the same, upright and RGB.
    """
    colours = rgb.resize((_GRID, _GRID), Image.Resampling.NEAREST).tobytes()
    strips, shape = _strips(rgb)
    return Sample(rgb.size, jpeg_quality(image), colours, strips, shape)


def measure(samples: Sequence[Sample]) -> dict[str, Column]:
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


def _measure(samples: Sequence[Sample]) -> dict[str, Column]:
    raw = np.frombuffer(b"".join(sample.colours for sample in samples), np.uint8)
    pixels = np.ascontiguousarray(raw.reshape(len(samples), -1, 3).transpose(2, 0, 1))
    red, green, blue = pixels.astype(np.float32)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    red_green, yellow_blue = red - green, (red + green) / 2 - blue
    colourfulness = np.hypot(red_green.std(axis=1), yellow_blue.std(axis=1))
    colourfulness += 0.3 * np.hypot(red_green.mean(axis=1), yellow_blue.mean(axis=1))
    spread = pixels.max(axis=0) - pixels.min(axis=0)
    return {
        "brightness": (luma.mean(axis=1) / 255).tolist(),
        "contrast": (luma.std(axis=1) / 255).tolist(),
        "colourfulness": colourfulness.tolist(),
        "greyness": (spread <= _GREY_SPREAD).mean(axis=1).tolist(),
        "sharpness": _sharpness(samples),
        "jpeg_quality": [sample.quality for sample in samples],
        "aspect_ratio": [sample.size[0] / sample.size[1] for sample in samples],
        "megapixels": [sample.size[0] * sample.size[1] / 1e6 for sample in samples],
        "uniform_frame": [_frame(grid) for grid in raw.reshape(-1, _GRID, _GRID, 3)],
    }


def _frame(grid: NDArray[np.uint8]) -> float:
    """Share of the area outside the smallest box that holds all that differs from the corners."""
    first, *others = (grid[y, x].tolist() for y in (0, -1) for x in (0, -1))
    if any(abs(a - b) > _FRAME_SPREAD for corner in others for a, b in zip(corner, first)):  # noqa: B905
        return 0.0
    gap = np.abs(grid.astype(np.int16) - grid[0, 0])
    differs = (gap > _FRAME_SPREAD).any(axis=2)
    rows, columns = (np.flatnonzero(differs.any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return 1.0
    inside = int(rows[-1] - rows[0] + 1) * int(columns[-1] - columns[0] + 1)
    return 1.0 - inside / _GRID**2


def _strips(rgb: Image.Image) -> tuple[bytes, tuple[int, int, int]]:
    """Luma of two strips at the fixed scale, or of the whole image if it is too low for two."""
    scale = _SIDE / max(rgb.size)
    width, height = (max(1, round(side * scale)) for side in rgb.size)
    columns = min(width, _STRIP)
    rows, count = (_ROWS, 2) if height >= 2 * _ROWS else (height, 1)
    wide, high = columns * rgb.width / width, rows * rgb.height / height
    strips = b""
    for number in range(count):
        start = (number + 0.5) / count * rgb.height - high / 2
        top, bottom = int(start), min(rgb.height, math.ceil(start + high))
        left, right = (0, math.ceil(wide)) if number == 0 else (int(rgb.width - wide), rgb.width)
        strip = rgb.crop((left, top, right, bottom)).convert("L")
        box = (0, start - top, min(wide, strip.width), min(start - top + high, strip.height))
        size = (columns, rows)
        resized = strip.resize(size, Image.Resampling.BILINEAR, box, reducing_gap=1.0)
        strips += resized.tobytes()
    return strips, (count, rows, columns)


def _sharpness(samples: Sequence[Sample]) -> Column:
    """Variance of the Laplacian of each sample's strips."""
    by_shape: dict[tuple[int, int, int], list[int]] = defaultdict(list)
    for number, sample in enumerate(samples):
        by_shape[sample.shape].append(number)
    column: Column = [None] * len(samples)
    for shape, numbers in by_shape.items():
        if min(shape[1:]) < 3:
            continue
        raw = np.frombuffer(b"".join(samples[number].strips for number in numbers), np.uint8)
        luma = raw.reshape(len(numbers), *shape).astype(np.float32)
        laplacian = luma[..., :-2, 1:-1] + luma[..., 2:, 1:-1]
        laplacian += luma[..., 1:-1, :-2] + luma[..., 1:-1, 2:]
        laplacian -= 4 * luma[..., 1:-1, 1:-1]
        for number, value in zip(numbers, laplacian.var(axis=(1, 2, 3)).tolist(), strict=True):
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
