"""LeGrad and other methods by the published protocols: ``python -m benchmarks.fidelity``.

    python -m benchmarks.fidelity.models FOLDER [--images PHOTOGRAPHS]
    python -m benchmarks.fidelity --model FOLDER [--photographs PHOTOGRAPHS]

Without a data set, it draws scenes. The published data sets are read in their original files:

    ... --model ViT-B-16 --pretrained TAG --segmentation gtsegs_ijcv.mat words.txt
    ... --points point-labels.csv class-descriptions.csv IMAGES
    ... --validation ILSVRC2012_img_val.tar ILSVRC2012_devkit_t12.tar.gz

All figures have 95 % intervals over images. The level of chance is shown by the rows ``random`` and
``centre prior``.
"""

import argparse
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from benchmarks.fidelity import cases
from benchmarks.fidelity.cases import Cases, Thing
from benchmarks.fidelity.methods import Method, methods
from benchmarks.fidelity.protocols import (
    point_counts,
    point_miou,
    randomised,
    rank_correlation,
    saco,
    wrong_texts,
)
from benchmarks.photographs_model import ARCHITECTURE, WEIGHTS
from legrad.heatmaps import upsample
from legrad.models.load import load_model
from legrad.models.vision_language import VisionLanguageModel
from pipeline.fidelity.estimates import estimate
from pipeline.fidelity.perturbation import areas
from pipeline.fidelity.segmentation import compared, counts, mean_iou, summary

_BATCH = 50
_SACO_IMAGES = 100
_CORRELATED = 50
Maps = NDArray[np.float32]
Row = dict[str, str]


def maps_of(
    method: Method, bench: Cases, images: NDArray[np.int64], texts: NDArray[np.int64]
) -> Maps:
    """Maps (M, h, w), one for each image and its text."""
    parts = []
    for start in range(0, len(images), _BATCH):
        part = slice(start, start + _BATCH)
        pixels = torch.from_numpy(bench.pixels[images[part]])
        parts.append(method(pixels, bench.directions[texts[part]]).float().numpy())
    return np.concatenate(parts)


def masked(method: Method, bench: Cases) -> Row:
    """Segmentation, pointing and points, for the right text and for a wrong one."""
    things = list(bench.things)
    images = np.array([thing.image for thing in things])
    right = np.array([thing.text for thing in things])
    began = time.perf_counter()
    maps = maps_of(method, bench, images, right)
    row = {"ms a map": f"{1e3 * (time.perf_counter() - began) / len(maps):.2f}"}
    outlined = [(heat, t.mask) for heat, t in zip(maps, things, strict=True) if t.mask is not None]
    if outlined:
        rows = [compared(upsample(heat, mask.shape), mask) for heat, mask in outlined]
        row |= {name: str(value) for name, value in summary(_by_image(rows, things)).items()}
        others = maps_of(method, bench, images, wrong_texts(right, len(bench.texts)))
        wrong = [
            counts(upsample(h, m.shape), m)[0] for h, (_, m) in zip(others, outlined, strict=True)
        ]
        row["mIoU, wrong text"] = str(estimate(_by_image(wrong, things), mean_iou))
    points = [t.points for t in things if t.points is not None]
    if len(points) == len(things):
        hits = [point_counts(heat, values) for heat, values in zip(maps, points, strict=True)]
        names = [bench.texts[thing.text] for thing in things]
        row["p-mIoU"] = str(point_miou(np.stack(hits), names, [t.image for t in things]))
    return row


def _by_image(rows: list[NDArray[np.float64]], things: list[Thing]) -> NDArray[np.float64]:
    """Mean row of each image, because the things of one image are not independent."""
    grouped = defaultdict(list)
    for row, thing in zip(rows, things, strict=True):
        grouped[thing.image].append(row)
    return np.stack([np.mean(group, axis=0) for group in grouped.values()])


