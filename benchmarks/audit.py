"""What an audit costs: ``python -m benchmarks.audit --images 1000000``.

Writes a synthetic run (random labels, scores with planted cues, random maps of real size), then
times the parts of one audit, one after the other, and gives the highest resident memory so far.
The maps are noise, which compresses worse than real ones. Embeddings and the features of texts are
noise, too: the texts of a real run are encoded once, which takes the model and some seconds.
"""

import argparse
import io
import json
import resource
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa

from pipeline.audit.directions import encoded_texts
from pipeline.audit.vocabulary import features_file
from pipeline.auditor import Audit
from pipeline.results.reproduce import model_config
from pipeline.runs.manifest import run_folder
from pipeline.runs.parts import write_part
from pipeline.schema import (
    EMBEDDING,
    SCHEMA_VERSION,
    map_column,
    output_schema,
    peak_column,
    score_column,
)

GRID = (14, 14)
ROWS = 50_000
EMBEDDING_WIDTH = 512
_DIGEST = "0" * 64
_IDENTITY = {
    "model.weights_sha256": _DIGEST,
    "model.image_size": [224, 224],
    "model.resize": "squash",
    "model.layers": 2,
    "model.precision": "fp32",
}
CLASS_QUERIES = 8
"""Queries of classes; the others are cues, a quarter of them decoys."""


def write_run(folder: Path, images: int, queries: int, classes: int) -> None:
    """Write a run of that size; ``folder`` must not exist."""
    names = [f"q{number}" for number in range(queries)]
    roles = ["class"] * CLASS_QUERIES + ["cue"] * (queries - CLASS_QUERIES)
    decoys = (queries - CLASS_QUERIES) // 4
    roles[-decoys:] = ["decoy"] * decoys
    described = [
        {"name": name, "role": role} | ({"label": f"class {n}"} if role == "class" else {})
        for n, (name, role) in enumerate(zip(names, roles, strict=True))
    ]
    metadata = {
        "schema_version": SCHEMA_VERSION,
        "grid": list(GRID),
        "queries": described,
        "model": {
            "name": "ViT-B-16",
            "pretrained": "openai",
            "weights_sha256": _DIGEST,
            "layers": 2,
        },
        "preprocess": {"size": [224, 224], "mode": "squash", "interpolation": "bicubic"},
    }
    run = run_folder(str(folder))
    source = {"uri": ["in"], "format": "webdataset", "alias": "synthetic"}
    manifest = {"metadata": metadata, "source": source, "identity": _IDENTITY}
    run.manifest.write(json.dumps(manifest).encode())
    schema = output_schema({}, names, embeddings=True, metadata=metadata)
    Path(run.images.path).mkdir(parents=True)
    for number, start in enumerate(range(0, images, ROWS)):
        count = min(ROWS, images - start)
        table = _part(number, start, count, (names, roles, classes), schema)
        write_part(run.images, table, number=number)


def _part(
    number: int,
    start: int,
    count: int,
    kinds: tuple[list[str], list[str], int],
    schema: pa.Schema,
) -> pa.Table:
    names, roles, classes = kinds
    rng = np.random.default_rng([7, number])
    code = rng.integers(0, classes, count)
    cells = GRID[0] * GRID[1]
    shifts = np.random.default_rng(11).normal(0, 0.02, (len(names), classes))
    values: dict[str, pa.Array] = {
        "image_id": pa.array([f"synthetic/{i:09d}" for i in range(start, start + count)]),
        "label": pa.array([f"class {c}" for c in code]),
        "status": pa.array(["ok"] * count),
        "sha256": pa.array([f"{i:064x}" for i in range(start, start + count)]),
        "width": pa.array(np.full(count, 224, np.int32)),
        "height": pa.array(np.full(count, 224, np.int32)),
    }
    for place, (name, role) in enumerate(zip(names, roles, strict=True)):
        rate = np.where(code == place % classes, 0.6, 0.05) if role == "cue" else 0.0
        has = rng.random(count) < rate
        score = 0.2 + shifts[place, code] + 0.01 * rng.normal(size=count) + 0.1 * has
        values[score_column(name)] = pa.array(score.astype(np.float32))
        noise = rng.integers(0, 256, count * cells, dtype=np.uint8)
        maps = pa.FixedSizeBinaryArray.from_buffers(
            pa.binary(cells), count, [None, pa.py_buffer(noise)]
        )
        values[map_column(name)] = maps.cast(pa.binary())
        values[peak_column(name)] = pa.array(rng.random(count).astype(np.float32))
    vectors = rng.standard_normal((count, EMBEDDING_WIDTH), np.float32).astype(np.float16)
    values[EMBEDDING] = pa.ListArray.from_arrays(
        np.arange(0, vectors.size + 1, EMBEDDING_WIDTH, dtype=np.int32), vectors.ravel()
    ).cast(schema.field(EMBEDDING).type)
    arrays = [values.get(f.name, pa.nulls(count, f.type)) for f in schema]
    return pa.Table.from_arrays(arrays, schema=schema)


def write_features(audit: Audit) -> None:
    """Write features of the texts where the audit keeps those that it encoded."""
    _, texts = encoded_texts(audit.results)
    features = np.random.default_rng(5).standard_normal((len(texts), EMBEDDING_WIDTH))
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    buffer = io.BytesIO()
    np.save(buffer, features.astype(np.float32))
    file = features_file(model_config(audit.results.run), _DIGEST, texts)
    audit.results.folder.root.child("_run", file).write(buffer.getvalue())


def timed(name: str, work: Callable[[], object]) -> object:
    """Do it and say what it took."""
    start = time.perf_counter()
    result = work()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{name:<34}{time.perf_counter() - start:8.1f} s   peak {peak:5.2f} GiB", flush=True)
    return result


def main() -> None:
    """Write a run into a temporary folder, and audit it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=64)
    parser.add_argument("--classes", type=int, default=100)
    args = parser.parse_args()
    with TemporaryDirectory() as place:
        folder = Path(place) / "run"
        start = time.perf_counter()
        write_run(folder, args.images, args.queries, args.classes)
        print(f"written in {time.perf_counter() - start:.0f} s", flush=True)
        measure(Audit.from_results(str(folder)))


def measure(audit: Audit) -> None:
    """Time the parts of an audit, and print."""
    start = time.perf_counter()
    found = timed("presence and association", lambda: audit.findings)
    timed("evidence, mean maps of cues", lambda: audit.evidence)
    timed("mean maps of all other queries", audit.read_maps)
    write_features(audit)
    timed("suspicions", audit.suspicions)
    timed("ranking", audit.rank)
    timed("summary", lambda: audit.summary)
    total = time.perf_counter() - start
    flagged = int(audit.findings.frame["association__flag"].sum())
    print(f"{'all':<34}{total:8.1f} s   {flagged} pairs flagged, {found.decoys}")  # type: ignore[attr-defined]


if __name__ == "__main__":
    main()
