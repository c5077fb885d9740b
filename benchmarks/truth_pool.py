"""The pool of drawn images from which the truth benchmark assembles its data sets.

The model is used once, for the pool: embeddings, maps, and the edits of images that have a cue. A
data set is then a choice of rows of the pool.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import count
from multiprocessing import get_context

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from scipy.stats import entropy

from legrad.method.explainer import LeGrad
from legrad.mini.world import SceneSpec, render
from legrad.mini.world.scene import corners
from legrad.models.vision_language import VisionLanguageModel
from legrad.preprocess import Preprocess
from pipeline.config.audit_settings import RelianceConfig
from pipeline.reliance.claims import TextDirections
from pipeline.reliance.editor import Editor
from pipeline.reliance.shortlist import IMAGE_COLUMNS, PairTask
from training.captions import named

SIDE = 192
OBJECTS = ("fish", "car", "apple", "boat")
CUES = ("watermark", "sticker", "barcode", "border")
DECOYS = ("logo", "ruler", "stamp", "timestamp", "cat", "clock", "key", "cake")
HOSTED = {"fish": ("watermark", "sticker"), "car": ("barcode", "border")}
"""Object -> the cues that may be planted on it."""
BACKGROUNDS = ("grass", "water", "sand", "brick", "snow", "night sky")
_BATCH = 100
Key = tuple[str, frozenset[str]]


@dataclass(frozen=True)
class Size:
    """Images of each content: of an object that hosts cues, and of one that hosts none."""

    plain: int = 830
    planted: int = 450
    other: int = 60
    both: int = 30
    bare: int = 430
    bare_other: int = 30
    edited: int = 220
    targets: int = 60


@dataclass(frozen=True)
class Pool:
    """N images.

    Attributes:
        specs: contents.
        embeddings: (N, E).
        maps: query -> (N, cells), of objects and cues.
        photometry: (N, 4) brightness, contrast, entropy, sharpness.
        edits: (object, cue) -> table of edits, including those of targets of all objects.
        buckets: content -> rows of the pool, edited images first.
    """

    specs: Sequence[SceneSpec]
    embeddings: NDArray[np.float32]
    maps: Mapping[str, NDArray[np.float32]]
    photometry: NDArray[np.float64]
    edits: Mapping[tuple[str, str], pa.Table]
    buckets: Mapping[Key, list[int]]


def contents(size: Size) -> list[Key]:
    """The contents of all images, in the order of the pool."""
    keys: list[Key] = []
    for name in OBJECTS:
        planted = HOSTED.get(name, ())
        counts = {frozenset[str](): size.plain if planted else size.bare}
        for cue in CUES:
            rest = size.other if planted else size.bare_other
            counts[frozenset([cue])] = size.planted if cue in planted else rest
            for other in CUES:
                if planted and other != cue and (cue in planted or other in planted):
                    counts[frozenset([cue, other])] = size.both
        keys += [(name, having) for having, number in counts.items() for _ in range(number)]
    return keys


def specs_of(keys: Sequence[Key], seed: int, *, fixed: bool) -> list[SceneSpec]:
    """Scenes; with ``fixed``, every overlay is in the first corner of the picture."""
    rng, seeds, made = np.random.default_rng(seed), count(seed * 10_000_000), []
    for name, having in keys:
        background = BACKGROUNDS[int(rng.integers(len(BACKGROUNDS)))]
        overlays = tuple(cue for cue in CUES if cue in having)
        spec = SceneSpec(name, background, overlays, next(seeds))
        while fixed and overlays and corners(spec)[0] != (False, False):
            spec = SceneSpec(name, background, overlays, next(seeds))
        made.append(spec)
    return made


def draw(
    specs: Sequence[SceneSpec], preprocess: Preprocess
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Pixels (N, 3, side, side) and photometry (N, 4)."""
    chunks = [list(specs[i : i + _BATCH]) for i in range(0, len(specs), _BATCH)]
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as workers:
        parts = list(workers.map(_draw, chunks, [preprocess] * len(chunks)))
    pixels, photometry = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return pixels, photometry


