"""Scenes: what they contain, and their pictures with true masks."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from legrad.mini.world import living, things
from legrad.mini.world.backgrounds import PAINTERS, paint_background
from legrad.mini.world.overlays import Corner, Frame, place_overlay
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

SIZE = (0.34, 0.52)  # of an object, as shares of the side of the frame
LARGE_SIZE = (0.52, 0.64)
LARGE_SHARE = 0.12  # of the objects that are large
TURN_DEGREES = 15.0
_SUPERSAMPLING = 3
OBJECTS = tuple(ICONS)
BACKGROUNDS = tuple(PAINTERS)
OVERLAYS = tuple("watermark border barcode sticker timestamp logo ruler stamp".split())
THINGS = (*OBJECTS, *OVERLAYS)
"""What has a position in the picture, and so a mask."""
UNSEEN = ("chart",)
"""Overlays that the mini model was not trained on: it has no word for them."""
Mask = NDArray[np.bool_]
_BACKGROUND, _OBJECT, _CORNERS, _OVERLAY = range(4)
_CORNERS_ALL: tuple[Corner, ...] = ((False, False), (True, False), (False, True), (True, True))
_BRIGHT = 150.0
_OPAQUE = 0.9


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


@dataclass(frozen=True)
class SceneSpec:
    """The contents of a scene; the same spec always gives the same picture.

    Every part draws from its own random stream of the seed, so a scene with one overlay more
    differs from the scene without it in nothing but that overlay.

    Attributes:
        object: one of ``OBJECTS``, or None for a scene without an object.
        background: one of ``BACKGROUNDS``.
        overlays: any of ``OVERLAYS`` and ``UNSEEN``, each at most once; later ones lie on top.
        seed: decides everything else.

    Raises:
        ValueError: a name is unknown, or an overlay is named twice.
    """

    object: str | None
    background: str
    overlays: tuple[str, ...]
    seed: int

    def __post_init__(self) -> None:
        if self.object is not None and self.object not in OBJECTS:
            raise ValueError(f"object {self.object!r}: expected None or one of {OBJECTS}")
        if self.background not in BACKGROUNDS:
            raise ValueError(f"background {self.background!r}: expected one of {BACKGROUNDS}")
        known = (*OVERLAYS, *UNSEEN)
        unknown = [name for name in self.overlays if name not in known]
        if unknown or len(set(self.overlays)) < len(self.overlays):
            raise ValueError(f"overlays {self.overlays}: expected different ones of {known}")


@dataclass(frozen=True)
class Scene:
    """A drawn scene with its true masks.

    Attributes:
        image: RGB, side x side.
        object_mask: bool (side, side), the object's pixels that no opaque overlay hides.
        overlay_masks: per overlay bool (side, side), its visible ink, not its box.
    """

    image: Image.Image
    object_mask: Mask
    overlay_masks: dict[str, Mask] = field(default_factory=dict)


def render(spec: SceneSpec, side: int = 192) -> Scene:
    """Draw a scene at any size; sizes and positions scale with ``side``.

    Args:
        spec: contents of the scene.
        side: width and height in pixels, at least 32.

    Returns:
        The picture and its true masks.

    Raises:
        ValueError: ``side`` is below 32.
    """
    if side < 32:
        raise ValueError(f"side {side}: a scene needs at least 32 pixels to be recognisable")
    image = paint_background(spec.background, side, _stream(spec, _BACKGROUND))
    object_mask = np.zeros((side, side), dtype=np.bool_)
    if spec.object is not None:
        layer = place_object(spec.object, side, _stream(spec, _OBJECT))
        image.paste(layer, (0, 0), layer)
        object_mask = _alpha(layer) > 0.5
    overlay_masks: dict[str, Mask] = {}
    bright = float(np.asarray(image.convert("L").resize((8, 8))).mean()) > _BRIGHT
    for name, corner in zip(spec.overlays, corners(spec), strict=True):
        rng = _stream(spec, _OVERLAY + (*OVERLAYS, *UNSEEN).index(name))
        layer = place_overlay(name, Frame(side, corner, bright), rng)
        image.paste(layer, (0, 0), layer)
        alpha = _alpha(layer)
        hidden = alpha > _OPAQUE
        object_mask = object_mask & ~hidden
        overlay_masks = {key: mask & ~hidden for key, mask in overlay_masks.items()}
        overlay_masks[name] = alpha > 0.5 * alpha.max()
    return Scene(image, object_mask, overlay_masks)


def _alpha(layer: Image.Image) -> NDArray[np.float32]:
    return np.asarray(layer.getchannel("A"), dtype=np.float32) / np.float32(255)


def corners(spec: SceneSpec) -> list[Corner]:
    """A corner for every overlay, all different as long as there are at most four."""
    order = _stream(spec, _CORNERS).permutation(len(_CORNERS_ALL))
    return [_CORNERS_ALL[order[i % len(order)]] for i in range(len(spec.overlays))]


def _stream(spec: SceneSpec, part: int) -> np.random.Generator:
    return np.random.default_rng([spec.seed, part])
