"""Erase the least or the most relevant pixels: how long does the model keep its answer?

The protocol of Chefer, Gur and Wolf (CVPR 2021), which LeGrad's paper follows: of the model's input
0, 10, ... 90 % of the pixels are set to 0 before normalisation, by descending heat (positive) or
ascending heat (negative); the figure is the area under the accuracy as a function of that share. A
faithful map has a large negative and a small positive area.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from legrad.heatmaps import upsample

SHARES = tuple(step / 10 for step in range(10))
_SPACING = 0.1
Shown = tuple[slice, slice]
"""Rows and columns of an input that show the image; the rest is padding."""
_ALL = (slice(None), slice(None))
Classify = Callable[[NDArray[np.uint8]], NDArray[np.integer]]
"""Inputs of the model, uint8 (B, 3, height, width) -> the class (B,) that it gives each."""


def erased(
    pixels: NDArray[np.uint8],
    heat: NDArray[np.floating],
    *,
    hottest: bool,
    shown: Shown = _ALL,
) -> NDArray[np.uint8]:
    """The input with 10, 20, ... 90 % of its pixels erased: uint8 (9, 3, height, width).

    Args:
        pixels: uint8 (3, height, width).
        heat: (h, w), the map on the patch grid. Equal pixels are erased in random order, always
            the same, so that a constant map is a random one.
        hottest: whether the hottest pixels go first, and not the coldest.
        shown: the part of the input that is erased and that the shares are of.
    """
    inside = upsample(heat, (pixels.shape[1], pixels.shape[2]))[shown]
    values = inside.ravel()
    tie = np.random.default_rng(0).permutation(values.size)
    order = np.lexsort((tie, -values if hottest else values))
    rank = np.empty_like(order)
    rank[order] = np.arange(order.size)
    result = np.repeat(pixels[None], len(SHARES) - 1, axis=0)
    for image, share in zip(result, SHARES[1:], strict=True):
        gone = (rank < round(share * rank.size)).reshape(inside.shape)
        image[:, *shown][:, gone] = 0
    return result


def area(kept: NDArray[np.floating] | NDArray[np.bool_]) -> NDArray[np.float64]:
    """Area in percent under an accuracy at `SHARES`, by the trapezoidal rule; at most 90.

    Args:
        kept: (..., 10), whether the answer is right at each share, or how often.
    """
    heights = np.asarray(kept, dtype=np.float64)
    return np.asarray(100 * _SPACING * ((heights[..., 1:] + heights[..., :-1]) / 2).sum(axis=-1))


def areas(
    classify: Classify,
    pixels: NDArray[np.uint8],
    heat: NDArray[np.floating],
    truth: NDArray[np.integer],
    first: NDArray[np.integer],
    shown: Sequence[Shown] | None = None,
) -> NDArray[np.float64]:
    """Negative and positive area of every image, (N, 2) in percent; see the module.

    Args:
        classify: the model's answer.
        pixels: uint8 (N, 3, height, width).
        heat: (N, h, w), the map of each image.
        truth: (N,), the class that counts as right: the label, or else the model's first answer.
        first: (N,), the model's answer to the whole images.
        shown: the N parts of the inputs that are not padding; None: all.
    """
    rows = np.empty((len(pixels), 2))
    for number, (image, values, right) in enumerate(zip(pixels, heat, truth, strict=True)):
        part = _ALL if shown is None else shown[number]
        parts = [erased(image, values, hottest=h, shown=part) for h in (False, True)]
        kept = (classify(np.concatenate(parts)) == right).reshape(2, -1)
        start = np.full((2, 1), first[number] == right)
        rows[number] = area(np.concatenate([start, kept], axis=1))
    return rows
