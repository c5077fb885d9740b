"""Maps made visible: normalise, upsample, lay over an image. Presentation only."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def normalize(heatmap: NDArray[np.floating]) -> NDArray[np.float32]:
    """Min-max each (h, w) map of (..., h, w) to [0, 1]; a constant map gives zeros."""
    low = heatmap.min(axis=(-2, -1), keepdims=True)
    span = heatmap.max(axis=(-2, -1), keepdims=True) - low
    scaled: NDArray[np.floating] = (heatmap - low) / np.where(span > 0, span, 1)
    return scaled.astype(np.float32)


def upsample(heatmap: NDArray[np.floating], size: tuple[int, int]) -> NDArray[np.float32]:
    """Bilinear (h, w) -> size (height, width), grid cells centred on their patches."""
    image = Image.fromarray(heatmap.astype(np.float32))
    resized = image.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return np.asarray(resized, dtype=np.float32)


def overlay(
    image: Image.Image,
    heatmap: NDArray[np.floating],
    *,
    peak: float | None = None,
    opacity: float = 0.65,
    box: tuple[float, float, float, float] | None = None,
) -> Image.Image:
    """Lay a raw map over an image.

    Args:
        image: RGB.
        heatmap: (h, w), non-negative.
        peak: the value shown at full strength; default the map's own maximum. Give one peak to
            several overlays to put them on one colour scale.
        opacity: of the strongest heat, 0 to 1; no heat is transparent.
        box: (left, top, right, bottom) in image pixels that the map's grid covers; default all.

    Returns:
        RGB image of the same size.
    """
    left, top, right, bottom = (round(v) for v in box or (0, 0, image.width, image.height))
    top_value = float(heatmap.max()) if peak is None else peak
    shown = np.zeros((image.height, image.width), dtype=np.float32)
    strength = np.clip(heatmap / top_value, 0, 1) if top_value > 0 else np.zeros_like(heatmap)
    shown[top:bottom, left:right] = upsample(strength, (bottom - top, right - left))
    colours = _colormap()[np.rint(shown * 255).astype(np.uint8)]
    alpha = (opacity * shown)[..., None]
    blended = np.asarray(image.convert("RGB"), dtype=np.float32) * (1 - alpha) + colours * alpha
    return Image.fromarray(np.rint(blended).astype(np.uint8))


def _colormap() -> NDArray[np.float32]:
    """(256, 3) of matplotlib's perceptually uniform ``inferno``, 0 to 255."""
    from matplotlib import colormaps

    table: NDArray[np.float64] = colormaps["inferno"](np.arange(256))[:, :3]
    return (table * 255).astype(np.float32)
