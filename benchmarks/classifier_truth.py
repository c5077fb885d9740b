"""Is ``model_reliance`` right about a classifier? ``python -m benchmarks.classifier_truth``.

Classifiers are trained on drawn scenes in which a cue decides the class, helps, is unneeded,
useless (it is in half of the images of every class) or absent. Trained are the last block and the
head of the mini model's tower, with class-token or average pooling. The truth is measured by
drawing each scene once more without its cue. The script prints true and estimated effects on logits
and decisions, and which pairs are flagged.
"""

import argparse
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.compute as pc
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from legrad import Classifier, LeGrad, VisionLanguageModel, from_timm, load_model
from legrad.mini.world import SceneSpec, render
from legrad.preprocess import Preprocess
from pipeline.config.audit_settings import Gates, RelianceConfig
from pipeline.reliance.classifier_edits import HEAT, Replay
from pipeline.reliance.editor import Editor
from pipeline.reliance.edits import PairEdits
from pipeline.reliance.model_claim import Shares, flips, logit_share, reason
from pipeline.reliance.regions import Cells, cells_of
from pipeline.reliance.shortlist import IMAGE_COLUMNS, PairTask
from tests.classifiers import mini_tower
from training.captions import named

LABELS = {
    "fresh fish": "fish", "frozen fish": "fish", "car": "car", "house": "house", "apple": "apple",
    "mushroom": "mushroom", "boat": "boat", "balloon": "balloon", "bird": "bird",
    "city bird": "bird",
}  # fmt: skip
PAIRS = {  # (class, cue) -> rival, what the cue is to the classifier
    ("frozen fish", "watermark"): ("fresh fish", "decisive"),
    ("city bird", "logo"): ("bird", "helpful"),
    ("car", "barcode"): ("house", "unneeded"),
    ("apple", "sticker"): ("mushroom", "useless"),
    ("boat", "stamp"): ("balloon", "absent"),
}
IN_CLASS, ELSEWHERE = 0.9, 0.05
GROUNDS = ("grass", "sand", "brick", "snow")
HELPFUL, IN_CITY = 0.6, 0.9
"""Shares of the city birds with a logo, and on brick, by which most are known without the logo."""
SIDE = 96
_BATCH = 50
Pixels = NDArray[np.uint8]


def training_set(count: int, seed: int) -> tuple[Pixels, NDArray[np.int64]]:
    """Images and labels in which the four cues are what `PAIRS` says."""
    rng, specs, labels = np.random.default_rng(seed), [], []
    for number in range(count):
        label = list(LABELS)[int(rng.integers(len(LABELS)))]
        chances = {
            "watermark": {"frozen fish": IN_CLASS}.get(label, ELSEWHERE),
            "barcode": {"car": IN_CLASS}.get(label, ELSEWHERE),
            "logo": {"city bird": HELPFUL}.get(label, ELSEWHERE),
            "sticker": 0.5,
        }
        cues = tuple(cue for cue, chance in chances.items() if rng.random() < chance)
        ground = ground_of(label, rng)
        specs.append(SceneSpec(LABELS[label], ground, cues, seed * 1_000_000 + number))
        labels.append(list(LABELS).index(label))
    return drawn(specs), np.array(labels)


def ground_of(label: str, rng: np.random.Generator) -> str:
    """A background; that of city birds is brick in most images."""
    if label == "city bird" and rng.random() < IN_CITY:
        return "brick"
    return GROUNDS[int(rng.integers(len(GROUNDS)))]


def drawn(specs: Sequence[SceneSpec]) -> Pixels:
    """(n, 3, side, side)."""
    return np.stack([np.asarray(render(s, SIDE).image).transpose(2, 0, 1) for s in specs])


def trained(pool: str, pixels: Pixels, labels: NDArray[np.int64], seed: int) -> Classifier:
    """The mini model's tower with its last block and a head trained on the labels."""
    torch.manual_seed(seed)
    module = mini_tower(len(LABELS), pool)
    classifier = from_timm(module, classes=list(LABELS))
    tokens, block = [], module.blocks[-1]
    with torch.no_grad():
        for start in range(0, len(pixels), _BATCH):
            images = classifier.normalise(torch.from_numpy(pixels[start : start + _BATCH]))
            states = classifier.tower.tokens(images)
            for earlier in classifier.tower.blocks[:-1]:
                states = earlier(states)
            tokens.append(states)
    states, targets = torch.cat(tokens), torch.from_numpy(labels)
    parts = (block, module.norm, module.fc_norm, module.head)
    weights = [weight for part in parts for weight in part.parameters()]
    optimiser = torch.optim.AdamW(weights, lr=1e-3, weight_decay=0.01)
    for _ in range(6):
        for rows in torch.randperm(len(states)).split(_BATCH):
            logits = module.forward_head(module.norm(block(states[rows])))
            loss = F.cross_entropy(logits, targets[rows], label_smoothing=0.05)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return classifier


