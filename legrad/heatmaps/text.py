"""Text on figures: one typeface, measured, wrapped and shortened to a width."""

from functools import cache
from pathlib import Path

from PIL import ImageFont

_ELLIPSIS = "\u2026"


@cache
def font(size: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which matplotlib ships, at a size in pixels."""
    from matplotlib import get_data_path

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(get_data_path()) / "fonts" / "ttf" / name), size)


def shortened(text: str, face: ImageFont.FreeTypeFont, width: int) -> str:
    """The text, with its middle left out if it is wider than ``width`` pixels."""
    if face.getlength(text) <= width:
        return text
    keep = len(text) - 1
    while keep > 1 and face.getlength(_cut(text, keep)) > width:
        keep -= 1
    return _cut(text, keep)


def wrapped(text: str, face: ImageFont.FreeTypeFont, width: int, lines: int) -> str:
    """The text broken at spaces into at most ``lines`` lines of ``width`` pixels."""
    broken: list[str] = []
    words = text.split()
    while words and len(broken) < lines - 1:
        count = max(
            [n for n in range(1, len(words) + 1) if face.getlength(" ".join(words[:n])) <= width],
            default=1,
        )
        broken.append(shortened(" ".join(words[:count]), face, width))
        words = words[count:]
    if words:
        broken.append(shortened(" ".join(words), face, width))
    return "\n".join(broken)


def signed(value: float) -> str:
    """``+0.123``, with a minus sign as wide as the plus."""
    return f"{value:+.3f}".replace("-", "\u2212")


def _cut(text: str, keep: int) -> str:
    head = (keep + 1) // 2
    return text[:head] + _ELLIPSIS + text[len(text) - (keep - head) :]
