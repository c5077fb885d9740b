"""PIL image -> uint8 pixels of the model's input size, without torch, to keep decode workers light.

Pixels stay bytes until they are normalised, on the model's device.
"""

import math
import struct
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from legrad.value_range import is_wide, to_8_bits

ResizeMode = Literal["squash", "center_crop", "pad"]
RESIZE_MODES: tuple[str, ...] = get_args(ResizeMode)
Box = tuple[float, float, float, float]
"""(left, top, right, bottom) in image pixels; may reach beyond the image."""
_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


@dataclass(frozen=True)
class Preprocess:
    """Resize an image to the model's input.

    Attributes:
        size: (height, width) in pixels.
        mode: ``squash`` keeps the whole picture but not its aspect ratio; ``center_crop`` resizes
            the shorter side and crops the middle, as in CLIP's training; ``pad`` keeps the whole
            picture and its aspect ratio, centred in the input.
        interpolation: ``bicubic`` or ``bilinear``, both antialiased.
        fill: RGB of the padding; the model's mean normalises to zero.
        crop: share of each side of the resized image that is kept, around its centre. Classifiers
            are often tested on 224 pixels cut from 256: 0.875. It is 1 with ``pad``.
    """

    size: tuple[int, int]
    mode: ResizeMode = "squash"
    interpolation: str = "bicubic"
    fill: tuple[int, int, int] = (123, 117, 104)
    crop: float = 1.0

    def __post_init__(self) -> None:
        if self.mode not in RESIZE_MODES:
            raise ValueError(f"resize mode {self.mode!r}: expected one of {RESIZE_MODES}")
        if not 0 < self.crop <= 1 or (self.mode == "pad" and self.crop != 1):
            raise ValueError(f"crop {self.crop}: expected above 0 and at most 1, and 1 with pad")
        if self.interpolation not in _FILTERS:
            raise ValueError(
                f"interpolation {self.interpolation!r}: expected one of {sorted(_FILTERS)}"
            )

    def __call__(self, image: Image.Image) -> NDArray[np.uint8]:
        """Any PIL image -> uint8 (3, height, width), RGB."""
        return self.resize(to_rgb(image))

    def resize(self, rgb: Image.Image, area: Box | None = None) -> NDArray[np.uint8]:
        """An upright RGB image, as `to_rgb` gives it -> uint8 (3, height, width).

        Args:
            rgb: the image.
            area: the part of ``rgb`` that is the picture, in its pixels; default all of it. A JPEG
                decoded at a reduced scale may fill only part of its last row and column.
        """
        height, width = self.size
        filter_ = _FILTERS[self.interpolation]
        area = area or (0.0, 0.0, float(rgb.width), float(rgb.height))
        x, y, wide, high = area[0], area[1], area[2] - area[0], area[3] - area[1]
        if self.mode == "pad":
            left, top, right, bottom = self._content(wide, high)
            resized = Image.new("RGB", (width, height), self.fill)
            content = rgb.resize((right - left, bottom - top), filter_, box=area)
            resized.paste(content, (left, top))
        else:
            box = self.box(wide, high)
            box = (x + box[0], y + box[1], x + box[2], y + box[3])
            resized = rgb.resize((width, height), filter_, box=box)
        return np.ascontiguousarray(np.asarray(resized, dtype=np.uint8).transpose(2, 0, 1))

    def scale(self, width: float, height: float) -> float:
        """How many pixels of a width x height image fall on one of the input.

        Along the side that is shrunk least; with ``pad``, along the one that is shrunk most.
        """
        across, down = width / self.size[1], height / self.size[0]
        return max(across, down) if self.mode == "pad" else min(across, down)

    def box(self, width: float, height: float) -> Box:
        """The part of a width x height image that the input shows: (left, top, right, bottom).

        Units are pixels of the upright image; a map's grid covers exactly this box. With ``pad``
        it reaches beyond the image, whose position in the input is rounded to whole pixels.
        """
        if self.mode == "squash":
            box = (0.0, 0.0, float(width), float(height))
        else:
            box = centred_box(self.size, width, height, cover=self.mode == "center_crop")
        left, top, right, bottom = box
        across, down = ((1 - self.crop) / 2 * side for side in (right - left, bottom - top))
        return (left + across, top + down, right - across, bottom - down)

    def cells(self, width: int, height: int, grid: tuple[int, int]) -> tuple[slice, slice]:
        """Rows and columns of an h x w grid that show a width x height image, not padding.

        A cell counts if its centre lies on the image; at least one cell is returned.
        """
        if self.mode != "pad":
            return slice(0, grid[0]), slice(0, grid[1])
        left, top, right, bottom = self._content(width, height)
        return (
            _centres_within(top, bottom, self.size[0] / grid[0]),
            _centres_within(left, right, self.size[1] / grid[1]),
        )

    def transform(self) -> dict[str, str]:
        """`box` as formulas in ``width`` and ``height``, for users without this package."""
        if self.mode == "squash":
            if self.crop == 1:
                return {"left": "0", "top": "0", "right": "width", "bottom": "height"}
            near, far = (1 - self.crop) / 2, (1 + self.crop) / 2
            shares = {"left": near, "top": near, "right": far, "bottom": far}
            sides = {"left": "width", "top": "height", "right": "width", "bottom": "height"}
            return {edge: f"{share:.6g} * {sides[edge]}" for edge, share in shares.items()}
        fit = "min" if self.mode == "center_crop" else "max"
        tall, wide = self.size
        scale = f"{fit}(width / {wide}, height / {tall})"
        if self.crop != 1:
            scale = f"{self.crop:.6g} * {scale}"
        return {
            "left": f"(width - {wide} * {scale}) / 2",
            "top": f"(height - {tall} * {scale}) / 2",
            "right": f"(width + {wide} * {scale}) / 2",
            "bottom": f"(height + {tall} * {scale}) / 2",
        }

    def _content(self, width: float, height: float) -> tuple[int, int, int, int]:
        """Where ``pad`` puts an image: left, top, right, bottom in whole input pixels."""
        tall, wide = self.size
        scale = max(width / wide, height / tall)
        inner_wide = min(wide, max(1, round(width / scale)))
        inner_tall = min(tall, max(1, round(height / scale)))
        left, top = (wide - inner_wide) // 2, (tall - inner_tall) // 2
        return left, top, left + inner_wide, top + inner_tall


