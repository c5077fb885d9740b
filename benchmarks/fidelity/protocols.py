"""The published tests that need more than masks or erased pixels; see also `pipeline.fidelity`."""

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr
from torch import Tensor

from legrad.heatmaps import normalize, upsample
from legrad.models.load import from_open_clip
from legrad.models.vision_language import VisionLanguageModel
from pipeline.fidelity.estimates import Array, Estimate, estimate

GROUPS = 10
Points = NDArray[np.float64]
"""(P, 3): x and y as shares of the width and height, and 1 for yes or 0 for no."""


def point_counts(heat: NDArray[np.floating], points: Points) -> Array:
    """Hits, false alarms and misses (3,) of the min-max-normalised map above .5 at points.

    The map is read where the points lie, bilinearly, as an enlarged map would show it.
    """
    side = 224  # of the enlarged map; finer than a point can be told from its neighbour
    shown = upsample(normalize(heat), (side, side)) > 0.5
    column, row = np.minimum((points[:, :2] * side).astype(int), side - 1).T
    marked, yes = shown[row, column], points[:, 2] > 0.5
    return np.array([(marked & yes).sum(), (marked & ~yes).sum(), (~marked & yes).sum()], float)


def point_miou(rows: Array, classes: Sequence[str], images: Sequence[int]) -> Estimate:
    """p-mIoU in percent: hits over hits, false alarms and misses of each class, then their mean.

    Args:
        rows: (M, 3) of `point_counts`, one for each class depicted in an image.
        classes: (M,) the class of each.
        images: (M,) the image of each; the interval is over images.
    """
    names, code = np.unique(np.array(classes), return_inverse=True)
    _, image = np.unique(np.array(images), return_inverse=True)
    table = np.zeros((image.max() + 1, len(names), 3))
    np.add.at(table, (image, code), rows)

    def mean_over_classes(means: Array) -> Array:
        sums = means.reshape(len(means), -1, 3)
        points = sums.sum(axis=2)
        iou = np.divide(sums[:, :, 0], points, out=np.full(points.shape, np.nan), where=points > 0)
        return np.asarray(100 * np.nanmean(iou, axis=1))

    return estimate(table.reshape(len(table), -1), mean_over_classes)


def saco(
    probability: Callable[[NDArray[np.uint8]], NDArray[np.floating]],
    pixels: NDArray[np.uint8],
    heat: NDArray[np.floating],
) -> float:
    """Salience-guided faithfulness coefficient (Wu et al., CVPR 2024), -1 to 1.

    Pixels are cut into ten groups by heat, each is painted in the image's mean colour, and the
    fall of the probability is compared with the group's heat, for every pair of groups.

    Args:
        probability: inputs uint8 (B, 3, height, width) -> probability (B,) of the explained class.
        pixels: uint8 (3, height, width).
        heat: (h, w).
    """
    size = (pixels.shape[1], pixels.shape[2])
    values = upsample(normalize(heat), size).ravel()
    order = np.argsort(-values, kind="stable")
    mean = pixels.mean(axis=(1, 2), keepdims=True).astype(np.uint8)
    painted, salience = [pixels], []
    for group in np.array_split(order, GROUPS):
        inside = np.isin(np.arange(values.size), group).reshape(size)
        painted.append(np.where(inside, mean, pixels))
        salience.append(values[group].sum())
    probabilities = probability(np.stack(painted))
    fall = probabilities[0] - probabilities[1:]
    first, second = np.triu_indices(GROUPS, k=1)
    weight = np.array(salience)[first] - np.array(salience)[second]
    total = np.abs(weight).sum()
    signed = np.where(fall[first] >= fall[second], weight, -weight).sum()
    return float(signed / total) if total else 0.0


def wrong_texts(labels: NDArray[np.integer], count: int) -> NDArray[np.int64]:
    """For each label another one of ``count``, drawn at random and always the same."""
    shift = np.random.default_rng(0).integers(1, count, len(labels))
    return np.asarray((labels + shift) % count, dtype=np.int64)


def randomised(model: VisionLanguageModel) -> Iterator[VisionLanguageModel]:
    """The model with random weights in the last block, then the last two, ... all (Adebayo 2018).

    Every parameter is drawn from a normal distribution with its own mean and standard deviation.
    """
    module: Any = copy.deepcopy(model.model)
    generator = torch.Generator().manual_seed(0)
    for block in reversed(module.visual.transformer.resblocks):
        with torch.no_grad():
            for parameter in block.parameters():
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.copy_(noise * parameter.std() + parameter.mean())
        yield from_open_clip(copy.deepcopy(module), name=model.name)


def rank_correlation(ours: Tensor, theirs: Tensor) -> Array:
    """Spearman's correlation of the cells of each pair of maps (B, h, w); 0 for a constant map."""
    rows = []
    for first, second in zip(ours.flatten(1).tolist(), theirs.flatten(1).tolist(), strict=True):
        constant = min(first) == max(first) or min(second) == max(second)
        rows.append(0.0 if constant else float(spearmanr(first, second).statistic))
    return np.array(rows)
