"""What a discovery costs, and what it finds.

    python -m benchmarks.discover --images 100000
    python -m benchmarks.discover --seeds 101 102 103 104 105 [--weights FILE] [--no-cues]

Without seeds, it makes embeddings of noise with planted directions, which are to be found among as
many random words as the shipped vocabulary has. The time to encode the words, which a run needs
once, is not included.

With seeds, it draws the demo's data set with other seeds and embeds it with the mini model. It
prints which planted cues that no query names are among the first three candidates of their class,
what else was confirmed, and how many decoys. ``--no-cues`` leaves out the demo's queries for cues,
so that no planted cue is named.
"""

import argparse
import resource
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import torch
from sklearn.metrics import roc_auc_score

from benchmarks.seeds import drawn, model_of
from legrad.mini.world import UNSEEN
from legrad.models.vision_language import VisionLanguageModel
from legrad.queries.query import Query, Role, encode_queries
from pipeline.audit.directions import Directions
from pipeline.audit.inference import Array
from pipeline.audit.scores import count_population
from pipeline.audit.vocabulary import distinct_rows
from pipeline.config.audit_settings import AuditConfig
from pipeline.config.loading import load_config, packaged_config
from pipeline.demo import dataset as demo
from pipeline.discovery import Discovery, words
from pipeline.discovery.search import find_words

WIDTH, ROWS = 512, 50_000
DISTANCE, SHARE, ELSEWHERE = 9.0, 0.5, 0.05
FIRST, SEES = 3, 0.9
"""Places of a class that count, and the AUC from which a direction sees a thing."""
_TEXTS = 256