def centred_box(size: tuple[int, int], width: float, height: float, *, cover: bool) -> Box:
    """A box with the aspect ratio of ``size``, centred in a width x height image.

    Args:
        size: (height, width).
        width, height: size of the image in pixels.
        cover: whether to return the largest box inside the image; else the smallest around it.
    """
    scale = (min if cover else max)(width / size[1], height / size[0])
    box_width, box_height = size[1] * scale, size[0] * scale
    left, top = (width - box_width) / 2, (height - box_height) / 2
    return (left, top, left + box_width, top + box_height)


def _centres_within(start: int, stop: int, cell: float) -> slice:
    """Cells whose centre lies in [start, stop); the one in the middle if none does."""
    first, last = math.ceil(start / cell - 0.5), math.ceil(stop / cell - 0.5)
    if last > first:
        return slice(first, last)
    middle = int((start + stop) / 2 / cell)
    return slice(middle, middle + 1)


def to_rgb(image: Image.Image) -> Image.Image:
    """Upright 8-bit RGB of any PIL mode; see `rgb_and_note`."""
    return rgb_and_note(image)[0]


def rgb_and_note(image: Image.Image) -> tuple[Image.Image, str | None]:
    """Upright 8-bit RGB of any PIL mode, and what was guessed to get it; None if nothing was.

    EXIF rotation is applied, wider values are scaled to 8 bits (see `legrad.value_range`), and
    transparency is shown on white, since dropping the alpha channel would reveal arbitrary hidden
    colours.

    Raises:
        ValueError: a picture of floats has no finite value.
    """
    note = None
    turn = _TURNS.get(orientation(image))
    if is_wide(image):
        image, note = to_8_bits(image)
    image = image if turn is None else image.transpose(turn)
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB"), note
    return image.convert("RGB"), note


def orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 to 8; 1 (upright) where it is missing or damaged."""
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except (ValueError, TypeError, OSError, SyntaxError, struct.error):
        return 1
    return value if value in range(1, 9) else 1