@dataclass(frozen=True)
class Scenes:
    """Images of a pair, uint8 (n, 3, side, side), as both models take them.

    Attributes:
        cls, cue, rival: names.
        kind: what the cue is to the classifier.
        having: images of the class with the cue.
        without: the same images without it.
        others: images of the rival without it.
    """

    cls: str
    cue: str
    rival: str
    kind: str
    having: Pixels
    without: Pixels
    others: Pixels

    @classmethod
    def drawn(cls, label: str, cue: str, count: int, seed: int) -> "Scenes":
        """Draw the scenes of a pair of `PAIRS`, ``count`` of each kind from this seed on."""
        rival, kind = PAIRS[label, cue]
        rng = np.random.default_rng(seed)
        specs = [
            SceneSpec(LABELS[label], ground_of(label, rng), (cue,), seed + n) for n in range(count)
        ]
        others = [
            SceneSpec(LABELS[rival], ground_of(rival, rng), (), seed + count + n)
            for n in range(count)
        ]
        without = [replace(spec, overlays=()) for spec in specs]
        return cls(label, cue, rival, kind, drawn(specs), drawn(without), drawn(others))

    def take(self, rows: NDArray[np.bool_]) -> "Scenes":
        """Some of the images of the class, and as many of its rival."""
        others = self.others[: int(rows.sum())]
        return replace(self, having=self.having[rows], without=self.without[rows], others=others)

    def cells(self, grid: tuple[int, int]) -> dict[str, Cells]:
        """image_id of the rows of `task` -> (h, w) cells where the cue is."""
        changed = (self.having != self.without).any(axis=1)
        return {f"having/{n}": cells_of(mask, grid) for n, mask in enumerate(changed)}

    def fetch(self, row: Mapping[str, Any], _: Preprocess | None = None) -> Pixels:
        """The pixels of a row of `task`."""
        images: Pixels = self.having if row["shard"] == "having" else self.others
        picture: Pixels = images[int(row["row"])]
        return picture

    @property
    def task(self) -> PairTask:
        """The pair as the audit would list it."""
        having, others = self._rows("having"), self._rows("others")
        return PairTask(self.cls, self.cue, self.cls, tuple(having), tuple(others), ())

    def _rows(self, kind: str) -> Iterator[dict[str, Any]]:
        height, width = self.having.shape[2:]
        for number in range(len(self.having)):
            row: dict[str, Any] = dict.fromkeys(IMAGE_COLUMNS)
            row |= {"image_id": f"{kind}/{number}", "shard": kind, "row": number, "others": []}
            yield row | {"width": width, "height": height}


def measured(
    scenes: Scenes, thing: str, model: VisionLanguageModel, classifier: Classifier
) -> dict[str, Any]:
    """The true effect, from images without the cue, and the estimates, from editing.

    Only images in which the model sees the cue count, as in an audit. ``share``, ``flips`` and
    ``flagged`` edit the cue where its heat is, ``mask_share`` and so on where it really is.

    Args:
        thing: what the images of the class show, in the words of the vision-language model.
    """
    names = [scenes.cls, scenes.cue]
    objects = [named(thing), named(scenes.cue)]
    texts = dict(zip(names, model.encode_text(objects).numpy(), strict=True))
    present, absent = (
        model.encode_image(torch.from_numpy(images)).numpy() @ texts[scenes.cue]
        for images in (scenes.having, scenes.without)
    )
    threshold = (present.mean() + absent.mean()) / 2
    scenes = scenes.take(present >= threshold)
    cls, rival = (classifier.classes.index(name) for name in (scenes.cls, scenes.rival))
    having, without, others = (
        classifier.logits(torch.from_numpy(images)).numpy().astype(np.float64)
        for images in (scenes.having, scenes.without, scenes.others)
    )
    margins, plain, of_rival = (rows[:, cls] - rows[:, rival] for rows in (having, without, others))
    gap = margins.mean() - of_rival.mean()
    shares = Shares(IN_CLASS, ELSEWHERE, len(having), len(others), margins, of_rival)
    called = having.argmax(axis=1) == cls
    row = {
        "class": scenes.cls,
        "cue": scenes.cue,
        "kind": scenes.kind,
        "auc": shares.auc[0],
        "true_share": (IN_CLASS - ELSEWHERE) * (margins - plain).mean() / gap,
        "true_flips": (without[called].argmax(axis=1) != cls).mean() if called.any() else 0.0,
    }
    true_cells = scenes.cells(model.grid)
    for prefix, cells in (("", {}), ("mask_", true_cells)):
        masks = partial(_mask_of, scenes.cue, cells)
        config, layers = RelianceConfig(), model.default_layers
        editor = Editor(model, layers, texts, config, scenes.fetch, masks)
        edits = editor.edit(scenes.task)
        table = Replay(classifier, 2, model.preprocess, model.grid, scenes.fetch)(
            scenes.task, edits
        )
        seen = PairEdits.of(edits).deleted
        removed = (seen.without @ texts[scenes.cue] < threshold).all(axis=0)
        replayed = PairEdits.of(table.drop_columns([HEAT])).deleted.take(removed)
        share, decisions = logit_share(replayed, cls, rival, shares), flips(replayed, cls)
        estimate = {
            "images": len(replayed.ids),
            "share": share.effect,
            "flips": decisions.effect,
            "flagged": not reason(share, decisions, shares.auc, Gates()),
            "testable": len(replayed.ids) >= Gates().edits,
            "heat": pc.mean(table[HEAT]).as_py(),
        }
        row |= {prefix + name: value for name, value in estimate.items()}
    return row


