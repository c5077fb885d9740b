"""Heat laid over a picture, visible on any picture, in greyscale print, with any colour vision."""

from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from legrad.heatmaps.transforms import upsample
from legrad.preprocess import Box

OPACITY = 0.85
_LUMINANCE = np.array([0.2126, 0.7152, 0.0722], dtype=np.float32)
_SATURATION = 0.15
_DARKEST, _BRIGHTEST = 8, 150
_UNSEEN = 0.45
_COLDEST = 0.35


def overlay(
    image: Image.Image,
    heatmap: NDArray[np.floating],
    *,
    peak: float | None = None,
    opacity: float = OPACITY,
    box: Box | None = None,
) -> Image.Image:
    """Lay a raw map over an image, which is muted so that only heat is colourful and bright.

    Args:
        image: RGB.
        heatmap: (h, w), non-negative.
        peak: the value shown at full strength; default: the map's own maximum. Pass the same peak
            to several overlays to put them on one colour scale.
        opacity: opacity of the strongest heat, 0 to 1; weaker heat has proportionally less.
        box: (left, top, right, bottom) in image pixels that the map's grid covers, see
            `Preprocess.box`; default: all. The rest, which the model did not see, is darkened.

    Returns:
        RGB image of the same size.
    """
    top_value = float(heatmap.max()) if peak is None else peak
    strength = np.clip(heatmap / top_value, 0, 1) if top_value > 0 else np.zeros_like(heatmap)
    shown = upsample(strength, (image.height, image.width), box)
    colours = heat_colours()[np.rint(shown * 255).astype(np.uint8)]
    alpha = (opacity * shown)[..., None]
    blended = _muted(image, box) * (1 - alpha) + colours * alpha
    return Image.fromarray(np.rint(blended).astype(np.uint8))


@cache
def heat_colours() -> NDArray[np.float32]:
    """(256, 3), 0 to 255: no heat to full heat, the bright part of matplotlib's ``inferno``.

    Perceptually uniform and brighter with every step, so it reads the same in grey and with any
    colour vision. The dark part is left out: it would look like shadow on the picture.
    """
    from matplotlib import colormaps

    table: NDArray[np.float64] = colormaps["inferno"](np.linspace(_COLDEST, 1, 256))[:, :3]
    return (table * 255).astype(np.float32)


def _muted(image: Image.Image, box: Box | None) -> NDArray[np.float32]:
    """(height, width, 3), 0 to 255: the image nearly grey, and darker than any heat."""
    pixels = np.asarray(image.convert("RGB"), dtype=np.float32) / np.float32(255)
    grey = (pixels @ _LUMINANCE)[..., None]
    muted = grey + (pixels - grey) * np.float32(_SATURATION)
    muted = muted * (_BRIGHTEST - _DARKEST) + _DARKEST
    if box is not None:
        covered = upsample(np.ones((1, 1)), (image.height, image.width), box)[..., None]
        muted = muted * (_UNSEEN + (1 - _UNSEEN) * covered)
    return np.asarray(muted, dtype=np.float32)
