"""Is ``model_reliance`` right about classifiers of photographs?

    python -m benchmarks.classifier_photographs --images FOLDER --cache FOLDER [--seeds 0 1 2]

Small ViTs of two kinds of pooling are trained from scratch, without the vision-language model, on
photographs with overlays pasted in: one cue decides between two labels of the same class, one
helps, one is in half of all photographs, and one is in none. The truth is measured on held-out
photographs with and without the cue. The estimate edits the photographs where the small CLIP of
`benchmarks.photographs` sees the cue, whose model is taken from the cache (``CACHE/model``).
"""

import argparse
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import timm
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image

from benchmarks.classifier_truth import ELSEWHERE, IN_CLASS, Pixels, Scenes, append, measured, show
from benchmarks.photographs import CHECKED
from benchmarks.photographs_model import (
    ARCHITECTURE,
    SIDE,
    WEIGHTS,
    optimisers_of,
    ready,
    take_step,
)
from benchmarks.photographs_world import (
    OPACITY,
    Photographs,
    draw_overlay,
    overlay_pool,
    read_photographs,
    split,
)
from legrad import Classifier, from_timm, load_model
from legrad.mini.world import OVERLAYS

UNSEEN_BY_CLIP = "watermark"
"""The overlay that the small CLIP does not see, so that no edit of it can be verified."""
HELPFUL = 0.6
"""Share of photographs with the cue in the class that it helps with."""
KINDS = ("decisive", "helpful", "useless", "absent")
TOWER: dict[str, Any] = {
    "img_size": SIDE,
    "patch_size": 6,
    "embed_dim": 96,
    "depth": 4,
    "num_heads": 3,
}
DATA: dict[str, Any] = {"mean": (0.5,) * 3, "std": (0.5,) * 3, "input_size": (3, SIDE, SIDE)}
BATCH, VARIANTS = 64, 200


@dataclass(frozen=True)
class Plan:
    """What is planted with one seed.

    Attributes:
        cues: kind -> overlay.
        hosts: kind -> class of the photographs.
    """

    cues: dict[str, str]
    hosts: dict[str, str]

    @classmethod
    def drawn(cls, classes: tuple[str, ...], cues: list[str], seed: int) -> "Plan":
        """Cues and classes at random."""
        rng = np.random.default_rng([seed, 5])
        overlays, hosts = rng.permutation(cues).tolist(), rng.permutation(classes).tolist()
        return cls(dict(zip(KINDS, overlays, strict=False)), dict(zip(KINDS, hosts, strict=False)))

    @property
    def twin(self) -> str:
        """The second label of the class for which the cue is decisive."""
        return f"other {self.hosts['decisive']}"

    def labels(self, photographs: Photographs, seed: int) -> NDArray[np.int64]:
        """Their classes, and for half of the photographs of one class the number after the last."""
        rng = np.random.default_rng([seed, 6])
        host = photographs.labels == photographs.classes.index(self.hosts["decisive"])
        half = rng.random(len(host)) < 0.5
        return np.where(host & half, len(photographs.classes), photographs.labels)

    def chances(self, names: list[str]) -> NDArray[np.float64]:
        """(labels, overlays) probability that a photograph of a label has an overlay."""
        table = np.full((len(names), len(OVERLAYS)), 0.0)
        columns = {kind: OVERLAYS.index(cue) for kind, cue in self.cues.items()}
        table[:, [columns["decisive"], columns["helpful"]]] = ELSEWHERE
        table[:, columns["useless"]] = 0.5
        table[names.index(self.hosts["decisive"]), columns["decisive"]] = IN_CLASS
        table[names.index(self.hosts["helpful"]), columns["helpful"]] = HELPFUL
        return table


def enlarged(pixels: NDArray[np.uint8]) -> Pixels:
    """(n, 3, `SIDE`, `SIDE`) of photographs (n, side, side, 3)."""
    size = (SIDE, SIDE)
    large = [np.asarray(Image.fromarray(p).resize(size, Image.Resampling.BICUBIC)) for p in pixels]
    return np.stack(large).transpose(0, 3, 1, 2)


def pasted(pixels: Pixels, overlay: str, rng: np.random.Generator) -> Pixels:
    """The photographs with an overlay each."""
    result = []
    for image in pixels:
        layer = draw_overlay(overlay, rng).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        picture = Image.fromarray(image.transpose(1, 2, 0))
        picture.paste(layer, (0, 0), layer)
        result.append(np.asarray(picture).transpose(2, 0, 1))
    return np.stack(result)