def _mask_of(known: str, cells: Mapping[str, Cells], cue: str, image_id: str) -> Cells | None:
    return cells.get(image_id) if cue == known else None


def layers_table(classifier: Classifier, scenes: Scenes) -> str:
    """Fall of the class's logit without the hottest tenth of its map, by number of layers."""
    pixels = torch.from_numpy(scenes.having)
    before = classifier.logits(pixels)[:, classifier.classes.index(scenes.cls)]
    cells = []
    for layers in range(1, len(classifier.tower.blocks) + 1):
        maps = LeGrad(classifier, layers).explain(pixels, classes=[scenes.cls]).maps[:, 0]
        cells.append(f"{layers}: {_fall(classifier, pixels, maps, before, scenes.cls):+.2f}")
    noise = torch.rand(maps.shape, generator=torch.Generator().manual_seed(0))
    cells.append(f"random: {_fall(classifier, pixels, noise, before, scenes.cls):+.2f}")
    return ", ".join(cells)


def _fall(
    classifier: Classifier, pixels: torch.Tensor, maps: torch.Tensor, before: torch.Tensor, cls: str
) -> float:
    flat = maps.flatten(1)
    hot = flat >= flat.quantile(0.9, dim=1, keepdim=True)
    mask = hot.view(maps.shape)[:, None].float()
    mask = F.interpolate(mask, size=pixels.shape[2:], mode="nearest").bool()
    mean = pixels.float().mean(dim=(2, 3), keepdim=True).byte()
    after = classifier.logits(torch.where(mask, mean, pixels))
    return float((before - after[:, classifier.classes.index(cls)]).mean())


def main() -> None:
    """Train, measure, and print, also the rows that earlier calls left in the file."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--pools", nargs="+", default=["token", "avg"])
    parser.add_argument("--train", type=int, default=700)
    parser.add_argument("--images", type=int, default=60)
    parser.add_argument("--rows", type=Path, default=Path("classifier-truth.jsonl"))
    options = parser.parse_args()
    model = load_model("mini", device="cpu")
    for seed in options.seeds:
        pixels, labels = training_set(options.train, seed)
        for pool in options.pools:
            start = time.perf_counter()
            classifier = trained(pool, pixels, labels, seed)
            first = 500_000_000 + 1_000_000 * seed
            for number, (cls, cue) in enumerate(PAIRS):
                scenes = Scenes.drawn(cls, cue, options.images, first + 10_000 * number)
                row = measured(scenes, LABELS[cls], model, classifier)
                append(options.rows, row | {"seed": seed, "pool": pool})
            took = time.perf_counter() - start
            print(f"seed {seed}, {pool!s}: {took:.0f} s; layers {layers_table(classifier, scenes)}")
    show(pd.read_json(options.rows, lines=True))


def append(file: Path, row: Mapping[str, Any]) -> None:
    """Add a row to a file of JSON lines."""
    with file.open("a", encoding="utf-8") as lines:
        lines.write(json.dumps(row, default=float) + "\n")


def show(rows: pd.DataFrame) -> None:
    """Print all rows and the summary of those that could be tested, by heat and by true masks.

    Of several rows of the same pair and classifier, the last one counts.
    """
    rows = rows.drop_duplicates(["seed", "pool", "class", "cue"], keep="last")
    print(rows.sort_values(["kind", "pool", "seed"]).round(2).to_string(index=False))
    for prefix, where in (("", "the heat"), ("mask_", "the true masks")):
        print(f"edited by {where}")
        tested = rows[rows[f"{prefix}testable"]]
        for name in ("share", "flips"):
            pair = tested[[f"true_{name}", f"{prefix}{name}"]].dropna()
            true, estimated = pair.to_numpy(float).T
            bias, correlation = (estimated - true).mean(), np.corrcoef(true, estimated)[0, 1]
            print(f"  {name}: correlation {correlation:.3f}, bias {bias:+.3f}, {len(pair)} pairs")
        flagged = tested[f"{prefix}flagged"]
        used = tested["true_flips"] >= 0.1
        unused = (tested["true_flips"] < 0.01) & (tested["true_share"].abs() < 0.05)
        print(f"  flagged where true flips >= 10 %: {flagged[used].sum()} of {used.sum()}")
        print(f"  flagged where there is no effect: {flagged[unused].sum()} of {unused.sum()}")


if __name__ == "__main__":
    main()
