"""The images, texts and masks on which methods are compared, drawn or published, in one form."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from benchmarks.fidelity.data import (
    imagenet_labels,
    imagenet_segmentation,
    imagenet_validation,
    openimages_points,
    words,
)
from benchmarks.fidelity.protocols import Points
from benchmarks.photographs import CHECKED
from benchmarks.photographs_world import pasted, read_photographs, split
from legrad.mini.world import OBJECTS, OVERLAYS
from legrad.models.vision_language import VisionLanguageModel
from pipeline.fidelity.segmentation import Mask
from training.captions import named
from training.grounding import SMALLEST_MASK
from training.held_out import held_out
from training.scenes import HELD_OUT, random_specs

POINTS_PER_SIDE = 10
"""Points on a thing, and beside it, where they are drawn from a mask."""
_PROMPT = "A photo of a {}"
_BASELINE = "a photo"


@dataclass(frozen=True)
class Thing:
    """Something that a text names in an image.

    Attributes:
        image: number of the image.
        text: the number of the text.
        mask: its area, at any size with the image's aspect; None if only points are known.
        points: (P, 3) points on it and beside it, see `protocols`.
    """

    image: int
    text: int
    mask: Mask | None
    points: Points | None


@dataclass(frozen=True)
class Cases:
    """N images, texts, and what is known about them.

    Attributes:
        pixels: uint8 (N, 3, height, width).
        texts: the K texts.
        directions: (K, E) unit features of the texts.
        baseline: (E,) unit feature of a text that names nothing.
        labels: (N,) number of the text of each image's class; None if images have no class.
        classes: number of texts that are classes; they come first.
        things: things that texts name, with their masks and points.
    """

    pixels: NDArray[np.uint8]
    texts: Sequence[str]
    directions: Tensor
    baseline: Tensor
    labels: NDArray[np.int64] | None = None
    classes: int = 0
    things: Sequence[Thing] = field(default_factory=list)


def drawn_scenes(model: VisionLanguageModel, count: int) -> Cases:
    """Held-out scenes with an object and up to three overlays, and the exact masks of the objects.

    Most overlays are too small for the model at its input size to recognise them.
    """
    rng = np.random.default_rng(6)
    specs = [s for s in random_specs(rng, 2 * count, HELD_OUT + 5_000_000) if s.object][:count]
    side, patch = model.preprocess.size[0], model.tower.patch_size[0]
    truth = held_out(specs, side, patch, processes=1)
    names = [*OBJECTS, *OVERLAYS]
    objects = [str(spec.object) for spec in specs]
    masks = [(row, name, truth.visible[row][name]) for row, name in enumerate(objects)]
    labels = np.array([OBJECTS.index(name) for name in objects])
    return _cases(model, truth.pixels, names, labels, len(OBJECTS), masks)


def photographs(model: VisionLanguageModel, folder: Path, count: int) -> Cases:
    """Held-out photographs, into each of which two overlays are pasted, and the ink of these."""
    left = split(read_photographs(folder))[1]
    left = left.take(np.arange(CHECKED, CHECKED + count))
    rng, pixels, masks = np.random.default_rng(7), [], []
    for row, small in enumerate(left.pixels):
        overlays = [OVERLAYS[i] for i in rng.choice(len(OVERLAYS), 2, replace=False)]
        image, ink = pasted(small, overlays, rng)
        pixels.append(model.preprocess(image))
        masks += [(row, name, mask) for name, mask in ink.items()]
    names = [*left.classes, *OVERLAYS]
    return _cases(model, np.stack(pixels), names, left.labels, len(left.classes), masks)


def segmentation(model: VisionLanguageModel, file: Path, names: Path, count: int) -> Cases:
    """ImageNet-Segmentation."""
    by_wnid = words(names)
    samples = [s for s, _ in zip(imagenet_segmentation(file), range(count), strict=False)]
    texts = sorted({by_wnid[sample.wnid] for sample in samples})
    things = [
        Thing(row, texts.index(by_wnid[sample.wnid]), sample.mask, None)
        for row, sample in enumerate(samples)
    ]
    pixels = np.stack([model.preprocess(sample.image) for sample in samples])
    return Cases(pixels, texts, *_encoded(model, texts), things=things)


def open_vocabulary(model: VisionLanguageModel, files: Sequence[Path], count: int) -> Cases:
    """OpenImages V7; the files are those of points, of names, and the folder of images."""
    samples = [p for p, _ in zip(openimages_points(*files), range(count), strict=False)]
    texts = sorted({name for sample in samples for name in sample.points})
    things = [
        Thing(row, texts.index(name), None, points)
        for row, sample in enumerate(samples)
        for name, points in sample.points.items()
    ]
    pixels = []
    for sample in samples:
        with Image.open(sample.file) as image:
            pixels.append(model.preprocess(image))
    return Cases(np.stack(pixels), texts, *_encoded(model, texts), things=things)


def validation(model: VisionLanguageModel, images: Path, kit: Path, count: int) -> Cases:
    """ImageNet's validation set, for perturbation."""
    labels = imagenet_labels(kit)
    samples = [p for p, _ in zip(imagenet_validation(images, labels), range(count), strict=False)]
    pixels = np.stack([model.preprocess(image) for image, _ in samples])
    directions, baseline = _encoded(model, labels.names)
    own = np.array([label for _, label in samples])
    return Cases(pixels, labels.names, directions, baseline, own, len(labels.names))


def _encoded(model: VisionLanguageModel, names: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Directions of names, and that of the baseline."""
    rows = model.encode_text([*(_PROMPT.format(name) for name in names), _BASELINE])
    return rows[:-1], rows[-1]


def _cases(
    model: VisionLanguageModel,
    pixels: NDArray[np.uint8],
    names: Sequence[str],
    labels: NDArray[np.int64],
    classes: int,
    masks: Sequence[tuple[int, str, Mask]],
) -> Cases:
    """Cases of the drawn world's names, with points drawn from the masks."""
    rng = np.random.default_rng(8)
    directions = model.encode_text([*map(named, names), _BASELINE])
    things = [
        Thing(row, names.index(name), mask, _points(mask, rng))
        for row, name, mask in masks
        if SMALLEST_MASK <= mask.mean() < 1
    ]
    return Cases(pixels, names, directions[:-1], directions[-1], labels, classes, things)


def _points(mask: Mask, rng: np.random.Generator) -> Points:
    rows = []
    for inside in (True, False):
        cells = np.argwhere(mask == inside)
        for y, x in rng.permutation(cells)[:POINTS_PER_SIDE]:
            rows.append((x / mask.shape[1], y / mask.shape[0], float(inside)))
    return np.array(rows)
