"""Does the association claim hold on unseen worlds? ``python -m benchmarks.seeds``.

Draws the demo's data set with other seeds, scores it with the mini model in this process, and
audits the scores with the default gates. All planted pairs should be flagged, and no others.
"""

import argparse
import io
import json
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import torch
from numpy.typing import NDArray
from PIL import Image

from legrad import mini
from legrad.mini import loader
from legrad.mini.loader import unpack
from legrad.mini.world import render
from legrad.models.load import from_open_clip, load_model
from legrad.models.vision_language import VisionLanguageModel
from legrad.preprocess import Preprocess
from legrad.queries.query import Role, encode_queries
from pipeline.audit.findings import Findings, find
from pipeline.config.audit_settings import AuditConfig
from pipeline.config.loading import load_config, packaged_config
from pipeline.demo import dataset as demo
from pipeline.schema import score_column

_BATCH = 100


class World:
    """A drawn data set as the audit reads it, a table of scores."""

    def __init__(self, table: pa.Table) -> None:
        self.dataset = ds.dataset(table)


def scored(model: VisionLanguageModel, seed: int, images: int) -> World:
    """Draw and score one data set with the demo's queries."""
    queries = load_config(packaged_config("demo.yaml")).queries
    directions = encode_queries(model, queries)
    rows, scores = [], []
    for labels, pixels in drawn(model.preprocess, seed, images):
        rows += labels
        features = model.encode_image(torch.from_numpy(pixels))
        scores.append((features @ directions.T).numpy())
    table = {
        "image_id": [f"demo/{seed}/{i}" for i in range(images)],
        "label": rows,
        "status": ["ok"] * images,
    }
    columns = np.concatenate(scores).T
    table |= {score_column(q.name): c for q, c in zip(queries, columns, strict=True)}
    return World(pa.table(table))


def drawn(
    preprocess: Preprocess, seed: int, images: int
) -> Iterator[tuple[list[str], NDArray[np.uint8]]]:
    """Labels and pixels of the demo's data set with a seed, in batches."""
    starts = range(0, images, _BATCH)
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        jobs = [
            pool.submit(_draw, preprocess, seed, range(i, min(i + _BATCH, images))) for i in starts
        ]
        for job in jobs:
            yield job.result()


def _draw(preprocess: Preprocess, seed: int, indices: range) -> tuple[list[str], NDArray[np.uint8]]:
    labels, pixels = [], []
    for index in indices:
        drawn = demo.example(seed, index)
        buffer = io.BytesIO()
        render(drawn.spec, demo.SIDE).image.save(buffer, "JPEG", quality=90)
        labels.append(drawn.label)
        pixels.append(np.asarray(preprocess(Image.open(buffer).convert("RGB"))))
    return labels, np.stack(pixels)


def model_of(weights: str | None) -> VisionLanguageModel:
    """The embedded model, or other weights of its architecture."""
    if weights is None:
        return load_model("mini")
    config = json.loads((mini.FOLDER / mini.CONFIG).read_text())
    module, _ = unpack(config, Path(weights))
    return from_open_clip(module, tokenizer=loader.load().tokenizer, name="mini")


def audited(world: World) -> Findings:
    """The audit of a drawn data set with the default gates."""
    queries = load_config(packaged_config("demo.yaml")).queries
    cues = [q.name for q in queries if q.role is Role.CUE]
    decoys = [q.name for q in queries if q.role is Role.DECOY]
    return find(world, cues, decoys, AuditConfig())


def verdict(findings: Findings) -> dict[str, object]:
    """Counts of flagged and of planted pairs."""
    frame = findings.frame
    planted = {(p.label, p.cue.replace(" ", "_")) for p in demo.PLANTED}
    real = frame[~frame["decoy"]]
    flagged = {
        (row["class"], row["cue"])
        for row in real[real["association__flag"]].to_dict(orient="records")
    }
    lows = real.set_index(["class", "cue"])["association__low"]
    return {
        "planted": len(planted),
        "found": len(planted & flagged),
        "false": len(flagged - planted),
        "of real": len(real) - len(planted),
        "decoys": int(frame.loc[frame["decoy"], "association__flag"].sum()),
        "of": int(frame["decoy"].sum()),
        "weakest low": round(min(low for pair, low in lows.items() if pair in planted), 2),
        "missed": ", ".join(f"{a}-{b}" for a, b in sorted(planted - flagged)),
        "wrong": ", ".join(f"{a}-{b}" for a, b in sorted(flagged - planted)),
    }


def main() -> None:
    """Score and audit the data set of each seed, and print one row per seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[101, 102, 103, 104, 105])
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--weights", help="weights.safetensors of another mini model")
    parser.add_argument("--keep", type=Path, help="folder to keep the tables of scores in")
    args = parser.parse_args()
    model = model_of(args.weights)
    rows = []
    for seed in args.seeds:
        world = scored(model, seed, args.images)
        if args.keep:
            args.keep.mkdir(parents=True, exist_ok=True)
            ds.write_dataset(world.dataset, args.keep / str(seed), format="parquet")
        rows.append({"seed": seed} | verdict(audited(world)))
        print(pd.DataFrame(rows[-1:]).to_string(index=False), flush=True)
    print(pd.DataFrame(rows).to_string(index=False))


if __name__ == "__main__":
    main()
