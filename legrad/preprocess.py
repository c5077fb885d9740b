"""PIL image -> uint8 pixels of the model's input size; no torch, so that decode workers stay light.

Normalisation is not done here: pixels travel as bytes and are normalised on the device.
"""

import struct
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

ResizeMode = Literal["squash", "center_crop"]
RESIZE_MODES: tuple[str, ...] = get_args(ResizeMode)
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
        mode: ``squash`` resizes both sides freely and keeps the whole picture, edges included;
            ``center_crop`` resizes the shorter side and crops the middle, as CLIP was trained.
        interpolation: ``bicubic`` or ``bilinear``, both antialiased.
    """

    size: tuple[int, int]
    mode: ResizeMode = "squash"
    interpolation: str = "bicubic"

    def __post_init__(self) -> None:
        if self.mode not in RESIZE_MODES:
            raise ValueError(f"resize mode {self.mode!r}: expected one of {RESIZE_MODES}")
        if self.interpolation not in _FILTERS:
            raise ValueError(
                f"interpolation {self.interpolation!r}: expected one of {sorted(_FILTERS)}"
            )

    def __call__(self, image: Image.Image) -> NDArray[np.uint8]:
        """Args: any PIL image. Returns: uint8 (3, height, width), RGB."""
        rgb = to_rgb(image)
        height, width = self.size
        box = self.box(rgb.width, rgb.height)
        resized = rgb.resize((width, height), _FILTERS[self.interpolation], box=box)
        return np.ascontiguousarray(np.asarray(resized, dtype=np.uint8).transpose(2, 0, 1))

    def box(self, width: int, height: int) -> tuple[float, float, float, float]:
        """The part of a width x height image that the input shows: (left, top, right, bottom).

        Units are pixels of the upright image; a map's grid lies on exactly this box.
        """
        if self.mode == "squash":
            return (0.0, 0.0, float(width), float(height))
        scale = min(width / self.size[1], height / self.size[0])
        crop_width, crop_height = self.size[1] * scale, self.size[0] * scale
        left, top = (width - crop_width) / 2, (height - crop_height) / 2
        return (left, top, left + crop_width, top + crop_height)


def to_rgb(image: Image.Image) -> Image.Image:
    """Upright 8-bit RGB of any PIL mode.

    EXIF rotation is applied, 16-bit and float greys are scaled to 8 bits, transparency is shown on
    white (dropping the alpha channel would reveal arbitrary hidden colours).
    """
    turn = _TURNS.get(orientation(image))
    image = image if turn is None else image.transpose(turn)
    if image.mode.startswith("I") or image.mode == "F":
        return _grey_to_8bit(image).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 to 8; 1 (upright) where it is missing or damaged."""
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except (ValueError, TypeError, OSError, SyntaxError, struct.error):
        return 1
    return value if value in range(1, 9) else 1


def _grey_to_8bit(image: Image.Image) -> Image.Image:
    grey = np.asarray(image, dtype=np.float64)
    wide = image.mode.startswith("I;16") or (image.mode == "I" and grey.max() > 255)
    top = 65535.0 if wide else 255.0
    if image.mode == "F" and grey.max() <= 1.0:
        top = 1.0
    return Image.fromarray(np.clip(np.round(grey * (255.0 / top)), 0, 255).astype(np.uint8))
