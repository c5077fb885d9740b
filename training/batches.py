"""A training batch: scenes of the pool, in some of which a thing is partly painted over.

The model thus learns that a thing of which a third is missing counts as absent, and sees deleted
regions, which both the audit and the model's card use.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from legrad.mini.world import THINGS, SceneSpec
from training.objective import jittered
from training.scenes import MARK_SIDE, Pool

PAINTED_SHARE = 0.6  # of the scenes
ELSEWHERE_SHARE = 0.3  # of these, painted beside the thing and not over it
MOST_PAINTED = 0.75  # of a thing's cells
WHOLE = 0.8  # of its ink must be left for a thing to count as shown


@dataclass(frozen=True)
class Batch:
    """B scenes.

    Attributes:
        specs: contents of the scenes.
        pixels: float (B, 3, side, side) in [0, 255].
        shown: float (B, things, MARK_SIDE, MARK_SIDE), 1 where a thing is visible.
    """

    specs: list[SceneSpec]
    pixels: Tensor
    shown: Tensor


def draw_batch(
    pool: Pool, rows: Sequence[int], side: int, patch: int, generator: torch.Generator
) -> Batch:
    """Take scenes of the pool, vary their colours, and paint over a part of some.

    Args:
        pool: rendered scenes.
        rows: rows of the pool to take.
        side: side of the result in pixels, a multiple of ``patch``.
        patch: side of the cells that are painted.
        generator: source of all randomness.
    """
    index = np.asarray(rows)
    pixels = resized(jittered(torch.from_numpy(pool.pixels[index]), generator), side)
    marks = torch.from_numpy(pool.marks[index].astype(np.int64))
    bits = torch.arange(len(THINGS))[None, :, None, None]
    shown = ((marks[:, None] >> bits) & 1).float()
    specs = [pool.specs[row] for row in index]
    return _painted(Batch(specs, pixels, shown), side // patch, generator)


def resized(pixels: Tensor, side: int) -> Tensor:
    """Bicubic, antialiased; float (B, 3, side, side) in [0, 255]."""
    if pixels.shape[-1] == side:
        return pixels
    size = (side, side)
    small = F.interpolate(pixels, size, mode="bicubic", align_corners=False, antialias=True)
    return small.clamp(0, 255)


def _painted(batch: Batch, grid: int, generator: torch.Generator) -> Batch:
    """Paint cells over; a thing of which less than `WHOLE` is left no longer counts as shown."""
    cells = _chosen_cells(batch.shown, grid, generator)
    area = _enlarged(cells, batch.pixels.shape[-1])
    pixels = torch.where(area > 0, _fill(batch.pixels, generator), batch.pixels)
    left = batch.shown * (1 - _enlarged(cells, MARK_SIDE))
    before, after = batch.shown.sum((2, 3)), left.sum((2, 3))
    gone = (before > 0) & (after < WHOLE * before)
    specs = [_without(spec, row) for spec, row in zip(batch.specs, gone, strict=True)]
    return Batch(specs, pixels, left)


def _chosen_cells(shown: Tensor, grid: int, generator: torch.Generator) -> Tensor:
    """bool (B, grid, grid): in some scenes, a ragged part of one thing, or as much beside it."""
    batch = len(shown)
    covered = F.adaptive_avg_pool2d(shown, grid) > 0  # (B, things, grid, grid)
    weights = covered.any(-1).any(-1).float() + 1e-6
    picked = torch.multinomial(weights, 1, generator=generator)[:, 0]
    thing = covered[torch.arange(batch), picked]
    beside = torch.rand(batch, generator=generator) < ELSEWHERE_SHARE
    area = torch.where(beside[:, None, None], ~thing, thing).flatten(1)
    share = MOST_PAINTED * torch.rand(batch, generator=generator)
    share = share * (torch.rand(batch, generator=generator) < PAINTED_SHARE)
    count = torch.minimum((thing.flatten(1).sum(1) * share).round().long(), area.sum(1))
    coarse = torch.rand(batch, 1, 3, 3, generator=generator)
    coarse = F.interpolate(coarse, (grid, grid), mode="bilinear")
    ragged = coarse[:, 0] + 0.7 * torch.rand(batch, grid, grid, generator=generator)
    rank = torch.where(area, ragged.flatten(1), -1.0).argsort(1, descending=True).argsort(1)
    return (rank < count[:, None]).view(batch, grid, grid)


def _fill(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Each picture's mean colour, or for half of them its colours, much blurred."""
    mean = pixels.mean((2, 3), keepdim=True).expand_as(pixels)
    blurred = F.interpolate(F.adaptive_avg_pool2d(pixels, 2), pixels.shape[2:], mode="bilinear")
    plain = torch.rand(len(pixels), generator=generator) < 0.5
    return torch.where(plain[:, None, None, None], mean, blurred)


def _enlarged(cells: Tensor, side: int) -> Tensor:
    """(B, grid, grid) -> float (B, 1, side, side)."""
    return F.interpolate(cells[:, None].float(), (side, side), mode="nearest-exact")


def _without(spec: SceneSpec, gone: Tensor) -> SceneSpec:
    names = {THINGS[i] for i in gone.nonzero().flatten().tolist()}
    if not names:
        return spec
    return replace(
        spec,
        object=None if spec.object in names else spec.object,
        overlays=tuple(name for name in spec.overlays if name not in names),
    )
