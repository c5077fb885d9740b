"""A pen that draws in unit coordinates: (0, 0) is the top left corner, (1, 1) the bottom right.

An icon drawn with it is a few lines of plain geometry at any size. The caller scales the picture
down, which smooths the edges.
"""

import colorsys
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageColor, ImageDraw

Point = tuple[float, float]
Colour = tuple[int, int, int]
_CURVE_STEPS = 8


@dataclass(frozen=True)
class Tint:
    """A small shift of every colour of one icon.

    Attributes:
        hue: added to the hue, in turns (1 = the whole colour circle).
        saturation: factor on the saturation.
        value: factor on the brightness.
    """

    hue: float = 0.0
    saturation: float = 1.0
    value: float = 1.0

    def __call__(self, colour: str) -> Colour:
        """Shift an HTML colour such as ``#e4572e``."""
        red, green, blue = (channel / 255 for channel in ImageColor.getrgb(colour)[:3])
        hue, saturation, value = colorsys.rgb_to_hsv(red, green, blue)
        shifted = colorsys.hsv_to_rgb(
            (hue + self.hue) % 1.0,
            min(1.0, saturation * self.saturation),
            min(1.0, value * self.value),
        )
        return (round(shifted[0] * 255), round(shifted[1] * 255), round(shifted[2] * 255))


def random_tint(rng: np.random.Generator) -> Tint:
    """A tint that keeps every colour's name: hue within 0.03 turns, brightness within 12 %."""
    return Tint(rng.uniform(-0.03, 0.03), rng.uniform(0.85, 1.1), rng.uniform(0.88, 1.12))


class Pen:
    """Draws on a transparent square tile.

    Attributes:
        image: the tile, RGBA, ``size`` x ``size`` pixels.
    """

    def __init__(self, size: int, tint: Tint | None = None) -> None:
        self.image = Image.new("RGBA", (size, size), (0, 0, 0, 0))
        self._size = size
        self._tint = tint or Tint()
        self._draw = ImageDraw.Draw(self.image)

    def disc(self, x: float, y: float, rx: float, colour: str, ry: float | None = None) -> None:
        """An ellipse around (x, y); a circle unless ``ry`` is given."""
        ry = rx if ry is None else ry
        box = self._pixels([(x - rx, y - ry), (x + rx, y + ry)])
        self._draw.ellipse(box, fill=self._tint(colour))

    def shape(self, points: Sequence[Point], colour: str) -> None:
        """A polygon with straight sides."""
        self._draw.polygon(self._pixels(points), fill=self._tint(colour))

    def blob(self, points: Sequence[Point], colour: str) -> None:
        """A closed smooth curve through the points."""
        self.shape(_smooth(points), colour)

    def bar(self, box: tuple[float, float, float, float], colour: str, radius: float = 0.0) -> None:
        """A rectangle (left, top, right, bottom) with rounded corners."""
        corners = self._pixels([(box[0], box[1]), (box[2], box[3])])
        self._draw.rounded_rectangle(corners, radius * self._size, fill=self._tint(colour))

    def slice(self, x: float, y: float, radius: float, span: Point, colour: str) -> None:
        """A slice of a disc; ``span`` is (from, to) in degrees, clockwise from the right."""
        box = self._pixels([(x - radius, y - radius), (x + radius, y + radius)])
        self._draw.pieslice(box, span[0], span[1], fill=self._tint(colour))

    def stroke(self, points: Sequence[Point], width: float, colour: str) -> None:
        """A line through the points with round ends."""
        pixels = max(1, round(width * self._size))
        self._draw.line(self._pixels(points), fill=self._tint(colour), width=pixels, joint="curve")
        for x, y in (points[0], points[-1]):
            self.disc(x, y, width / 2, colour)

    def _pixels(self, points: Sequence[Point]) -> list[Point]:
        return [(x * self._size, y * self._size) for x, y in points]


DrawIcon = Callable[[Pen], None]


def around(x: float, y: float, radius: float, count: int, start: float = -90.0) -> list[Point]:
    """``count`` points evenly on a circle, the first at ``start`` degrees (-90 is the top)."""
    angles = [math.radians(start + 360 * i / count) for i in range(count)]
    return [(x + radius * math.cos(a), y + radius * math.sin(a)) for a in angles]


def mirrored(points: Sequence[Point]) -> list[Point]:
    """The points reflected at the vertical middle line."""
    return [(1 - x, y) for x, y in points]


def _smooth(points: Sequence[Point]) -> list[Point]:
    """A closed Catmull-Rom curve through the points, sampled."""
    p1 = np.asarray(points, dtype=np.float64)
    p0, p2, p3 = np.roll(p1, 1, 0), np.roll(p1, -1, 0), np.roll(p1, -2, 0)
    t = (np.arange(_CURVE_STEPS) / _CURVE_STEPS)[None, :, None]
    a, b = 2 * p1, p2 - p0
    c, d = 2 * p0 - 5 * p1 + 4 * p2 - p3, 3 * p1 - 3 * p2 + p3 - p0
    curve = 0.5 * (a[:, None] + b[:, None] * t + c[:, None] * t**2 + d[:, None] * t**3)
    return [(float(x), float(y)) for x, y in curve.reshape(-1, 2)]