def perturbed(method: Method, bench: Cases, model: VisionLanguageModel) -> Row:
    """Perturbation for the predicted and the target class, and SaCo for the predicted one."""
    assert bench.labels is not None
    every, texts = np.arange(len(bench.pixels)), bench.directions[: bench.classes]

    def scores(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        return (model.encode_image(torch.from_numpy(pixels)) @ texts.T).numpy()

    def classify(pixels: NDArray[np.uint8]) -> NDArray[np.int64]:
        return np.asarray(scores(pixels).argmax(axis=1))

    starts = range(0, len(every), _BATCH)
    first = np.concatenate([classify(bench.pixels[s : s + _BATCH]) for s in starts])
    predicted = maps_of(method, bench, every, first)
    by_predicted = areas(classify, bench.pixels, predicted, bench.labels, first)
    differ = np.flatnonzero(first != bench.labels)  # elsewhere both are the same map
    by_target = by_predicted.copy()
    if len(differ):
        target, labels = maps_of(method, bench, differ, bench.labels[differ]), bench.labels[differ]
        by_target[differ] = areas(classify, bench.pixels[differ], target, labels, first[differ])
    row = {}
    for name, values in (("predicted", by_predicted), ("target", by_target)):
        for column, kind in enumerate(("negative", "positive")):
            row[f"{kind}, {name}"] = str(estimate(values[:, column]))
        row[f"gap, {name}"] = str(estimate(values[:, 0] - values[:, 1]))
    scale = model.logit["scale"] or 1.0
    coefficients = []
    for number in range(min(_SACO_IMAGES, len(every))):

        def probability(pixels: NDArray[np.uint8], of: int = int(first[number])) -> Maps:
            logits = torch.from_numpy(scores(pixels)) * scale
            return np.asarray(logits.softmax(dim=1)[:, of].numpy())

        coefficients.append(100 * saco(probability, bench.pixels[number], predicted[number]))
    return row | {"SaCo": str(estimate(np.array(coefficients)))}


def correlated(bench: Cases, model: VisionLanguageModel) -> pd.DataFrame:
    """Rank correlation of maps with those of a model randomised from the top, by method."""
    texts = bench.directions
    count = min(_CORRELATED, len(bench.pixels))
    pixels = torch.from_numpy(bench.pixels[:count])
    rows = texts[torch.arange(count) % len(texts)]
    own = {
        method.name: method(pixels, rows).float()
        for method in methods(model, texts, bench.baseline)
    }
    table: dict[str, Row] = {name: {} for name in own}
    for stage, changed in enumerate(randomised(model), 1):
        for method in methods(changed, texts, bench.baseline):
            values = 100 * rank_correlation(own[method.name], method(pixels, rows).float())
            table[method.name][f"last {stage} random"] = str(estimate(values))
    return pd.DataFrame(table).T


def main() -> None:
    """Print the tables of a model on a data set."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--model",
        required=True,
        help="folder of benchmarks.fidelity.models, or a name of open_clip",
    )
    parser.add_argument("--pretrained", help="tag or weights file of a name of open_clip")
    parser.add_argument("--photographs", type=Path, help="class folders, or Parquet")
    parser.add_argument("--segmentation", type=Path, nargs=2, metavar=("MAT", "WORDS"))
    parser.add_argument("--points", type=Path, nargs=3, metavar=("POINTS", "NAMES", "IMAGES"))
    parser.add_argument("--validation", type=Path, nargs=2, metavar=("TAR", "KIT"))
    parser.add_argument("--count", type=int, default=300, help="images")
    parser.add_argument("--out", type=Path, help="also write the tables to this CSV file")
    args = parser.parse_args()
    torch.set_num_threads(1)
    model, bench = _model(args), None
    if args.photographs:
        bench = cases.photographs(model, args.photographs, args.count)
    elif args.segmentation:
        file, names = args.segmentation
        bench = cases.segmentation(model, file, names, args.count)
    elif args.points:
        bench = cases.open_vocabulary(model, args.points, args.count)
    elif args.validation:
        images, kit = args.validation
        bench = cases.validation(model, images, kit, args.count)
    else:
        bench = cases.drawn_scenes(model, args.count)
    rows: dict[str, Row] = {}
    for method in methods(model, bench.directions, bench.baseline):
        rows[method.name] = masked(method, bench) if bench.things else {}
        if bench.labels is not None:
            rows[method.name] |= perturbed(method, bench, model)
        print(method.name, rows[method.name], flush=True)
    table = pd.DataFrame(rows).T.join(correlated(bench, model))
    if args.out:
        table.to_csv(args.out)
    pd.set_option("display.width", 250, "display.max_columns", 40)
    print(f"{len(bench.pixels)} images, {len(bench.things)} things\n{table.T.to_string()}")
    masks = [thing.mask for thing in bench.things if thing.mask is not None]
    if masks:
        empty = [compared(np.zeros_like(mask, np.float32), mask) for mask in masks]
        nothing = {n: str(v) for n, v in summary(_by_image(empty, list(bench.things))).items()}
        print(f"a map that marks nothing: {nothing}")


def _model(args: argparse.Namespace) -> VisionLanguageModel:
    folder = Path(args.model)
    if (folder / WEIGHTS).exists():
        return load_model(str(folder / ARCHITECTURE), str(folder / WEIGHTS))
    return load_model(args.model, args.pretrained)


if __name__ == "__main__":
    main()
