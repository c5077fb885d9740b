"""The audit on photographs, by a model that is unsure: ``python -m benchmarks.photographs``.

    python -m benchmarks.photographs --images FOLDER --cache ~/.cache/legrad-photographs

Trains a small CLIP on four fifths of the photographs, with overlays pasted in, until all overlays
but one have a presence AUC of .8 (`photographs_model`). Then, for every seed, plants five
overlays in held-out photographs, each in one class at a known share and in .05 of all others,
leaves one overlay at .05 everywhere and two out, and runs the pipeline and the audit over them:
without labels, and with labels that are answered from the truth. The model is kept in the cache;
training it takes at most an hour, a seed some minutes.
"""

import argparse
import time
from collections import defaultdict
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch

from benchmarks.photographs_audits import Case, heat, presence, with_labels, without_labels
from benchmarks.photographs_model import Trainer, ready
from benchmarks.photographs_sets import Mask, Planting, run, write_set, write_settings
from benchmarks.photographs_suspicions import Embedder, suspicions
from benchmarks.photographs_world import Photographs, read_photographs, split
from pipeline import Audit
from pipeline.audit.suspicion_scan import FIRST

CHECKED = 1500
"""Held-out photographs that training is followed by; no data set has them."""
INKED = 150
"""Photographs with a cue whose maps are compared with its ink."""
SHOWN = 3
"""Photographs of each class in the picture."""


def main() -> None:
    """Train if there is no model, run the seeds, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=Path, required=True, help="class folders, or Parquet")
    parser.add_argument("--cache", type=Path, required=True, help="folder for model and runs")
    parser.add_argument("--minutes", type=float, default=60, help="longest training")
    parser.add_argument("--count", type=int, default=4000, help="photographs of a data set")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--labels", type=int, nargs="+", default=[50, 100], help="of each group")
    parser.add_argument("--turns", type=int, default=2, help="times that labels are drawn anew")
    parser.add_argument("--plantings", type=int, default=20, help="for suspicions alone")
    parser.add_argument("--picture", type=Path, help="draw photographs, a cue and its heat here")
    args = parser.parse_args()
    torch.set_num_threads(1)
    training, held_out = split(read_photographs(args.images))
    checked = held_out.take(np.arange(CHECKED))
    left = held_out.take(np.arange(CHECKED, len(held_out.labels)))
    model = args.cache / "model"
    if not ready(model):
        Trainer(training, checked).run(args.minutes, model)
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
        for labels in args.labels:
            for turn in range(args.turns):
                folder = args.cache / f"labels-{seed}-{labels}-{turn}"
                tables["labelled"].append(with_labels(case, labels, turn, folder))
        if args.picture and seed == args.seeds[0]:
            draw(case, args.picture)
        print(f"seed {seed}: {time.perf_counter() - began:.0f} s", flush=True)
    frames = {name: pd.concat(parts, ignore_index=True) for name, parts in tables.items()}
    for name, frame in frames.items():
        frame.to_parquet(args.cache / f"{name}.parquet")
    report_suspicions(frames.pop("suspicions"))
    report(**frames)


def _drawn(seed: int, left: Photographs, count: int) -> tuple[Planting, Photographs]:
    """What is planted with this seed, and photographs for it."""
    rows = np.random.default_rng([seed, 4]).permutation(len(left.labels))[:count]
    return Planting.drawn(seed, left.classes), left.take(rows)


def _case(planting: Planting, photographs: Photographs, model: Path, cache: Path) -> Case:
    data = cache / f"data-{planting.seed}" / "photographs.parquet"
    out = cache / f"run-{planting.seed}"
    if not data.exists():
        write_set(planting, photographs, data)
    run(write_settings(planting, photographs.classes, model, data, out))
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
    by_cue = planted.assign(first=planted["rank"] == 1, three=planted["rank"] <= FIRST)
    by_cue = by_cue.groupby("cue").agg({"effect": "median", "first": "mean", "three": "mean"})
    print(f"\nSuspicions in {suspected['seed'].nunique()} plantings\n{by_cue.round(2)}")
    others = suspected[suspected["planted"].isna()]["effect"]
    print(f"effect of pairs that are not planted: {others.describe().round(1).to_dict()}")


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


def draw(case: Case, picture: Path) -> None:
    """Photographs of the first two classes with a cue, and where the cue's text looks."""
    results = Audit.from_results(case.out).results
    pairs = list(case.planting.planted.items())[:2]
    figure, axes = plt.subplots(2, SHOWN * len(pairs), figsize=(2 * SHOWN * len(pairs), 4.4))
    for number, (cue, (host, share)) in enumerate(pairs):
        has = (case.shown["label"] == host) & case.shown[f"has_{cue}"]
        for place, image_id in enumerate(case.shown.index[has][:SHOWN]):
            column = axes[:, number * SHOWN + place]
            column[0].imshow(results.image(image_id))
            column[1].imshow(results.overlay(image_id, cue))
        axes[0, number * SHOWN].set_title(f"{host}: {cue} in {share:.0%}", loc="left", fontsize=11)
        axes[1, number * SHOWN].set_title(f'heat of "{cue}"', loc="left", fontsize=11)
    for axis in axes.ravel():
        axis.set_axis_off()
    figure.tight_layout()
    figure.savefig(picture, dpi=80)


if __name__ == "__main__":
    main()
