"""The audit on photographs, by a model that is unsure: ``python -m benchmarks.photographs``.

    python -m benchmarks.photographs --images FOLDER --cache ~/.cache/legrad-photographs

Trains a small CLIP on four fifths of the photographs, with overlays pasted in, until all overlays
but one have a presence AUC of .8 (`photographs_model`). Then, for every seed, plants five
overlays in held-out photographs, each in one class at a known share and in .05 of all others,
leaves one overlay at .05 everywhere and two out, and runs the pipeline and the audit over them:
without labels, and with labels that are answered from the truth. Last, it runs the same photographs
with queries for the classes alone, and prints what a discovery finds beside what is planted. The
model is kept in the cache; training it takes at most an hour, a seed some minutes.
"""

import argparse
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from PIL import Image
from skimage import data

from benchmarks.photographs_audits import (
    Case,
    discovered,
    heat,
    presence,
    with_labels,
    without_labels,
)
from benchmarks.photographs_model import (
    ARCHITECTURE,
    PATCH,
    VISION,
    WEIGHTS,
    Trainer,
    patch_of,
    ready,
)
from benchmarks.photographs_sets import Mask, Planting, data_file, run, write_set, write_settings
from benchmarks.photographs_suspicions import Embedder, suspicions
from benchmarks.photographs_world import Photographs, read_photographs, split
from legrad.mini.world.overlays import Frame, place_overlay
from pipeline.audit.suspicion_scan import FIRST
from pipeline.config import ModelConfig
from pipeline.single_images import Question, explain_images
from training.captions import named

CHECKED = 1500
"""Held-out photographs that training is followed by; no data set has them."""
INKED = 150
"""Photographs with a cue whose maps are compared with its ink."""
SHOWN: dict[str, Callable[[], NDArray[np.uint8]]] = {
    "sticker": data.chelsea,
    "ruler": data.coffee,
    "logo": data.rocket,
}
"""Cue -> the photograph in the picture that has it; all are CC0 or in the public domain."""
SHOWN_SIDE = 256
SEES = 0.8
"""Presence AUC within the class from which a candidate without a word counts as the cue."""


