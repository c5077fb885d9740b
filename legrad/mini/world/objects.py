"""Draw an object: its icon, tinted, rotated, scaled and placed at random in the frame."""

import numpy as np
from PIL import Image, ImageOps

from legrad.mini.world import living, things
from legrad.mini.world.pen import DrawIcon, Pen, random_tint

ICONS: dict[str, DrawIcon] = {
    "boat": things.boat,
    "fish": living.fish,
    "bird": living.bird,
    "tree": living.tree,
    "house": things.house,
    "car": things.car,
    "flower": living.flower,
    "apple": living.apple,
    "mushroom": living.mushroom,
    "balloon": things.balloon,
    "cat": living.cat,
    "butterfly": living.butterfly,
    "umbrella": things.umbrella,
    "clock": things.clock,
    "turtle": living.turtle,
    "cactus": living.cactus,
    "key": things.key,
    "cake": things.cake,
}

SIZE = (0.34, 0.52)
LARGE_SIZE = (0.52, 0.64)
LARGE_SHARE = 0.12
TURN_DEGREES = 15.0
_SUPERSAMPLING = 3


def place_object(name: str, side: int, rng: np.random.Generator) -> Image.Image:
    """Draw one object somewhere in an otherwise transparent frame, never cut by its edge.

    Args:
        name: one of ``OBJECTS``.
        side: side of the frame in pixels.
        rng: decides size, colour, mirroring, rotation and position.

    Returns:
        RGBA, ``side`` x ``side``.
    """
    low, high = LARGE_SIZE if rng.random() < LARGE_SHARE else SIZE
    pen = Pen(round(rng.uniform(low, high) * side) * _SUPERSAMPLING, random_tint(rng))
    ICONS[name](pen)
    icon = ImageOps.mirror(pen.image) if rng.random() < 0.5 else pen.image
    turn = rng.uniform(-TURN_DEGREES, TURN_DEGREES)
    icon = icon.rotate(turn, Image.Resampling.BILINEAR, expand=True).reduce(_SUPERSAMPLING)
    icon = icon.crop(icon.getbbox())
    frame = Image.new("RGBA", (side, side), (0, 0, 0, 0))
    x, y = rng.random(2)
    corner = round(x * max(0, side - icon.width)), round(y * max(0, side - icon.height))
    frame.paste(icon, corner)
    return frame
