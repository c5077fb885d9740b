"""Are the claims right where the truth is known? ``python -m benchmarks.truth``.

Draws data sets with cues planted at a known strength. In some of them the classes differ without
the cue, in others only the cue distinguishes two labels. Prints the power and the false flags of
every claim, with intervals over cues and data sets, and the results of simpler scores.
"""

import argparse
import itertools
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from benchmarks.seeds import model_of
from benchmarks.truth_baselines import b2t, overlap, photometric
from benchmarks.truth_pool import (
    CUES,
    DECOYS,
    HOSTED,
    Pool,
    Size,
    build,
    contents,
    draw,
    specs_of,
    text_directions,
)
from benchmarks.truth_sets import PLANTS, STRENGTHS, Cell, World, draw_world, edited_pair
from pipeline.audit.findings import Findings, find
from pipeline.audit.inference import share_interval
from pipeline.config.audit_settings import AuditConfig
from pipeline.machine import cores
from pipeline.reliance.claims import Claims, TextDirections
from pipeline.reliance.probe import GROUPS, collect, cross_fitted, fit, probe_quality

SIZES = {400: 3, 2000: 1}
"""Images of a data set -> data sets of each setting and pool."""
_SETTINGS = AuditConfig()


def audited(
    pool: Pool, world: World, directions: TextDirections, about: dict[str, Any]
) -> list[dict[str, Any]]:
    """One row per (class, cue): every claim, every baseline, and the truth."""
    by_label = _by_label(world.cell, directions)
    findings = find(world, CUES, DECOYS, _SETTINGS)
    presence, population = findings.presence, findings.population
    measured = list(np.array([*CUES, *DECOYS])[presence.measured])
    sums = collect(world, population, presence, measured)
    probes = cross_fitted(sums, np.ones(GROUPS), _SETTINGS.reliance.ridge)
    rivals = fit(sums, np.ones(GROUPS), _SETTINGS.reliance.ridge).rivals(sums.shared, 20)
    quality = probe_quality(world, population, probes, rivals)
    pairs = _edited(pool, world, findings, rivals)
    claims = Claims(findings, sums, quality, by_label, _SETTINGS).frame(pairs)
    control = Claims(findings, sums, quality, _with_cue(by_label, pairs), _SETTINGS)
    proof = pd.DataFrame(
        [(p.cls, p.cue, control.clip(p)["clip_reliance__flag"]) for p in pairs],
        columns=["class", "cue", "proof"],
    )
    frame = findings.frame.merge(claims, on=["class", "cue"], how="left", suffixes=("_none", ""))
    frame = frame.merge(proof, on=["class", "cue"], how="left")
    for scores in (overlap(pool, world), b2t(pool, world, probes, population.classes)):
        frame = frame.merge(scores, on=["class", "cue"], how="left")
    planted = set(world.cell.planted.items())
    photometry_flagged = photometric(pool, world)
    columns = ["class", "cue", "decoy", "score_auc", "overlap", "b2t", "association__flag"]
    columns += ["association__low", "clip_reliance__flag", "clip_reliance__effect", "proof"]
    columns += ["probe_reliance__flag", "probe_reliance__effect", "probe_reliance__low"]
    columns += ["probe_reliance__reason", "clip_reliance__reason", "clip_reliance__control"]
    cell = world.cell
    return [
        {str(name): value for name, value in row.items()}
        | {
            "planted": (row["class"], row["cue"]) in planted,
            "strength": cell.strength,
            "fixed": cell.fixed,
            "only_cue": cell.only_cue,
            "images": cell.images,
            "photometric": photometry_flagged,
            "repeated": world.repeated,
        }
        | about
        for row in frame[columns].to_dict(orient="records")
    ]


def _by_label(cell: Cell, directions: TextDirections) -> TextDirections:
    """Directions by label; a label and its twin have the same text."""
    labels = cell.labels
    return TextDirections(
        directions.cues,
        {label: directions.classes[name] for label, name in labels.items()},
        {
            (label, cue): directions.controls[name, cue]
            for label, name in labels.items()
            for cue in CUES
        },
    )


def _edited(pool: Pool, world: World, findings: Findings, rivals: Any) -> list[Any]:
    """Edits of the pairs that are flagged for association."""
    population, pairs = findings.population, []
    for row in findings.frame[findings.frame["association__flag"]].to_dict(orient="records"):
        rival = population.classes[int(rivals[population.index[row["class"]]])]
        pair = edited_pair(pool, world, str(row["class"]), str(row["cue"]), rival)
        pairs += [] if pair is None else [pair]
    return pairs


def _with_cue(directions: TextDirections, pairs: list[Any]) -> TextDirections:
    """The positive control of claim B: the texts of the classes name the cue as well."""
    changed = dict(directions.classes)
    for pair in pairs:
        text = directions.classes[pair.cls] + directions.controls[pair.cls, pair.cue]
        changed[pair.cls] = text / np.linalg.norm(text)
    return replace(directions, classes=changed)


def shares(rows: pd.DataFrame, column: str) -> str:
    """``0.95 (0.90-0.98) of 60``: a share, its interval over cues and data sets, and the count."""
    values = rows[column].fillna(False).astype(bool)
    if not len(values):
        return "-"
    low, high = map(float, share_interval(values.sum(), len(values)))
    return f"{values.mean():.2f} ({max(low, 0):.2f}-{high:.2f}) of {len(values)}"