def _draw(
    specs: list[SceneSpec], preprocess: Preprocess
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    images = [render(spec, SIDE).image for spec in specs]
    grey = [np.asarray(image.convert("L"), dtype=np.float64) for image in images]
    rows = [
        (g.mean(), g.std(), entropy(np.histogram(g, 64)[0] + 1.0), np.abs(np.diff(g)).mean())
        for g in grey
    ]
    return np.stack([preprocess(image) for image in images]), np.array(rows)


def text_directions(model: VisionLanguageModel) -> TextDirections:
    """Directions of all names; a class has the text of its object, whatever its label."""
    names = [*OBJECTS, *CUES, *DECOYS]
    plain = model.encode_text([named(name) for name in names]).numpy()
    texts = dict(zip(names, plain, strict=True))
    pairs = [(name, cue) for name in OBJECTS for cue in CUES]
    joined = model.encode_text([f"{named(a)} with {named(b)}" for a, b in pairs]).numpy()
    return TextDirections(
        cues={name: texts[name] for name in (*CUES, *DECOYS)},
        classes={name: texts[name] for name in OBJECTS},
        controls={pair: row - texts[pair[0]] for pair, row in zip(pairs, joined, strict=True)},
    )


def build(
    model: VisionLanguageModel,
    drawn: tuple[NDArray[np.uint8], NDArray[np.float64]],
    specs: Sequence[SceneSpec],
    size: Size,
) -> Pool:
    """Embed, explain and edit the images."""
    pixels, photometry = drawn
    directions = text_directions(model)
    texts = {**directions.classes, **{cue: directions.cues[cue] for cue in CUES}}
    legrad = LeGrad(model)
    text_features = torch.from_numpy(np.stack(list(texts.values())))
    features, maps = [], []
    for start in range(0, len(pixels), _BATCH):
        batch = torch.from_numpy(pixels[start : start + _BATCH])
        explanation = legrad.explain(batch, text_features)
        features.append(explanation.image_features.numpy())
        maps.append(explanation.maps.flatten(2).numpy())
    heat = np.concatenate(maps).transpose(1, 0, 2)
    buckets: dict[Key, list[int]] = defaultdict(list)
    for pool_row, spec in enumerate(specs):
        buckets[str(spec.object), frozenset(spec.overlays)].append(pool_row)
    editor = Editor(
        model, legrad.layers, texts, RelianceConfig(), lambda row: pixels[int(row["row"])]
    )
    return Pool(
        specs,
        np.concatenate(features),
        dict(zip(texts, heat, strict=True)),
        photometry,
        {
            (name, cue): editor.edit(_task(name, cue, buckets, specs, size))
            for name, cues in HOSTED.items()
            for cue in cues
        },
        buckets,
    )


def _task(
    name: str,
    cue: str,
    buckets: Mapping[Key, list[int]],
    specs: Sequence[SceneSpec],
    size: Size,
) -> PairTask:
    having = buckets[name, frozenset([cue])][: size.edited]
    both = [
        p for key, pool_rows in buckets.items() if key[0] == name for p in pool_rows[: size.both]
    ]
    having += [p for p in both if cue in specs[p].overlays and len(specs[p].overlays) > 1]
    bare = [p for other in OBJECTS for p in buckets[other, frozenset()][: size.targets]]
    return PairTask(
        name,
        cue,
        name,
        tuple(
            _row(pool_row, [c for c in specs[pool_row].overlays if c != cue]) for pool_row in having
        ),
        tuple(_row(pool_row, []) for pool_row in bare),
        (),
    )


def image_id(pool_row: int) -> str:
    """Id of an image of the pool."""
    return f"pool/{pool_row:06d}"


def _row(pool_row: int, others: Sequence[str]) -> dict[str, object]:
    row: dict[str, object] = dict.fromkeys(IMAGE_COLUMNS)
    row |= {"image_id": image_id(pool_row), "row": pool_row, "width": SIDE, "height": SIDE}
    return row | {"others": list(others)}
