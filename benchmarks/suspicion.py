"""Are planted cues among the first three of their class where scores overlap?

    python -m benchmarks.suspicion --scenes 5400 --weights FILE

Drawn scenes are embedded once. A data set is 300 of them for each of 11 classes, chosen so that 8
classes have a cue of their own in ``--share`` of their images. Noise with the covariance within
classes is added to the embeddings until the states of a usual cue lie d' deviations apart, and
every class is shifted at random by a part of the deviation within classes, as models shift classes.
Printed is the share of planted cues among the first three of 18, by the mean alone and with the
variance.
"""

import argparse
import warnings
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.seeds import model_of
from legrad.mini.world import BACKGROUNDS, OBJECTS, OVERLAYS, SceneSpec, render
from legrad.models.vision_language import VisionLanguageModel
from pipeline.audit.inference import Array
from pipeline.audit.suspicion import TextFigures, class_shifts, likeness, suspect
from pipeline.audit.vocabulary import distinct_rows, vocabulary
from training.captions import named
from training.scenes import HELD_OUT, pixels_of

CUES = (*OVERLAYS, *BACKGROUNDS)
CLASSES, HOSTS, IMAGES, BASE = 11, 8, 300, 0.05
OFFSETS, DISTANCES = (0.0, 0.2, 0.5), (1.5, 2.3)
_DRAWN, _BATCH = 0.16, 100


@dataclass(frozen=True)
class Pool:
    """Embedded scenes (N, E), the code of each one's object, the cues (N, 18) and the texts."""

    embeddings: Array
    objects: NDArray[np.int64]
    present: NDArray[np.bool_]
    cues: Array
    words: Array
    classes: Array


def embedded(model: VisionLanguageModel, scenes: int) -> Pool:
    """Draw and embed scenes of the first objects, each overlay in some of them."""
    rng = np.random.default_rng(1)
    specs = []
    for number in range(scenes):
        overlays = tuple(name for name in OVERLAYS if rng.random() < _DRAWN)
        background = BACKGROUNDS[int(rng.integers(len(BACKGROUNDS)))]
        specs.append(SceneSpec(OBJECTS[number % CLASSES], background, overlays, HELD_OUT + number))
    parts = []
    for start in range(0, scenes, _BATCH):
        drawn = [pixels_of(render(s, 128).image, 96) for s in specs[start : start + _BATCH]]
        parts.append(model.encode_image(torch.from_numpy(np.stack(drawn))).double().numpy())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # words that the mini model never saw
        cues, words, classes = (
            model.encode_text(list(texts)).double().numpy()
            for texts in (map(named, CUES), vocabulary(), map(named, OBJECTS[:CLASSES]))
        )
    present = np.array([[c in s.overlays or c == s.background for c in CUES] for s in specs])
    codes = np.arange(scenes) % CLASSES
    return Pool(np.concatenate(parts), codes, present, cues, words[distinct_rows(words)], classes)


def data_set(
    pool: Pool, rng: np.random.Generator, planted: NDArray[np.int64], share: float
) -> NDArray[np.int64]:
    """Rows of the pool, `IMAGES` of each class in order."""
    rows = []
    for code in range(CLASSES):
        members = np.flatnonzero(pool.objects == code)
        weights = np.ones(len(members))
        for cue in range(len(CUES)):
            mine = code < HOSTS and planted[code] == cue
            if not mine and cue >= len(OVERLAYS):
                continue
            wanted, has = share if mine else BASE, pool.present[members, cue]
            weights *= np.where(has, wanted / has.mean(), (1 - wanted) / (1 - has.mean()))
        rows.append(rng.choice(members, IMAGES, p=weights / weights.sum()))
    return np.concatenate(rows)


def overlapping(
    embeddings: Array, present: NDArray[np.bool_], cues: Array, rng: np.random.Generator, d: float
) -> tuple[Array, Array]:
    """Embeddings with noise until states lie d apart, and the root (E, E) of their covariance."""
    within = embeddings - embeddings.reshape(CLASSES, IMAGES, -1).mean(axis=1).repeat(
        IMAGES, axis=0
    )
    covariance = within.T @ within / len(within)
    root: Array = np.linalg.cholesky(covariance + 1e-9 * np.eye(len(covariance)))
    scores, apart, narrow = within @ cues.T, [], []
    for cue in range(len(cues)):
        with_it, without = scores[present[:, cue], cue], scores[~present[:, cue], cue]
        apart.append((with_it.mean() - without.mean()) / without.std())
        narrow.append(without.var() / scores[:, cue].var())
    noise = np.sqrt(max((np.median(apart) / d) ** 2 - 1, 0) * np.mean(narrow))
    return embeddings + noise * rng.normal(size=embeddings.shape) @ root.T, root


def figures(embeddings: Array, classes: Array, texts: Array) -> TextFigures:
    """What the classes show of texts."""
    by_class = embeddings.reshape(CLASSES, IMAGES, -1)
    means = by_class.mean(axis=1)
    within = (by_class - means[:, None]).reshape(len(embeddings), -1)
    counts = np.full(CLASSES, float(IMAGES))
    shift = class_shifts(counts, means, within.T @ within / len(within), texts)
    return TextFigures(shift, np.log((by_class @ texts.T).var(axis=1)), likeness(classes, texts))


def main() -> None:
    """Print a row for each offset and distance."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--weights", help="weights.safetensors of another mini model")
    parser.add_argument("--scenes", type=int, default=5400)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--share", type=float, default=0.3)
    args = parser.parse_args()
    pool = embedded(model_of(args.weights), args.scenes)
    print("offset  d'   mean alone  mean and variance")
    for offset in OFFSETS:
        for distance in DISTANCES:
            alone, both = [], []
            for seed in range(args.seeds):
                rng = np.random.default_rng(seed)
                planted = rng.permutation(len(CUES))[:HOSTS]
                rows = data_set(pool, rng, planted, args.share)
                vectors, root = overlapping(
                    pool.embeddings[rows], pool.present[rows], pool.cues, rng, distance
                )
                away = rng.normal(size=(CLASSES, len(root))) @ root.T
                vectors += offset * away.repeat(IMAGES, axis=0)
                shown = [figures(vectors, pool.classes, t) for t in (pool.cues, pool.words)]
                plain = [replace(f, spread=np.full_like(f.spread, np.nan)) for f in shown]
                hosts = np.arange(HOSTS)
                alone += list(suspect(*plain).rank[hosts, planted] <= 3)
                both += list(suspect(*shown).rank[hosts, planted] <= 3)
            print(f"{offset:6}{distance:5}{np.mean(alone):13.2f}{np.mean(both):19.2f}", flush=True)


if __name__ == "__main__":
    main()
