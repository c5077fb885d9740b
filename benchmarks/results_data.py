"""A synthetic run with any number of rows, in the schema of a real one, streamed to disk."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from legrad.heatmaps.codec import encode_maps
from pipeline.runs.manifest import RunFolder, run_folder
from pipeline.runs.parts import ROW_GROUP_ROWS, write_part
from pipeline.schema import SCHEMA_VERSION, map_column, output_schema, peak_column, score_column

GRID = (14, 14)
LABELS = 100
_BANK = 8192
_NOISE = 6


def query_names(count: int) -> list[str]:
    """q000, q001, ..."""
    return [f"q{number:03d}" for number in range(count)]


def make_run(place: Path, queries: Sequence[str]) -> tuple[RunFolder, pa.Schema]:
    """An empty run with its manifest."""
    folder = run_folder(str(place))
    metadata: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "config_digest": "0" * 64,
        "grid": list(GRID),
        "model": {"name": "synthetic", "weights_sha256": "0" * 64, "layers": 2},
        "preprocess": {"size": [224, 224], "mode": "squash", "interpolation": "bicubic"},
        "queries": [{"name": n, "role": "cue", "prompts": [f"a thing {n}"]} for n in queries],
    }
    manifest = {
        "metadata": metadata,
        "source": {"uri": ["in"], "format": "webdataset"},
        "identity": {},
    }
    folder.manifest.write(json.dumps(manifest).encode())
    Path(folder.images.path).mkdir(parents=True)
    schema = output_schema({}, queries, embeddings=False, metadata=metadata)
    return folder, schema


class Writer:
    """Writes parts of a given number of rows, sorted as by ``legrad compact``."""

    def __init__(self, folder: RunFolder, rows_per_part: int) -> None:
        self.folder, self.rows_per_part = folder, rows_per_part
        self._waiting: list[pa.Table] = []
        self._rows = self._number = 0

    def write(self, table: pa.Table) -> None:
        """Add rows."""
        while table.num_rows:
            rows = table.slice(0, min(table.num_rows, self.rows_per_part - self._rows))
            table = table.slice(rows.num_rows)
            self._waiting.append(rows)
            self._rows += rows.num_rows
            if self._rows == self.rows_per_part:
                self.close()

    def close(self) -> None:
        """Finish the part."""
        if self._waiting:
            write_part(self.folder.images, pa.concat_tables(self._waiting), number=self._number)
            self._number += 1
        self._waiting, self._rows = [], 0


def tables(rows: int, queries: Sequence[str], schema: pa.Schema, seed: int) -> Iterator[pa.Table]:
    """Rows in the order of their ids, a row group at a time."""
    rng = np.random.default_rng(seed)
    bank, peaks = encode_maps(_smooth(rng))
    for start in range(0, rows, ROW_GROUP_ROWS):
        count = min(ROW_GROUP_ROWS, rows - start)
        yield _table(np.arange(start, start + count), queries, schema, rng, (bank, peaks))


def _smooth(rng: np.random.Generator) -> NDArray[np.float32]:
    """Maps with a few blobs and some grain, non-negative."""
    coarse = rng.gamma(0.5, size=(_BANK, 5, 5)).astype(np.float32)
    ramp = np.linspace(0, 3.999, GRID[0])
    low = ramp.astype(int)
    part = (ramp - low).astype(np.float32)[:, None]
    tall = coarse[:, low] * (1 - part) + coarse[:, low + 1] * part
    wide = tall[:, :, low] * (1 - part[:, 0]) + tall[:, :, low + 1] * part[:, 0]
    grain = rng.gamma(1.0, 0.08, size=wide.shape).astype(np.float32)
    blobs: NDArray[np.float32] = wide + grain
    return blobs


def _table(
    numbers: NDArray[np.int64],
    queries: Sequence[str],
    schema: pa.Schema,
    rng: np.random.Generator,
    bank: tuple[NDArray[np.uint8], NDArray[np.float32]],
) -> pa.Table:
    n, (cells, peaks) = len(numbers), bank
    shards = [f"train/shard-{number // 5000:06d}.tar" for number in numbers]
    keys = [f"{number:09d}" for number in numbers]
    columns: dict[str, pa.Array] = {
        "image_id": pa.array([f"{s}/{k}" for s, k in zip(shards, keys, strict=True)]),
        "shard": pa.array(shards),
        "key": pa.array(keys),
        "source_offset": pa.array(numbers * 110_592),
        "source_length": pa.array(rng.integers(60_000, 110_000, n)),
        "label": pa.array([f"label {v:03d}" for v in rng.integers(0, LABELS, n)]),
        "sha256": pa.array([rng.bytes(32).hex() for _ in range(n)]),
        "width": pa.array(rng.integers(300, 600, n).astype(np.int32)),
        "height": pa.array(rng.integers(300, 600, n).astype(np.int32)),
        "status": pa.array(["ok"] * n),
    }
    for query in queries:
        which = rng.integers(0, len(cells), n)
        noise = rng.integers(0, _NOISE, (n, cells.shape[1] * cells.shape[2]), np.uint8)
        own = cells[which].reshape(n, -1)
        own = np.where(own >= noise, own - noise, own)  # no two maps are alike for the compressor
        data = pa.py_buffer(np.ascontiguousarray(own))
        columns[score_column(query)] = pa.array(rng.normal(0.2, 0.05, n).astype(np.float32))
        columns[map_column(query)] = pa.Array.from_buffers(pa.binary(own.shape[1]), n, [None, data])
        columns[peak_column(query)] = pa.array(peaks[which] * rng.random(n).astype(np.float32))
    nothing = {f.name: pa.nulls(n, f.type) for f in schema if f.name not in columns}
    return pa.table([(columns | nothing)[f.name] for f in schema], schema=schema)
