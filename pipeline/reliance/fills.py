"""What takes the place of a deleted region. Two fills, so that no finding hangs on one of them."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

Pixels = NDArray[np.uint8]
Mask = NDArray[np.bool_]
_REACH = 1 / 12  # of the longer side: standard deviation of the smoothing


def mean_colour(pixels: Pixels, mask: Mask) -> Pixels:
    """The region in the mean colour of the rest.

    Args:
        pixels: (3, height, width).
        mask: (height, width), not everything.

    Returns:
        A copy.
    """
    rest = pixels[:, ~mask] if not mask.all() else pixels.reshape(3, -1)
    colour = np.rint(rest.mean(axis=1)).astype(np.uint8)
    return np.where(mask, colour[:, None, None], pixels)


def surroundings(pixels: Pixels, mask: Mask) -> Pixels:
    """The region as a smooth continuation of what is around it; arguments as `mean_colour`.

    Normalised convolution (Knutsson and Westin 1993): a Gaussian mean over the known pixels only.
    """
    reach = _REACH * max(mask.shape)
    known = (~mask).astype(np.float32)
    weight = gaussian_filter(known, reach, truncate=6.0)
    smooth = np.stack(
        [
            gaussian_filter(channel * known, reach, truncate=6.0)
            for channel in pixels.astype(np.float32)
        ]
    )
    deep = weight <= 1e-4
    filled = np.rint(smooth / np.where(deep, 1, weight)).clip(0, 255).astype(np.uint8)
    filled = np.where(deep, mean_colour(pixels, mask), filled)
    return np.where(mask, filled, pixels)


FILLS: dict[str, Callable[[Pixels, Mask], Pixels]] = {
    "mean": mean_colour,
    "surroundings": surroundings,
}
