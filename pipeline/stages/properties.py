"""Properties of an image that need no model: brightness, sharpness, JPEG quality and the like.

They are measured on the upright original and not on the model's input, so that runs with different
models agree in them. To stay within a few per cent of the time for decoding, colours are taken from
a sample of the pixels, and sharpness from a few strips:

- Colours: every nth pixel of every nth row, so that the longer side has 48 of them. Pixels are
  not averaged, so contrast does not depend on the size of the image.
- Sharpness depends on the scale at which one looks, so it has a fixed one: the image is resized,
  up or down, to a longer side of 256 pixels. Two strips across the whole width are enough.
"""

import math
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_SAMPLE_SIDE = 48  # pixels of the longer side from which colours and the frame are taken
_SHARPNESS_SIDE = 256  # pixels of the longer side at the scale of the sharpness
_STRIPS, _STRIP_ROWS = 2, 6
_GREY_SPREAD = 12  # levels of 255 by which the channels of a grey pixel may differ
_FRAME_SPREAD = 16  # levels of 255 by which pixels of a frame may differ from its corner
_STANDARD_TABLE = (  # luminance, ITU-T T.81 annex K
    *(16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55),
    *(14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62),
    *(18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92),
    *(49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99),
)


def measure(image: Image.Image, rgb: Image.Image) -> dict[str, float | None]:
    """The properties `pipeline.schema.PROPERTIES` of an image.

    ``brightness``: mean luma, 0 to 1. ``contrast``: standard deviation of luma, 0 to 0.5.
    ``colourfulness``: Hasler and Suesstrunk (2003), 0 for grey to above 100. ``greyness``: share of
    pixels without colour. ``sharpness``: variance of the Laplacian of luma (0 to 255) at a fixed
    scale. ``jpeg_quality``: 1 to 100 by the quantisation table; None for other formats.
    ``aspect_ratio``: width / height. ``megapixels``: width * height / 10^6. ``uniform_frame``:
    share of the area outside the smallest box that holds all that differs from the corners; 0 if
    the corners differ.

    Args:
        image: as Pillow opened and decoded it.
        rgb: the same, upright and RGB.
    """
    planes = _sample(rgb)
    red, green, blue = planes.reshape(3, -1).astype(np.float32)
    brightness, contrast = _mean_and_deviation(0.299 * red + 0.587 * green + 0.114 * blue)
    red_green = _mean_and_deviation(red - green)
    yellow_blue = _mean_and_deviation((red + green) / 2 - blue)
    return {
        "brightness": brightness / 255,
        "contrast": contrast / 255,
        "colourfulness": math.hypot(red_green[1], yellow_blue[1])
        + 0.3 * math.hypot(red_green[0], yellow_blue[0]),
        "greyness": _greyness(planes),
        "sharpness": _sharpness(rgb),
        "jpeg_quality": jpeg_quality(image),
        "aspect_ratio": rgb.width / rgb.height,
        "megapixels": rgb.width * rgb.height / 1e6,
        "uniform_frame": _frame(planes),
    }


def _sample(rgb: Image.Image) -> NDArray[np.uint8]:
    """(3, h, w) every nth pixel of every nth row."""
    width, height = _scaled(rgb, min(1.0, _SAMPLE_SIDE / max(rgb.size)))
    raw = rgb.resize((width, height), Image.Resampling.NEAREST).tobytes()
    pixels = np.frombuffer(raw, np.uint8).reshape(-1, 3)
    return np.ascontiguousarray(pixels.T).reshape(3, height, width)


def _mean_and_deviation(values: NDArray[np.float32]) -> tuple[float, float]:
    """Mean and standard deviation of a contiguous array, faster than numpy's for small ones."""
    flat = values.ravel()
    mean = float(flat.sum()) / flat.size
    flat = flat - np.float32(mean)
    return mean, math.sqrt(float(np.vdot(flat, flat)) / flat.size)


def _scaled(rgb: Image.Image, scale: float) -> tuple[int, int]:
    return max(1, round(rgb.width * scale)), max(1, round(rgb.height * scale))


def _greyness(planes: NDArray[np.uint8]) -> float:
    """Share of the pixels whose channels hardly differ."""
    red, green, blue = planes
    highest = np.maximum(np.maximum(red, green), blue)
    lowest = np.minimum(np.minimum(red, green), blue)
    return int(np.count_nonzero(highest - lowest <= _GREY_SPREAD)) / red.size


def _frame(planes: NDArray[np.uint8]) -> float:
    """Share of the area outside the smallest box that holds all that differs from the corners."""
    corners = planes[:, [0, 0, -1, -1], [0, -1, 0, -1]].astype(np.int16)
    if np.abs(corners - corners[:, :1]).max() > _FRAME_SPREAD:
        return 0.0
    gap = np.abs(planes.astype(np.int16) - corners[:, :1, None])
    differs = (gap > _FRAME_SPREAD).any(axis=0)
    rows, columns = (np.flatnonzero(differs.any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return 1.0
    inside = (rows[-1] - rows[0] + 1) * (columns[-1] - columns[0] + 1)
    return 1.0 - float(inside) / differs.size


def _sharpness(rgb: Image.Image) -> float | None:
    """Variance of the Laplacian of a few strips; None where the image is a line at that scale."""
    scale = _SHARPNESS_SIDE / max(rgb.size)
    width, height = _scaled(rgb, scale)
    if min(width, height) < 3:
        return None
    count, rows = _STRIPS, _STRIP_ROWS
    if height < count * rows:
        count, rows = 1, height
    high = rows * rgb.height / height  # of a strip, in pixels of the image
    strips = []
    for number in range(count):
        start = (number + 0.5) / count * rgb.height - high / 2
        top, bottom = int(start), min(rgb.height, math.ceil(start + high))
        strip = rgb.crop((0, top, rgb.width, bottom)).convert("L")
        box = (0, start - top, rgb.width, min(start - top + high, bottom - top))
        size, bilinear = (width, rows), Image.Resampling.BILINEAR
        strips.append(np.asarray(strip.resize(size, bilinear, box=box, reducing_gap=1.0)))
    luma = np.stack(strips).astype(np.float32)
    laplacian = luma[:, :-2, 1:-1] + luma[:, 2:, 1:-1]
    laplacian += luma[:, 1:-1, :-2]
    laplacian += luma[:, 1:-1, 2:]
    laplacian -= 4 * luma[:, 1:-1, 1:-1]
    return _mean_and_deviation(laplacian)[1] ** 2


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
