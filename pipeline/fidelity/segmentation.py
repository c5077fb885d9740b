"""How well does a map outline what its text names? Its comparison with a mask.

The measures of the ImageNet-Segmentation protocol. LeGrad's paper thresholds the min-max-normalised
map at .5 and Chefer et al. (CVPR 2021) at the map's own mean, so figures at the one cannot be
compared with figures at the other.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

from legrad.heatmaps import normalize
from pipeline.fidelity.estimates import Array, Estimate, estimate

HALF, MEAN = "at .5", "at mean"
Mask = NDArray[np.bool_]


def counts(heat: NDArray[np.float32], mask: Mask) -> Array:
    """True and false positives, false and true negatives as shares of the pixels; (2, 4).

    Args:
        heat: (height, width), a map at the mask's size. It is min-max-normalised here.
        mask: (height, width), where the thing is.

    Returns:
        A row for the threshold .5, and one for the mean of the map.
    """
    scaled = normalize(heat)
    rows = []
    for threshold in (0.5, float(scaled.mean(dtype=np.float64))):
        shown = scaled > threshold
        hits, total = (shown & mask).sum(), mask.size
        rows.append((hits, shown.sum() - hits, mask.sum() - hits, (~shown & ~mask).sum()))
    result: Array = np.array(rows, dtype=np.float64) / total
    return result


def pixel_accuracy(means: Array) -> Array:
    """Percent of the pixels that are right; from means (R, 4) of `counts`."""
    right: Array = 100 * (means[:, 0] + means[:, 3]) / means.sum(axis=1)
    return right


def mean_iou(means: Array) -> Array:
    """Mean intersection over union of thing and background in percent, summed over the images."""
    wrong = means[:, 1] + means[:, 2]
    thing = means[:, 0] / (means[:, 0] + wrong)
    background = means[:, 3] / (means[:, 3] + wrong)
    return 50 * (thing + background)


def average_precision(heat: NDArray[np.float32], mask: Mask) -> float:
    """Average precision in percent over both classes: heat for the thing, 1 - heat for the rest."""
    scaled = normalize(heat).ravel()
    truth = np.concatenate([~mask.ravel(), mask.ravel()])
    return 100 * float(average_precision_score(truth, np.concatenate([1 - scaled, scaled])))


def pointing(heat: NDArray[np.float32], mask: Mask) -> float:
    """Percent of the hottest pixels (one, if there is no tie) that lie in the mask."""
    return 100 * float(mask[heat == heat.max()].mean())


def compared(heat: NDArray[np.float32], mask: Mask) -> Array:
    """All measures of one map as a row of ten numbers, see `summary`."""
    return np.array(
        [*counts(heat, mask).ravel(), average_precision(heat, mask), pointing(heat, mask)]
    )


def summary(rows: Array) -> Mapping[str, Estimate]:
    """Measure -> value over images with its interval, from rows (N, 10) of `compared`."""
    half, mean = rows[:, :4], rows[:, 4:8]
    return {
        f"pixel accuracy {HALF}": estimate(half, pixel_accuracy),
        f"mIoU {HALF}": estimate(half, mean_iou),
        f"pixel accuracy {MEAN}": estimate(mean, pixel_accuracy),
        f"mIoU {MEAN}": estimate(mean, mean_iou),
        "mAP": estimate(rows[:, 8]),
        "pointing": estimate(rows[:, 9]),
    }