def write_images(folder: Path, images: int, classes: int, words: Array) -> None:
    """Write embeddings; word c comes with class c, for the first half of the classes."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(classes, WIDTH))
    for start in range(0, images, ROWS):
        count = min(ROWS, images - start)
        codes = rng.integers(classes, size=count)
        vectors = rng.normal(size=(count, WIDTH)) + 0.3 * centres[codes]
        for word in range(classes // 2):
            present = rng.random(count) < np.where(codes == word, SHARE, ELSEWHERE / classes)
            vectors[present] += DISTANCE * words[word]
        flat = pa.array((vectors / 30).astype(np.float16).ravel())
        table = pa.table(
            {
                "image_id": [f"noise/{number:09d}" for number in range(start, start + count)],
                "label": [f"class {code}" for code in codes],
                "status": ["ok"] * count,
                "embedding": pa.FixedSizeListArray.from_arrays(flat, WIDTH),
            }
        )
        pq.write_table(table, folder / f"{start:09d}.parquet")


def measure_costs(images: int, classes: int, count: int) -> None:
    """Find planted directions among random ones, and print time and memory."""
    rng = np.random.default_rng(1)
    lines = rng.normal(size=(count, WIDTH))
    lines /= np.linalg.norm(lines, axis=1, keepdims=True)
    phrases = tuple(f"word {number}" for number in range(count))
    texts = rng.normal(size=(classes, WIDTH))
    queries = [
        Query(name=f"class_{number}", role=Role.CLASS, label=f"class {number}")
        for number in range(classes)
    ]
    named = {query.name: row for query, row in zip(queries, texts, strict=True)}
    with tempfile.TemporaryDirectory() as folder:
        write_images(Path(folder), images, classes, lines)
        results: Any = SimpleNamespace(dataset=ds.dataset(folder), queries=queries)
        settings = AuditConfig()
        start, cpu = time.perf_counter(), time.process_time()
        population = count_population(results, settings.max_classes)
        directions = Directions(named, lines, phrases)
        found = find_words(results, population, directions, settings, tell=print)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    confirmed = found.candidates[found.candidates["confirmed"]]
    planted = {(f"class {word}", phrases[word]) for word in range(classes // 2)}
    right = len(planted & set(zip(confirmed["class"], confirmed["word"], strict=True)))
    print(
        f"{images:,} images, {classes} classes, {count:,} words: {seconds:.0f} s, {cpu:.0f} s of "
        f"CPU, peak {peak:.2f} GiB\n{right} of {len(planted)} planted words confirmed, "
        f"{len(confirmed) - right} others, {int(found.decoys['confirmed'].sum())} of "
        f"{len(found.decoys)} decoys"
    )


class Embedded:
    """A drawn data set as a discovery reads it, without a run."""

    def __init__(
        self, model: VisionLanguageModel, queries: Sequence[Query], seed: int, images: int
    ) -> None:
        labels, parts = [], []
        for names, pixels in drawn(model.preprocess, seed, images):
            labels += names
            parts.append(model.encode_image(torch.from_numpy(pixels)).numpy())
        self.queries = queries
        self.embeddings = np.concatenate(parts)
        self.labels = np.array(labels)
        flat = pa.array(self.embeddings.ravel())
        columns = {
            "image_id": [f"demo/{seed}/{number}" for number in range(images)],
            "label": labels,
            "status": ["ok"] * images,
            "embedding": pa.FixedSizeListArray.from_arrays(flat, self.embeddings.shape[1]),
        }
        self.dataset = ds.dataset(pa.table(columns))


def directions_of(model: VisionLanguageModel, queries: Sequence[Query]) -> Directions:
    """Directions of the queries and of the shipped vocabulary."""
    phrases = words()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # words that the mini model never saw
        parts = [
            model.encode_text(list(phrases[start : start + _TEXTS])).double().numpy()
            for start in range(0, len(phrases), _TEXTS)
        ]
        of_queries = encode_queries(model, queries).double().numpy()
    features = np.concatenate(parts)
    kept = distinct_rows(features)
    named = {query.name: row for query, row in zip(queries, of_queries, strict=True)}
    return Directions(named, features[kept], tuple(phrases[row] for row in kept))


def names_cue(kind: str, words: str, cue: str) -> bool:
    """Whether a candidate is a word, and one of its words, separated by commas, names the cue."""
    return kind not in ("thing", "place") and cue in words.replace(",", "").split()


def verdict(
    found: Discovery, data: Embedded, seed: int, hidden: Sequence[demo.Planted]
) -> dict[str, Any]:
    """Counts of one seed."""
    rows = found.candidates
    first = rows[rows["rank"] <= FIRST]
    specs = [demo.example(seed, number).spec for number in range(len(data.labels))]
    by_word = seen = 0
    for planted in hidden:
        mine = first[first["class"] == planted.label]
        if planted.cue in UNSEEN:
            inside = data.labels == planted.label
            has = np.array([planted.cue in spec.overlays for spec in specs])[inside]
            things = [found.directions[name] for name in mine.loc[mine["kind"] == "thing", "word"]]
            scores = [data.embeddings[inside] @ line for line in things]
            seen += any(roc_auc_score(has, score) >= SEES for score in scores)
        else:
            listed = mine[["kind", "word", "also"]].astype(str).to_numpy()
            by_word += any(names_cue(kind, f"{w}, {also}", planted.cue) for kind, w, also in listed)
    confirmed = rows[rows["confirmed"]]
    of_planted = {planted.label for planted in hidden}
    clean = [cls for cls in demo.LABELS if cls not in of_planted]
    false = confirmed[confirmed["class"].isin(clean)]
    known = sum(planted.cue not in UNSEEN for planted in hidden)
    return {
        "seed": seed,
        "by word": f"{by_word} of {known}",
        "unseen": f"{seen} of {len(hidden) - known}",
        "confirmed": "; ".join(confirmed["class"] + " " + confirmed["word"]),
        "false": f"{len(false)} in {len(clean)} classes",
        "decoys": f"{int(found.decoys['confirmed'].sum())} of {len(found.decoys)}",
    }


def measure_finds(seeds: Sequence[int], images: int, weights: str | None, *, cues: bool) -> None:
    """Draw, embed and discover, and print a row for each seed."""
    model = model_of(weights)
    queries = load_config(packaged_config("demo.yaml")).queries
    queries = tuple(query for query in queries if cues or query.role is not Role.CUE)
    hidden = demo.HIDDEN if cues else (*demo.PLANTED, *demo.HIDDEN)
    directions, settings = directions_of(model, queries), AuditConfig()
    for seed in seeds:
        data: Any = Embedded(model, queries, seed, images)
        population = count_population(data, settings.max_classes)
        found = find_words(data, population, directions, settings)
        print(pd.DataFrame([verdict(found, data, seed, hidden)]).to_string(index=False), flush=True)


def main() -> None:
    """Measure costs, or with seeds what is found."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--words", type=int, default=9_400)
    parser.add_argument("--seeds", type=int, nargs="+")
    parser.add_argument("--weights", help="weights.safetensors of another mini model")
    parser.add_argument("--cues", action=argparse.BooleanOptionalAction, default=True)
    args = parser.parse_args()
    if args.seeds:
        measure_finds(args.seeds, args.images or 2000, args.weights, cues=args.cues)
    else:
        measure_costs(args.images or 100_000, args.classes, args.words)


if __name__ == "__main__":
    main()
