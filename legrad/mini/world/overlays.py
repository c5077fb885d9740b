"""Overlays: watermarks, borders, barcodes and the like that are added to a picture.

Every maker returns an RGBA patch whose alpha is its ink; ``place_overlay`` puts it into the frame.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFont

from legrad.mini.world.pen import Pen, around

Make = Callable[[int, np.random.Generator], Image.Image]
Corner = tuple[bool, bool]
_SUPERSAMPLING = 3
_WORDS = ("SAMPLE", "PREVIEW", "STOCK", "PROOF", "DRAFT", "COPYRIGHT", "DEMO", "PHOTO")


@dataclass(frozen=True)
class Frame:
    """What an overlay needs to know about the picture under it.

    Attributes:
        side: side in pixels.
        corner: (right half, lower half) reserved for this overlay.
        bright: whether the picture is bright, so that ink must be dark to be seen.
    """

    side: int
    corner: Corner
    bright: bool


def place_overlay(name: str, frame: Frame, rng: np.random.Generator) -> Image.Image:
    """Draw one overlay in an otherwise transparent frame.

    Args:
        name: one of ``OVERLAYS`` or ``UNSEEN``.
        frame: the picture's side, a free corner, and its brightness.
        rng: decides size, colour, text and position.

    Returns:
        RGBA, ``frame.side`` x ``frame.side``; the alpha channel is the overlay's ink.
    """
    if name == "watermark":
        return _watermark(frame, rng)
    if name == "border":
        return _border(frame.side, rng)
    if name == "ruler":
        return _ruler(frame, rng)
    return _in_corner(CORNER_MAKERS[name](frame.side, rng), frame, rng)


def _in_corner(patch: Image.Image, frame: Frame, rng: np.random.Generator) -> Image.Image:
    """Put a patch near its corner, 2 to 9 % of the side away from both edges."""
    image = Image.new("RGBA", (frame.side, frame.side), (0, 0, 0, 0))
    gaps = [round(gap * frame.side) for gap in rng.uniform(0.02, 0.09, 2)]
    free = (frame.side - patch.width, frame.side - patch.height)
    at = [f - gap if far else gap for f, gap, far in zip(free, gaps, frame.corner, strict=True)]
    image.paste(patch, (at[0], at[1]))
    return image


def _inked(ink: Image.Image, colour: tuple[int, int, int], opacity: float = 1.0) -> Image.Image:
    """A patch of one colour whose alpha is the ink times the opacity."""
    patch = Image.new("RGBA", ink.size, (*colour, 0))
    patch.putalpha(ink.point([round(value * opacity) for value in range(256)]))
    return patch


def _watermark(frame: Frame, rng: np.random.Generator) -> Image.Image:
    """Half-transparent words, level or slanted, anywhere; in a quarter of cases two lines."""
    width = rng.uniform(0.36, 0.66) * frame.side
    word = _WORDS[int(rng.integers(len(_WORDS)))]
    ink = _lettering(word, round(frame.side * 0.3), weight=max(1, round(frame.side * 0.004)))
    ink = ink.resize((round(width), max(4, round(ink.height * width / ink.width))))
    if rng.random() < 0.25:
        both = Image.new("L", (ink.width, round(ink.height * 2.5)), 0)
        both.paste(ink, (0, 0))
        both.paste(ink, (0, both.height - ink.height))
        ink = both
    slant = float(rng.choice([0.0, 0.0, 20.0, 30.0, -20.0, -30.0]))
    ink = ink.rotate(slant, Image.Resampling.BICUBIC, expand=True)
    ink.thumbnail((frame.side, frame.side))
    opacity = rng.uniform(0.5, 0.8)
    colour = (25, 28, 36) if frame.bright else (255, 255, 255)
    free = np.array([frame.side - ink.width, frame.side - ink.height])
    x, y = (rng.random(2) * free).round().astype(int).tolist()
    image = Image.new("RGBA", (frame.side, frame.side), (*colour, 0))
    image.paste(_inked(ink, colour, opacity), (x, y))
    return image


def _border(side: int, rng: np.random.Generator) -> Image.Image:
    """A plain or double frame all around, 5 to 9 % of the side thick."""
    colours = ("#15171c", "#fbfaf5", "#7c1f2d", "#1c4b43", "#c79b3b")
    outer, inner = rng.choice(len(colours), 2, replace=False)
    thick = max(2, round(rng.uniform(0.05, 0.09) * side))
    image = Image.new("RGBA", (side, side), ImageColor.getrgb(colours[outer]))
    if rng.random() < 0.4:
        line = max(1, round(thick * 0.3))
        stripe = side - 2 * (thick - line)
        image.paste(
            ImageColor.getrgb(colours[inner]),
            (thick - line, thick - line, thick - line + stripe, thick - line + stripe),
        )
    image.paste((0, 0, 0, 0), (thick, thick, side - thick, side - thick))
    return image


def _ruler(frame: Frame, rng: np.random.Generator) -> Image.Image:
    """A yellow ruler with ticks along one of the edges of its corner."""
    side = frame.side
    length, height = round(rng.uniform(0.5, 0.85) * side), round(rng.uniform(0.09, 0.13) * side)
    large = Image.new("RGBA", (length * _SUPERSAMPLING, height * _SUPERSAMPLING), "#f2cf45")
    marks = int(length / side * 40)
    for i in range(1, marks):
        x = round(large.width * i / marks)
        reach = 0.62 if i % 5 == 0 else 0.34
        half = max(1, round(large.width * 0.0022))
        large.paste((48, 38, 12, 255), (x - half, 0, x + half, round(large.height * reach)))
    large.paste((150, 118, 20, 255), (0, large.height - _SUPERSAMPLING, large.width, large.height))
    patch = large.reduce(_SUPERSAMPLING)
    if rng.random() < 0.5:
        patch = patch.transpose(Image.Transpose.ROTATE_90)
    return _in_corner(patch, frame, rng)


def _barcode(side: int, rng: np.random.Generator) -> Image.Image:
    """Black bars on a white label, with digits below."""
    width = round(rng.uniform(0.26, 0.40) * side)
    height = round(width * rng.uniform(0.58, 0.75))
    patch = Image.new(
        "RGBA", (width * _SUPERSAMPLING, height * _SUPERSAMPLING), (255, 255, 255, 255)
    )
    unit = patch.width / 64
    x = 4 * unit
    while x < patch.width - 5 * unit:
        bar = unit * float(rng.choice([1, 1, 2, 3]))
        patch.paste(
            (12, 12, 14, 255),
            (round(x), round(patch.height * 0.1), round(x + bar), round(patch.height * 0.76)),
        )
        x += bar + unit * float(rng.choice([1, 2, 2]))
    digits = _lettering(
        " ".join(str(d) for d in rng.integers(0, 10, 7)), round(patch.height * 0.16)
    )
    patch.paste(
        (12, 12, 14, 255), ((patch.width - digits.width) // 2, round(patch.height * 0.82)), digits
    )
    return patch.reduce(_SUPERSAMPLING)


def _sticker(side: int, rng: np.random.Generator) -> Image.Image:
    """A round, jagged price sticker."""
    size = round(rng.uniform(0.20, 0.32) * side)
    pen = Pen(size * _SUPERSAMPLING)
    colour = str(rng.choice(["#ff2e63", "#ff3b30", "#e8197d"]))
    outer, inner = around(0.5, 0.5, 0.49, 16), around(0.5, 0.5, 0.41, 16, -90 + 360 / 32)
    pen.shape([p for pair in zip(outer, inner, strict=True) for p in pair], colour)
    pen.disc(0.5, 0.5, 0.36, "#fff35c")
    word = _lettering(str(rng.choice(["SALE", "NEW", "-50%", "WOW"])), size, weight=2)
    word.thumbnail((round(size * 1.75), size * 2))
    at = ((pen.image.width - word.width) // 2, (pen.image.height - word.height) // 2)
    pen.image.paste(ImageColor.getrgb(colour), at, word)
    return pen.image.rotate(rng.uniform(-20, 20), Image.Resampling.BICUBIC).reduce(_SUPERSAMPLING)


def _timestamp(side: int, rng: np.random.Generator) -> Image.Image:
    """Orange digits of a camera's date, with a dark edge."""
    day, month, year = int(rng.integers(1, 29)), int(rng.integers(1, 13)), int(rng.integers(1, 30))
    text = f"{day:02d}.{month:02d}.20{year:02d}"
    width = round(rng.uniform(0.34, 0.50) * side) * _SUPERSAMPLING
    size = round(width / 5)
    edge, fill = _lettering(text, size, weight=3), _lettering(text, size, weight=1)
    patch = _inked(edge, (60, 22, 0), 0.85)
    patch.paste((255, 138, 20, 255), (2, 2), fill)
    height = max(4, round(patch.height * width / patch.width / _SUPERSAMPLING))
    return patch.resize((width // _SUPERSAMPLING, height))


def _logo(side: int, rng: np.random.Generator) -> Image.Image:
    """A blue hexagon with a white arrow-like mark."""
    pen = Pen(round(rng.uniform(0.16, 0.27) * side) * _SUPERSAMPLING)
    pen.shape(around(0.5, 0.5, 0.5, 6), "#ffffff")
    pen.shape(around(0.5, 0.5, 0.45, 6), str(rng.choice(["#0a58d6", "#1238b0", "#0b6fe8"])))
    pen.shape([(0.50, 0.20), (0.76, 0.70), (0.50, 0.56), (0.24, 0.70)], "#ffffff")
    pen.disc(0.50, 0.76, 0.06, "#7fe0ff")
    return pen.image.reduce(_SUPERSAMPLING)


def _stamp(side: int, rng: np.random.Generator) -> Image.Image:
    """A worn round ink stamp with a bar across."""
    size = round(rng.uniform(0.24, 0.36) * side) * _SUPERSAMPLING
    pen = Pen(size)
    red = str(rng.choice(["#b3122b", "#a3102f", "#c01c1c"]))
    pen.disc(0.5, 0.5, 0.48, red)
    clear = Pen(size)
    clear.disc(0.5, 0.5, 0.42, "#000000")
    pen.image.paste((0, 0, 0, 0), (0, 0), clear.image)
    pen.shape(around(0.5, 0.5, 0.36, 5), red)
    pen.image.paste((0, 0, 0, 0), (0, round(size * 0.36), size, round(size * 0.64)))
    word = _lettering(str(rng.choice(["PAID", "COPY", "VOID"])), round(size * 0.28), weight=3)
    word.thumbnail((round(size * 0.86), round(size * 0.22)))
    pen.image.paste(
        ImageColor.getrgb(red), ((size - word.width) // 2, (size - word.height) // 2), word
    )
    return pen.image.rotate(rng.uniform(-25, 25), Image.Resampling.BICUBIC).reduce(_SUPERSAMPLING)


def _chart(side: int, rng: np.random.Generator) -> Image.Image:
    """A colour chart as photographers lay beside a subject: bright fields on a dark card."""
    size = round(rng.uniform(0.24, 0.34) * side) * _SUPERSAMPLING
    pen = Pen(size)
    pen.image.paste("#1b1b1f", (0, 0, size, size))
    fields = (
        "#e6194b",
        "#3cb44b",
        "#4363d8",
        "#f5f5f5",
        "#f58231",
        "#911eb4",
        "#42d4f4",
        "#8a8a8a",
    )
    order = rng.permutation(len(fields))
    for number, (row, column) in enumerate(np.ndindex(3, 3)):
        left, top = (round(size * (0.06 + 0.31 * place)) for place in (column, row))
        edge = round(size * 0.26)
        colour = fields[order[number % len(fields)]]
        pen.image.paste(colour, (left, top, left + edge, top + edge))
    return pen.image.reduce(_SUPERSAMPLING)


@lru_cache(maxsize=64)
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _lettering(text: str, height: int, weight: int = 0) -> Image.Image:
    """White letters on black, cropped to the ink.

    Args:
        text: one line.
        height: font size in pixels.
        weight: extra stroke width in pixels, for bold letters.

    Returns:
        Mode ``L``, as large as the ink.
    """
    font = _font(max(6, height))
    left, top, right, bottom = font.getbbox(text, stroke_width=weight)
    pad = 2
    size = (int(right - left) + 2 * pad, int(bottom - top) + 2 * pad)
    image = Image.new("L", size, 0)
    draw = ImageDraw.Draw(image)
    draw.text((pad - left, pad - top), text, fill=255, font=font, stroke_width=weight)
    return image.crop(image.getbbox())


CORNER_MAKERS: dict[str, Make] = {
    "barcode": _barcode,
    "sticker": _sticker,
    "timestamp": _timestamp,
    "logo": _logo,
    "stamp": _stamp,
    "chart": _chart,
}
