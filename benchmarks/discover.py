"""What a discovery costs: ``python -m benchmarks.discover --images 100000``.

Writes embeddings of noise with planted directions, and finds these among as many random words as
the shipped vocabulary has. Encoding the words, which takes the model once a run, is left out.
"""

import argparse
import resource
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from legrad.queries.query import Query, Role
from pipeline.audit.directions import Directions
from pipeline.audit.inference import Array
from pipeline.audit.scores import count_population
from pipeline.config.audit_settings import AuditConfig
from pipeline.discovery.search import find_words

WIDTH, ROWS = 512, 50_000
DISTANCE, SHARE, ELSEWHERE = 9.0, 0.5, 0.05


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


def main() -> None:
    """Write, find, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--words", type=int, default=9_400)
    args = parser.parse_args()
    rng = np.random.default_rng(1)
    words = rng.normal(size=(args.words, WIDTH))
    words /= np.linalg.norm(words, axis=1, keepdims=True)
    phrases = tuple(f"word {number}" for number in range(args.words))
    texts = rng.normal(size=(args.classes, WIDTH))
    queries = [
        Query(name=f"class_{number}", role=Role.CLASS, label=f"class {number}")
        for number in range(args.classes)
    ]
    named = {query.name: row for query, row in zip(queries, texts, strict=True)}
    with tempfile.TemporaryDirectory() as folder:
        write_images(Path(folder), args.images, args.classes, words)
        results: Any = SimpleNamespace(dataset=ds.dataset(folder), queries=queries)
        settings = AuditConfig()
        start = time.perf_counter()
        population = count_population(results, settings.max_classes)
        directions = Directions(named, words, phrases)
        found = find_words(results, population, directions, settings, tell=print)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    confirmed = found.candidates[found.candidates["confirmed"]]
    planted = {(f"class {word}", phrases[word]) for word in range(args.classes // 2)}
    right = len(planted & set(zip(confirmed["class"], confirmed["word"], strict=True)))
    print(
        f"{args.images:,} images, {args.classes} classes, {args.words:,} words: {seconds:.0f} s, "
        f"peak {peak:.2f} GiB\n{right} of {len(planted)} planted words confirmed, "
        f"{len(confirmed) - right} others, {int(found.decoys['confirmed'].sum())} of "
        f"{len(found.decoys)} decoys"
    )


if __name__ == "__main__":
    main()
