"""How well maps agree with true masks, compared with chance.

- pointing: the maximum of the upsampled map falls inside the mask (chance: the mask's area);
- pixel AUC: a pixel inside the mask is hotter than one outside (chance: 0.5);
- deletion: painting the hottest tenth of the cells in the picture's mean colour takes the score
  below the line between pictures with and without the thing (chance: as many random cells).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import mannwhitneyu
from torch import Tensor

from legrad.heatmaps import upsample
from legrad.method.explainer import LeGrad
from training.held_out import Truth

DELETED_SHARE = 0.10
SMALLEST_MASK = 0.005  # of the picture; below, a thing is hidden by an overlay
_BATCH = 50


@dataclass(frozen=True)
class Grounding:
    """Means over the pictures that contain a thing.

    Attributes:
        images: how many pictures.
        pointing, pixel_auc, deletion: see the module; in [0, 1].
        pointing_chance, deletion_chance: the values of random guessing.
    """

    images: int
    pointing: float
    pointing_chance: float
    pixel_auc: float
    deletion: float
    deletion_chance: float


def measure(
    explainer: LeGrad, truth: Truth, texts: dict[str, Tensor], rng: np.random.Generator
) -> dict[str, Grounding]:
    """Grounding of every named thing.

    Args:
        explainer: the model, and the layers that are explained.
        truth: N pictures with masks.
        texts: unit text feature (E,) of every object and overlay to measure.
        rng: chooses the random cells of the deletion control.
    """
    names = list(texts)
    scores = scores_of(explainer, truth.pixels, torch.stack([texts[name] for name in names]))
    return {
        name: _grounding(explainer, truth, _Thing(name, texts[name], scores[:, q]), rng)
        for q, name in enumerate(names)
    }


def explain_all(explainer: LeGrad, pixels: NDArray[np.uint8], text: Tensor) -> NDArray[np.float32]:
    """Maps (N, h, w) of pictures for one text, in batches."""
    parts = [
        explainer.explain(torch.from_numpy(pixels[i : i + _BATCH]), text[None]).maps[:, 0]
        for i in range(0, len(pixels), _BATCH)
    ]
    return torch.cat(parts).numpy()


@dataclass(frozen=True)
class _Thing:
    name: str
    text: Tensor
    scores: NDArray[np.float32]  # (N,)


def _grounding(
    explainer: LeGrad, truth: Truth, thing: _Thing, rng: np.random.Generator
) -> Grounding:
    present = truth.contains(thing.name)
    masks = truth.masks(thing.name)
    rows = [row for row in np.flatnonzero(present) if masks[row].mean() >= SMALLEST_MASK]
    line = (thing.scores[rows].mean() + thing.scores[~present].mean()) / 2
    maps = explain_all(explainer, truth.pixels[rows], thing.text)
    hits, aucs = [], []
    for small, mask in zip(maps, masks[rows], strict=True):
        heat = upsample(small, mask.shape)
        hits.append(mask.flat[int(heat.argmax())])
        aucs.append(pixel_auc(heat, mask))
    noise = rng.random(maps.shape, dtype=np.float32)
    hottest, random = (
        _scores_without(explainer, truth.pixels[rows], cells, thing.text) for cells in (maps, noise)
    )
    return Grounding(
        images=len(rows),
        pointing=float(np.mean(hits)),
        pointing_chance=float(masks[rows].mean()),
        pixel_auc=float(np.mean(aucs)),
        deletion=float((hottest < line).mean()),
        deletion_chance=float((random < line).mean()),
    )


def pixel_auc(heat: NDArray[np.float32], mask: NDArray[np.bool_]) -> float:
    """Share of (inside, outside) pixel pairs whose inside pixel is hotter; ties count half."""
    inside, outside = heat[mask], heat[~mask]
    return float(mannwhitneyu(inside, outside).statistic / (inside.size * outside.size))


def _scores_without(
    explainer: LeGrad, pixels: NDArray[np.uint8], cells: NDArray[np.float32], text: Tensor
) -> NDArray[np.float32]:
    """Scores (N,) after the pixels under the largest tenth of the cells (N, h, w) are deleted."""
    return scores_of(explainer, delete(pixels, cells, DELETED_SHARE), text[None])[:, 0]


def delete(
    pixels: NDArray[np.uint8], cells: NDArray[np.float32], share: float
) -> NDArray[np.uint8]:
    """Paint the largest cells over with each picture's mean colour; (N, 3, H, W), a copy."""
    count = round(share * cells[0].size)
    flat = cells.reshape(len(cells), -1)
    chosen = np.zeros(flat.shape, dtype=np.bool_)
    np.put_along_axis(chosen, np.argpartition(-flat, count, axis=1)[:, :count], True, axis=1)
    scale = pixels.shape[-1] // cells.shape[-1]
    area = np.kron(chosen.reshape(cells.shape), np.ones((scale, scale), dtype=np.bool_))
    mean = pixels.mean(axis=(2, 3), keepdims=True).astype(np.uint8)
    return np.where(area[:, None], mean, pixels)


def scores_of(explainer: LeGrad, pixels: NDArray[np.uint8], texts: Tensor) -> NDArray[np.float32]:
    """Cosines (N, Q) without maps."""
    model = explainer.model
    rows = []
    for i in range(0, len(pixels), _BATCH):
        with torch.no_grad():
            images = model.normalise(torch.from_numpy(pixels[i : i + _BATCH]))
            features = model.model.get_submodule("").encode_image(images, normalize=True)  # type: ignore[operator]
            rows.append((features @ texts.T).numpy())
    return np.concatenate(rows)


def overall(groundings: Sequence[Grounding]) -> Grounding:
    """Mean over things, each weighted by its pictures."""
    weights = [g.images for g in groundings]

    def mean(name: str) -> float:
        return float(np.average([getattr(g, name) for g in groundings], weights=weights))

    return Grounding(
        images=sum(weights),
        pointing=mean("pointing"),
        pointing_chance=mean("pointing_chance"),
        pixel_auc=mean("pixel_auc"),
        deletion=mean("deletion"),
        deletion_chance=mean("deletion_chance"),
    )
