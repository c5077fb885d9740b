"""Bring pictures with more than 8 bits a value, and floats, to 8 bits.

Files rarely say which value is white. The rule, for values from `low` to `high`:

- A TIFF that says it (bits per sample, or the largest sample value) is taken at its word.
- Whole numbers: white is the largest value of the smallest of 8, 10, 12, 14 and 16 bits that holds
  `high`. If that leaves `high` below a quarter of white, or `high` needs more than 16 bits, white
  is `high`.
- Floats up to 1: white is 1. Other floats from 64 to 255: white is 255. Else white is `high`.
- Negative values: black is `low`, and white is `high`. NaN and infinity are black.

Whatever is not declared, nor the full range of the type, is a guess, which a note says.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

WIDE = "legrad_wide"
"""Key of ``Image.info``: the file has 16 bits a value, of which Pillow keeps the upper 8 (RGB)."""
_BITS_PER_SAMPLE, _LARGEST_SAMPLE = 258, 281
_DEPTHS = (8, 10, 12, 14, 16)
_DARK_FLOAT = 1 / 64

Array = NDArray[np.float64]


def is_wide(image: Image.Image) -> bool:
    """Whether a picture's values are not bytes: modes ``I``, ``I;16*`` and ``F``, and wide RGB."""
    is_16_bit_colour = image.mode in ("RGB", "RGBA", "LA") and bool(image.info.get(WIDE))
    return image.mode.startswith("I") or image.mode == "F" or is_16_bit_colour


def to_8_bits(image: Image.Image) -> tuple[Image.Image, str | None]:
    """Scale the values of a picture for which `is_wide` holds to bytes.

    Returns:
        The picture, in mode ``L``, ``RGB`` or ``RGBA``, and what was guessed; None if nothing was.

    Raises:
        ValueError: no value is finite.
    """
    alpha = image.getchannel("A") if image.mode in ("RGBA", "LA") else None
    has_colours = image.mode in ("RGB", "RGBA", "LA")
    values = np.asarray(image.convert("RGB") if has_colours else image, dtype=np.float64)
    finite = np.isfinite(values)
    if not finite.any():
        raise ValueError("no pixel has a finite value")
    low, high = float(values[finite].min()), float(values[finite].max())
    if has_colours:
        black, white, note = _range_of_bytes(high)
    else:
        black, white, note = _range(image, low, high)
    bad = int(finite.size - finite.sum())
    if bad:
        lacking = f"values that are not finite are black: {bad:,}"
        note = lacking if note is None else f"{lacking}; {note}"
    scaled = (np.where(finite, values, black) - black) * (255 / (white - black))
    picture = Image.fromarray(np.clip(np.round(scaled), 0, 255).astype(np.uint8))
    if alpha is not None:
        picture.putalpha(alpha)
    return picture, note


def _range(image: Image.Image, low: float, high: float) -> tuple[float, float, str | None]:
    """Black, white and a note for one channel of whole numbers or floats."""
    declared = _declared_white(image)
    if low >= 0 and declared is not None and high <= declared:
        return 0.0, declared, None
    if high == low == 0:
        return 0.0, 1.0, None
    if low < 0:
        top = high if high > low else low + 1
        return low, top, _note(low, high, f"black is {low:g} and white {top:g}")
    if image.mode == "F":
        return _range_of_floats(low, high)
    white = _white_of(high)
    full = white == 2**16 - 1 and (image.mode.startswith("I;16") or image.format == "PNG")
    return 0.0, white, None if full else _note(low, high, f"white is {white:g}")


def _range_of_floats(low: float, high: float) -> tuple[float, float, str | None]:
    if _DARK_FLOAT < high <= 1:
        return 0.0, 1.0, None
    white = 255.0 if 64 <= high <= 255 else high
    return 0.0, white, _note(low, high, f"white is {white:g}")


def _range_of_bytes(high: float) -> tuple[float, float, str | None]:
    """For the upper bytes of 16-bit colours: 10, 12 and 14 bits leave the highest bits at zero."""
    white = next(2.0 ** (bits - 8) - 1 for bits in _DEPTHS[1:] if high < 2 ** (bits - 8))
    if high == 0 or white == 255:
        return 0.0, 255.0, None
    depth = f"{256 * (white + 1) - 1:g}"
    return 0.0, white, _note(0, 256 * high, f"white is {depth}")


def _white_of(high: float) -> float:
    for bits in _DEPTHS:
        if high < 2**bits:
            return float(2**bits - 1) if high >= 2**bits / 4 else high
    return high


def _declared_white(image: Image.Image) -> float | None:
    """The largest value that a TIFF says it can have, if that is less than its type allows."""
    tags: Any = getattr(image, "tag_v2", {})
    if image.mode == "F":
        return None
    bits, largest = _first(tags.get(_BITS_PER_SAMPLE)), _first(tags.get(_LARGEST_SAMPLE))
    if largest:
        return float(largest)
    return float(2**bits - 1) if bits and 8 < bits < 16 else None


def _first(value: Any) -> int:
    """The value of a tag, the first if it has several; 0 if it is missing."""
    return int(value[0] if isinstance(value, tuple) else value or 0)


def _note(low: float, high: float, taken: str) -> str:
    return f"value range guessed: the pixels go from {low:g} to {high:g}, {taken}"
