"""Random scenes for training and evaluation, rendered by all cores into one array."""

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from legrad.mini.world import BACKGROUNDS, OBJECTS, OVERLAYS, THINGS, Scene, SceneSpec, render

HELD_OUT = 1 << 32  # training seeds lie below, evaluation seeds at or above
RENDER_SIDES = (112, 128, 160, 192, 224)
EMPTY_SHARE = 0.1
OVERLAY_COUNTS = (0.28, 0.36, 0.23, 0.13)  # share of scenes with 0, 1, 2, 3 overlays
MARK_SIDE = 48
_INK = 0.2  # share of a mark's square that a thing must cover
_CHUNK = 200


@dataclass(frozen=True)
class Pool:
    """N rendered scenes.

    Attributes:
        specs: contents.
        pixels: uint8 (N, 3, side, side), RGB.
        marks: uint32 (N, MARK_SIDE, MARK_SIDE): bit i is set where ``THINGS[i]`` is visible.
    """

    specs: list[SceneSpec]
    pixels: NDArray[np.uint8]
    marks: NDArray[np.uint32]


def random_specs(rng: np.random.Generator, count: int, first_seed: int) -> list[SceneSpec]:
    """Scenes whose object, background and overlays are drawn independently of each other.

    Args:
        rng: decides the contents.
        count: number of scenes.
        first_seed: seed of the first scene; the others follow it.
    """
    return [_random_spec(rng, first_seed + i) for i in range(count)]


def _random_spec(rng: np.random.Generator, seed: int) -> SceneSpec:
    empty = rng.random() < EMPTY_SHARE
    name = OBJECTS[int(rng.integers(len(OBJECTS)))]
    background = BACKGROUNDS[int(rng.integers(len(BACKGROUNDS)))]
    count = int(rng.choice(len(OVERLAY_COUNTS), p=OVERLAY_COUNTS))
    chosen = rng.choice(len(OVERLAYS), count, replace=False)
    return SceneSpec(None if empty else name, background, tuple(OVERLAYS[i] for i in chosen), seed)


def render_pool(specs: Sequence[SceneSpec], side: int, processes: int) -> Pool:
    """Render scenes as a pipeline would see them: drawn larger, then resized bicubically.

    Args:
        specs: contents of the scenes; the seed of each also picks the side it is drawn at.
        side: side of the result in pixels.
        processes: worker processes.
    """
    chunks = [list(specs[i : i + _CHUNK]) for i in range(0, len(specs), _CHUNK)]
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as workers:
        parts = list(workers.map(_render_chunk, chunks, [side] * len(chunks)))
    pixels, marks = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return Pool(list(specs), pixels, marks)


def _render_chunk(
    specs: list[SceneSpec], side: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint32]]:
    scenes = [render(spec, RENDER_SIDES[spec.seed % len(RENDER_SIDES)]) for spec in specs]
    pixels = np.stack([pixels_of(scene.image, side) for scene in scenes])
    return pixels, np.stack([_marks(s, spec) for s, spec in zip(scenes, specs, strict=True)])


def _marks(scene: Scene, spec: SceneSpec) -> NDArray[np.uint32]:
    masks = dict(scene.overlay_masks)
    if spec.object is not None:
        masks[spec.object] = scene.object_mask
    marks = np.zeros((MARK_SIDE, MARK_SIDE), dtype=np.uint32)
    for name, mask in masks.items():
        small = Image.fromarray(mask).convert("L").resize(marks.shape, Image.Resampling.BOX)
        shown = np.asarray(small) > _INK * 255
        marks |= shown.astype(np.uint32) << np.uint32(THINGS.index(name))
    return marks


def pixels_of(image: Image.Image, side: int) -> NDArray[np.uint8]:
    """Resize as the pipeline does; uint8 (3, side, side)."""
    small = image.resize((side, side), Image.Resampling.BICUBIC)
    return np.ascontiguousarray(np.asarray(small, dtype=np.uint8).transpose(2, 0, 1))
