"""What the background painters share: smooth noise, colour ramps, a supersampled canvas."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor

Field = NDArray[np.float32]
Pixels = NDArray[np.float32]
SUPERSAMPLING = 2


def noise(rng: np.random.Generator, side: int, cells: int | tuple[int, int]) -> Field:
    """Smooth noise in about [-1, 1], float32 (side, side), ``cells`` bumps across (and down).

    The bumps are drawn on a grid of fixed size, so a picture is the same at every ``side``.
    """
    across, down = (cells, cells) if isinstance(cells, int) else cells
    grid = rng.uniform(-1, 1, size=(down + 3, across + 3)).astype(np.float32)
    box = (1.0, 1.0, across + 2.0, down + 2.0)
    smooth = Image.fromarray(grid).resize((side, side), Image.Resampling.BICUBIC, box=box)
    return np.asarray(smooth)


def mesh(side: int) -> tuple[Field, Field]:
    """Coordinates x (1, side) and y (side, 1) of pixel centres, in [0, 1]."""
    line = ((np.arange(side) + 0.5) / side).astype(np.float32)
    return line[None, :], line[:, None]


def ramp(field: Field, colours: Sequence[str]) -> Pixels:
    """Map values in [0, 1] to colours spread evenly; float32 (side, side, 3) in [0, 255]."""
    stops = np.linspace(0, 1, len(colours))
    table = np.array([ImageColor.getrgb(colour) for colour in colours], dtype=np.float32)
    grid = np.linspace(0, 1, 256)
    palette = np.stack([np.interp(grid, stops, table[:, c]) for c in range(3)], axis=1)
    index = (np.clip(field, 0, 1) * 255).astype(np.uint8)
    return palette.astype(np.float32)[index]


def to_image(pixels: Pixels) -> Image.Image:
    """RGB image of float pixels in [0, 255]."""
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def shaded(
    rng: np.random.Generator, colour: tuple[int, int, int], spread: float
) -> tuple[int, int, int]:
    """The colour made lighter or darker by up to ``spread`` (a fraction)."""
    factor = 1 + rng.uniform(-spread, spread)
    red, green, blue = (min(255, round(channel * factor)) for channel in colour)
    return red, green, blue