def main() -> None:
    """Train if there is no model, run the seeds, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=Path, required=True, help="class folders, or Parquet")
    parser.add_argument("--cache", type=Path, required=True, help="folder for model and runs")
    parser.add_argument("--minutes", type=float, default=60, help="longest training")
    parser.add_argument("--patch", type=int, default=PATCH, help="side of the model's patches")
    parser.add_argument("--count", type=int, default=4000, help="photographs of a data set")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--labels", type=int, nargs="+", default=[50, 100], help="of each group")
    parser.add_argument("--turns", type=int, default=2, help="times that labels are drawn anew")
    parser.add_argument("--plantings", type=int, default=20, help="for suspicions alone")
    parser.add_argument("--picture", type=Path, help="draw photographs, cues and their heat")
    args = parser.parse_args()
    torch.set_num_threads(1)
    training, held_out = split(read_photographs(args.images))
    checked = held_out.take(np.arange(CHECKED))
    left = held_out.take(np.arange(CHECKED, len(held_out.labels)))
    model = args.cache / "model"
    if ready(model) and (patch := patch_of(model)) != args.patch:
        parser.error(f"--patch {args.patch}, but {model} has {patch}: give another --cache")
    if not ready(model):
        vision = VISION | {"patch_size": args.patch}
        Trainer(training, checked, vision=vision).run(args.minutes, model)
    tables: dict[str, list[pd.DataFrame]] = defaultdict(list)
    embedder = Embedder(model)
    for seed in range(args.plantings):
        planting, photographs = _drawn(seed, left, args.count)
        tables["suspicions"].append(suspicions(embedder, planting, photographs))
    for seed in args.seeds:
        began = time.perf_counter()
        planting, photographs = _drawn(seed, left, args.count)
        case = _case(planting, photographs, model, args.cache)
        ink = _ink(case, photographs)
        tables["presence"].append(presence(case).merge(heat(case, ink), on=["seed", "cue"]))
        tables["suspected"].append(without_labels(case))
        tables["discovered"].append(discovered(planting, photographs, model, args.cache))
        for labels in args.labels:
            for turn in range(args.turns):
                folder = args.cache / f"labels-{args.count}-{seed}-{labels}-{turn}"
                tables["labelled"].append(with_labels(case, labels, turn, folder))
        print(f"seed {seed}: {time.perf_counter() - began:.0f} s", flush=True)
    if args.picture:
        draw(model, args.picture)
    frames = {name: pd.concat(parts, ignore_index=True) for name, parts in tables.items()}
    for name, frame in frames.items():
        frame.to_parquet(args.cache / f"{name}.parquet")
    report_suspicions(frames.pop("suspicions"))
    report_discoveries(frames.pop("discovered"))
    report(**frames)


def _drawn(seed: int, left: Photographs, count: int) -> tuple[Planting, Photographs]:
    """What is planted with this seed, and photographs for it."""
    rows = np.random.default_rng([seed, 4]).permutation(len(left.labels))[:count]
    return Planting.drawn(seed, left.classes), left.take(rows)


def _case(planting: Planting, photographs: Photographs, model: Path, cache: Path) -> Case:
    count = len(photographs.labels)
    file, out = data_file(cache, planting.seed, count), cache / f"run-{count}-{planting.seed}"
    if not file.exists():
        write_set(planting, photographs, file)
    roles = {"class": photographs.classes, "cue": planting.cues, "decoy": planting.decoys}
    run(write_settings(roles, model, file, out))
    return Case.read(planting, out)


def _ink(case: Case, photographs: Photographs) -> dict[str, dict[str, Mask]]:
    """Cue -> image_id -> where it is, in some photographs that have it."""
    masks: dict[str, dict[str, Mask]] = defaultdict(dict)
    for image_id, row in case.shown["key"].astype(int).items():
        cls = photographs.classes[photographs.labels[row]]
        wanted = [c for c in case.planting.has(row, cls) if len(masks[c]) < INKED]
        if wanted:
            ink = case.planting.image(row, photographs.pixels[row], cls)[1]
            for cue in wanted:
                masks[cue][str(image_id)] = ink[cue]
    return masks


def report_suspicions(suspected: pd.DataFrame) -> None:
    """Print how often the planted cue is among the first of its class, by cue."""
    planted = suspected[suspected["planted"].notna()]
    counted = planted.assign(
        first=planted["rank"] == 1,
        three=planted["rank"] <= FIRST,
        three_of_words=planted["above"] < FIRST,
    )
    by_cue = counted.groupby("cue")[["effect", "first", "three", "three_of_words"]].mean()
    print(f"\nSuspicions in {suspected['seed'].nunique()} plantings\n{by_cue.round(2)}")
    others = suspected[suspected["planted"].isna()]["effect"]
    print(f"effect of pairs that are not planted: {others.describe().round(1).to_dict()}")


def report_discoveries(rows: pd.DataFrame) -> None:
    """Print the first candidates of each class with a planted cue, and counts of the others."""
    hosts = rows[(rows["planted"] != "") & (rows["rank"] <= FIRST)].sort_values(["seed", "class"])
    shown = [
        "seed",
        "class",
        "planted",
        "rank",
        "kind",
        "word",
        "also",
        "auc",
        "heat_on_class",
        "confirmed",
    ]
    print("\nDiscoveries by class queries alone: first candidates of classes with a cue")
    print(hosts[shown].round(2).to_string(index=False, max_colwidth=40))
    first, seen = hosts["named"] & (hosts["rank"] == 1), hosts["named"] | (hosts["auc"] >= SEES)
    found = hosts.assign(first=first, seen=seen, plantings=1)
    found = found.groupby(["seed", "planted"])[["first", "named", "seen", "plantings"]].max()
    print(found.groupby("planted").sum())
    others = rows[rows["planted"] == ""]
    print(f"confirmed in other classes: {others['confirmed'].sum()} of {len(others)} candidates")


def report(presence: pd.DataFrame, suspected: pd.DataFrame, labelled: pd.DataFrame) -> None:
    """Print what the rows come to."""
    pd.set_option("display.width", 160)
    print("\nPresence and heat of each cue, mean over the seeds")
    print(presence.drop(columns="seed").groupby("cue").mean().round(2).to_string())
    print("\nWithout labels: share flagged, worth a look, first, among the first three")
    suspected["first"] = suspected["suspicion__rank"] == 1
    suspected["first three"] = suspected["suspicion__rank"].between(1, FIRST)
    columns = ["association__flag", "worth", "first", "first three"]
    print(_by_kind(suspected, columns).to_string())
    planted = suspected["planted"].notna()
    for title, part in (("planted", suspected[planted]), ("other", suspected[~planted])):
        counts = part[~part["decoy"]]["suspicion__effect"].describe(percentiles=[0.1, 0.5, 0.9])
        print(f"effect of {title} pairs: {counts.round(1).to_dict()}")
    print("\nWith labels: share flagged, share of intervals that hold the true difference")
    difference = labelled["true_share"] - labelled["true_elsewhere"]
    labelled["covered"] = difference.between(
        labelled["association__difference_low"], labelled["association__difference_high"]
    )
    for labels, part in labelled.groupby("labels"):
        print(f"{labels} labels\n{_by_kind(part, ['association__flag', 'covered']).to_string()}")


def _by_kind(table: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    """Means by the planted share, of other pairs and of decoys."""
    kind = table["planted"].map("planted {}".format).where(table["planted"].notna(), "not planted")
    kind = kind.mask(table["decoy"], "decoy")
    means = table.groupby(kind)[columns].mean().round(3)
    return means.assign(pairs=table.groupby(kind).size())


def draw(model: Path, picture: Path) -> None:
    """Free photographs, each with a cue pasted in, and where the texts of all cues look."""
    config = ModelConfig(name=str(model / ARCHITECTURE), pretrained=str(model / WEIGHTS))
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for cue, photograph in SHOWN.items():
            size = (SHOWN_SIDE, SHOWN_SIDE)
            image = Image.fromarray(photograph()).resize(size, Image.Resampling.BICUBIC)
            layer = place_overlay(cue, Frame(SHOWN_SIDE, (True, True), bright=False), rng)
            image.paste(layer, (0, 0), layer)
            files.append(f"{folder}/{photograph.__name__}.png")
            image.save(files[-1])
        question = Question(tuple(named(cue) for cue in SHOWN))
        explain_images(config, files, question).figure().save(picture)


if __name__ == "__main__":
    main()
