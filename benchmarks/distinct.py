"""What distinct texts do to maps and scores: ``python -m benchmarks.distinct``.

Held-out drawn scenes are explained for the names of overlays and of objects, as they are and made
distinct from the other names of the drawn world. Printed are

- heat on the object: mean heat inside the mask of the image's object, divided by the mean of the
  map, in images without what the text names. 1 would be no objectness at all;
- pixel AUC: a pixel of what is named is hotter than another, where it is present;
- presence AUC: images with it score higher than images without it, mean and least of the names.
"""

import argparse
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import mannwhitneyu

from benchmarks.seeds import model_of
from legrad.heatmaps import upsample
from legrad.method.explainer import LeGrad
from legrad.mini.world import BACKGROUNDS, OBJECTS, OVERLAYS
from legrad.queries.distinct import residual
from training.captions import named
from training.grounding import SMALLEST_MASK, pixel_auc
from training.held_out import Truth, held_out
from training.scenes import HELD_OUT, random_specs

NAMES = (*OBJECTS, *OVERLAYS, *BACKGROUNDS)
_FIRST_SEED = HELD_OUT + 3_000_000
_BATCH = 50
Maps = NDArray[np.float32]


def explained(
    legrad: LeGrad, pixels: NDArray[np.uint8], directions: NDArray[np.float64]
) -> tuple[Maps, Maps]:
    """Maps (N, Q, h, w) and scores (N, Q)."""
    features = torch.from_numpy(directions).float()
    maps, scores = [], []
    for start in range(0, len(pixels), _BATCH):
        batch = legrad.explain(torch.from_numpy(pixels[start : start + _BATCH]), features)
        maps.append(batch.maps.numpy())
        scores.append(batch.scores.numpy())
    return np.concatenate(maps), np.concatenate(scores)


def figures(truth: Truth, names: Sequence[str], maps: Maps, scores: Maps) -> list[float]:
    """Heat on the object, pixel AUC, presence AUC, and the least presence AUC."""
    on_object, pixels, presence = [], [], []
    for column, name in enumerate(names):
        present = truth.contains(name)
        with_it, without = scores[present, column], scores[~present, column]
        presence.append(mannwhitneyu(with_it, without).statistic / len(with_it) / len(without))
        for row, masks in enumerate(truth.visible):
            shown = name if present[row] else str(truth.specs[row].object)
            mask = masks.get(shown)
            if mask is None or mask.mean() < SMALLEST_MASK:
                continue
            heat = upsample(maps[row, column], mask.shape)
            if present[row]:
                pixels.append(pixel_auc(heat, mask))
            else:
                on_object.append(heat[mask].mean() / heat.mean())
    return [float(v) for v in (np.mean(on_object), np.mean(pixels), np.mean(presence))] + [
        float(min(presence))
    ]


def main() -> None:
    """Print a row for each kind of name and each number of atoms."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--weights", help="weights.safetensors of another mini model")
    parser.add_argument("--scenes", type=int, default=250)
    parser.add_argument("--atoms", type=int, nargs="+", default=[0, 3, 6, 12, 30])
    parser.add_argument("--processes", type=int, default=2, help="that draw the scenes")
    args = parser.parse_args()
    model = model_of(args.weights)
    legrad = LeGrad(model)
    specs = random_specs(np.random.default_rng(5), args.scenes, _FIRST_SEED)
    patch = model.preprocess.size[0] // model.grid[0]
    truth = held_out(specs, model.preprocess.size[0], patch, args.processes)
    texts = model.encode_text([named(name) for name in NAMES]).double().numpy()
    print("names     atoms  heat on object  pixel AUC  presence AUC  least")
    for kind in (OVERLAYS, OBJECTS):
        places = [NAMES.index(name) for name in kind]
        for atoms in args.atoms:
            others = [np.delete(texts, place, axis=0) for place in places]
            directions = np.stack(
                [
                    residual(texts[place], rest, atoms) if atoms else texts[place]
                    for place, rest in zip(places, others, strict=True)
                ]
            )
            row = figures(truth, kind, *explained(legrad, truth.pixels, directions))
            label = "overlays" if kind is OVERLAYS else "objects"
            print(
                f"{label:9}{atoms:6}{row[0]:16.2f}{row[1]:11.3f}{row[2]:14.4f}{row[3]:7.3f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