def power_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Planted pairs: share flagged, by claim."""
    planted = rows[rows["planted"]]
    keys = ["only_cue", "images", "strength"]
    return pd.DataFrame(
        [
            dict(zip(keys, key, strict=True))
            | {
                "association": shares(group, "association__flag"),
                "clip reliance": shares(group, "clip_reliance__flag"),
                "control: text with cue": shares(group, "proof"),
                "probe reliance": shares(group, "probe_reliance__flag"),
                "probe reliance where testable": shares(
                    group[group["probe_reliance__effect"].notna()], "probe_reliance__flag"
                ),
            }
            for key, group in planted.groupby(keys)
        ]
    )


def by_cue_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Planted pairs of strength 0.5 or more, by cue: share flagged, and the probe's phi."""
    planted = rows[rows["planted"] & (rows["strength"] >= 0.5)]
    return pd.DataFrame(
        [
            {
                "only_cue": only,
                "cue": cue,
                "association": shares(group, "association__flag"),
                "probe reliance": shares(group, "probe_reliance__flag"),
                "phi": f"{group['probe_reliance__effect'].median():.2f}",
                "testable": f"{group['probe_reliance__effect'].notna().mean():.2f}",
            }
            for (only, cue), group in planted.groupby(["only_cue", "cue"])
        ]
    )


def false_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Share flagged by each claim among pairs without a planted cue, and among decoys."""
    null = rows[~rows["planted"] | (rows["strength"] <= 0.05)]
    twins = rows["only_cue"] & rows["class"].str.endswith("twin")
    groups = {
        "unplanted pairs": null[~null["decoy"]],
        "decoys": rows[rows["decoy"]],
        "twins of a planted class": rows[twins & ~rows["decoy"]],
        "planted, but not needed": rows[rows["planted"] & ~rows["only_cue"]],
    }
    claims = ("association", "clip_reliance", "probe_reliance")
    return pd.DataFrame(
        [
            {"pairs": name} | {claim: shares(group, f"{claim}__flag") for claim in claims}
            for name, group in groups.items()
        ]
    )


def first_table(rows: pd.DataFrame) -> pd.DataFrame:
    """How often the planted cue ranks first in its class, by each score, from strength 0.5."""
    real = rows[~rows["decoy"] & (rows["strength"] >= 0.5)]
    scores = {
        "association (lower bound)": "association__low",
        "score AUC": "score_auc",
        "overlap only": "overlap",
        "B2T": "b2t",
    }
    keys = ["pool", "fixed", "only_cue", "images", "strength", "draw", "class"]
    table = []
    for only, group in real.groupby("only_cue"):
        row = {"only_cue": only}
        for name, column in scores.items():
            ranked = group.assign(value=group[column].fillna(-np.inf))
            top = ranked.loc[ranked.groupby(keys)["value"].idxmax()]
            having = ranked[ranked["planted"]][[*keys, "cue"]].merge(top, on=keys)
            row[name] = shares(having.assign(hit=having["cue_x"] == having["cue_y"]), "hit")
        sets = group.drop_duplicates(keys[:-1])
        row["photometric: set flagged"] = shares(sets, "photometric")
        table.append(row)
    return pd.DataFrame(table)


def main() -> None:
    """Draw the pools, audit every data set, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pools", type=int, nargs="+", default=[1, 2], help="seeds")
    parser.add_argument("--weights", help="weights.safetensors of another mini model")
    parser.add_argument("--share", type=float, default=1.0, help="of the pool: a quick look")
    parser.add_argument("--sizes", type=int, nargs="+", choices=list(SIZES), default=list(SIZES))
    parser.add_argument("--out", type=Path, help="table of all rows, Parquet")
    args = parser.parse_args()
    torch.set_num_threads(cores())
    model, start = model_of(args.weights), time.monotonic()
    directions, rows = text_directions(model), []
    size = Size(*(max(2, round(n * args.share)) for n in vars(Size()).values()))
    for seed, fixed in itertools.product(args.pools, (False, True)):
        specs = specs_of(contents(size), seed * 10 + fixed, fixed=fixed)
        pool = build(model, draw(specs, model.preprocess), specs, size)
        print(f"pool {seed} fixed={fixed}: {len(specs)} images, {_minutes(start)}", flush=True)
        grid = itertools.product(STRENGTHS, (False, True), args.sizes, PLANTS)
        for strength, only_cue, images, plants in grid:
            cell = Cell(strength, fixed, only_cue, images, plants)
            for number in range(SIZES[images]):
                world = draw_world(pool, cell, directions, seed * 100 + number)
                about = {"pool": seed, "draw": f"{plants[0]} {number}"}
                rows += audited(pool, world, directions, about)
        print(f"audited, {_minutes(start)}", flush=True)
    frame = pd.DataFrame(rows)
    if args.out:
        frame.to_parquet(args.out)
    pd.set_option("display.width", 220, "display.max_columns", 30)
    for title, table in (
        ("Planted pairs flagged (gates " + _gates() + ")", power_table(frame)),
        ("By cue, strength >= .5", by_cue_table(frame)),
        ("Flagged though nothing is planted", false_table(frame)),
        ("The planted cue is the class's first, strength >= .5", first_table(frame)),
    ):
        print(f"\n{title}\n{table.to_string(index=False)}")
    print(f"\n{len(frame)} pairs, {_minutes(start)} on {cores()} cores; hosts {HOSTED}")


def _gates() -> str:
    gates = _SETTINGS.gates
    return (
        f"odds ratio {gates.odds_ratio}, AUC {gates.probe_auc}, share {gates.probe_share}, "
        f"CLIP {gates.clip_effect} sd, {gates.edits} edits"
    )


def _minutes(start: float) -> str:
    return f"{(time.monotonic() - start) / 60:.1f} minutes"


if __name__ == "__main__":
    main()