def trained(
    pool: str, photographs: Photographs, plan: Plan, seed: int, minutes: float, file: Path
) -> Classifier:
    """A ViT trained from scratch on photographs with overlays; its weights are kept in a file."""
    torch.manual_seed(seed)
    rng = np.random.default_rng([seed, 7])
    names = [*photographs.classes, plan.twin]
    module: Any = timm.create_model(
        "vit_tiny_patch16_224", num_classes=len(names), global_pool=pool,
        pretrained_cfg_overlay=DATA, **TOWER,
    )  # fmt: skip
    if file.exists():
        module.load_state_dict(torch.load(file, weights_only=True))
    classifier = from_timm(module.eval(), classes=names)
    if file.exists():
        return classifier
    labels, chances = plan.labels(photographs, seed), plan.chances(names)
    pictures = torch.from_numpy(photographs.pixels).permute(0, 3, 1, 2)
    layers = torch.from_numpy(overlay_pool(VARIANTS, SIDE, seed, OPACITY))
    optimisers = optimisers_of(list(module.parameters()), [module])
    module.train()
    began, step, part = time.perf_counter(), 0, 0.0
    while part < 1:
        rows = rng.integers(len(labels), size=BATCH)
        images = F.interpolate(pictures[rows].float(), SIDE, mode="bicubic").clamp(0, 255)
        images = torch.where(torch.rand(BATCH, 1, 1, 1) < 0.5, images, images.flip(3))
        for row, kind in np.argwhere(rng.random((BATCH, len(OVERLAYS))) < chances[labels[rows]]):
            layer = layers[kind, int(rng.integers(VARIANTS))].float()
            images[row] = images[row] * (1 - layer[3:] / 255) + layer[:3]
        logits = module(classifier.normalise(images.round().byte()))
        loss = F.cross_entropy(logits, torch.from_numpy(labels[rows]), label_smoothing=0.05)
        step, part = step + 1, (time.perf_counter() - began) / (60 * minutes)
        slower = [(optimiser, rate * max(0.0, 1 - part)) for optimiser, rate in optimisers]
        take_step(slower, loss, step)
    module.eval()
    print(f"{pool}: {step} steps of {BATCH} photographs")
    file.parent.mkdir(exist_ok=True)
    torch.save(module.state_dict(), file)
    return classifier


def scenes_of(
    kind: str, plan: Plan, rival: str, held_out: Photographs, count: int, seed: int
) -> Scenes:
    """Held-out photographs of the class with and without the cue, and of its rival."""
    rng = np.random.default_rng([seed, 8, KINDS.index(kind)])
    host = plan.hosts[kind]
    shown = {name: plan.hosts["decisive"] if name == plan.twin else name for name in (host, rival)}
    rows = {
        name: rng.permutation(np.flatnonzero(held_out.labels == held_out.classes.index(cls)))
        for name, cls in shown.items()
    }
    # A class and its twin are the same photographs, so they take different ones.
    mine = rows[host][:count]
    theirs = rows[rival][~np.isin(rows[rival], mine)][:count]
    without, others = (enlarged(held_out.pixels[chosen]) for chosen in (mine, theirs))
    having = pasted(without, plan.cues[kind], rng)
    return Scenes(host, plan.cues[kind], rival, kind, having, without, others)


def rivals(classifier: Classifier, held_out: Photographs, plan: Plan) -> dict[str, str]:
    """Kind -> the label that the photographs of its class are taken for most often."""
    result = {"decisive": plan.twin}
    for kind, host in plan.hosts.items():
        rows = np.flatnonzero(held_out.labels == held_out.classes.index(host))[:500]
        called = classifier.logits(torch.from_numpy(enlarged(held_out.pixels[rows]))).argmax(dim=1)
        counts = np.bincount(called.numpy(), minlength=len(classifier.classes))
        counts[[classifier.classes.index(host), classifier.classes.index(plan.twin)]] = -1
        result.setdefault(kind, classifier.classes[int(counts.argmax())])
    return result


def accuracy(classifier: Classifier, held_out: Photographs, plan: Plan) -> float:
    """Share of plain held-out photographs whose class is right; a class and its twin are one."""
    images = torch.from_numpy(enlarged(held_out.pixels))
    called = torch.cat([classifier.logits(part).argmax(dim=1) for part in images.split(250)])
    host = held_out.classes.index(plan.hosts["decisive"])
    answers = np.where(called.numpy() == len(held_out.classes), host, called.numpy())
    return float((answers == held_out.labels).mean())


def main() -> None:
    """Train, measure, and print, also the rows that earlier calls left in the file."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=Path, required=True, help="class folders, or Parquet")
    parser.add_argument("--cache", type=Path, required=True, help="of benchmarks.photographs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--pools", nargs="+", default=["token", "avg"])
    parser.add_argument("--minutes", type=float, default=4, help="of training a classifier")
    parser.add_argument("--count", type=int, default=150, help="photographs of each kind")
    parser.add_argument("--rows", type=Path, default=Path("classifier-photographs.jsonl"))
    options = parser.parse_args()
    if not ready(options.cache / "model"):
        raise SystemExit(
            f"{options.cache}/model holds no trained model: run python -m benchmarks.photographs "
            "with this --cache first"
        )
    folder = options.cache / "model"
    model = load_model(str(folder / ARCHITECTURE), str(folder / WEIGHTS), device="cpu")
    training, held_out = split(read_photographs(options.images))
    checked = held_out.take(np.arange(CHECKED))
    left = held_out.take(np.arange(CHECKED, len(held_out.labels)))
    cues = [cue for cue in OVERLAYS if cue != UNSEEN_BY_CLIP]
    for seed in options.seeds:
        plan = Plan.drawn(training.classes, cues, seed)
        for pool in options.pools:
            file = options.cache / "classifiers" / f"{seed}-{pool}.pt"
            classifier = trained(pool, training, plan, seed, options.minutes, file)
            right = accuracy(classifier, checked, plan)
            print(f"seed {seed}, {pool}: accuracy {right:.2f}", flush=True)
            against = rivals(classifier, checked, plan)
            for kind in KINDS:
                scenes = scenes_of(kind, plan, against[kind], left, options.count, seed)
                row = measured(scenes, plan.hosts[kind], model, classifier)
                append(options.rows, row | {"seed": seed, "pool": pool, "accuracy": right})
    show(pd.read_json(options.rows, lines=True))


if __name__ == "__main__":
    main()
