"""Runs with known truth: scores and maps made by numpy, written as a run writes them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from numpy.typing import NDArray

from legrad.heatmaps.codec import encode_maps
from pipeline.runs.manifest import run_folder
from pipeline.schema import (
    EMBEDDING,
    SCHEMA_VERSION,
    map_column,
    output_schema,
    peak_column,
    score_column,
)

GRID = (4, 4)


@dataclass
class World:
    """Images with labels, cues that they have, and what a model scores.

    Attributes:
        labels: (n,).
        has: by cue, (n,) whether it is there.
        scores: by query, (n,).
        statuses: (n,); scores of what failed are not stored.
        maps: by query, (n, 4, 4); queries without any have no map columns.
        columns: further ones.
        vectors: (n, E) embeddings; None for a run that stored none.
        sets: (n,) sets of labels.
    """

    labels: list[str | None]
    has: dict[str, NDArray[np.bool_]] = field(default_factory=dict)
    scores: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    statuses: list[str] = field(default_factory=list)
    maps: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    columns: dict[str, list[str]] = field(default_factory=dict)
    vectors: NDArray[np.float16] | None = None
    sets: Sequence[Sequence[str] | None] = ()

    def __post_init__(self) -> None:
        self.statuses = self.statuses or ["ok"] * len(self.labels)

    @property
    def ids(self) -> list[str]:
        return [f"w/{number:06d}" for number in range(len(self.labels))]

    def cue(
        self,
        name: str,
        rates: Mapping[str | None, float],
        *,
        elsewhere: float = 0.05,
        distance: float = 10.0,
        shift: float = 3.0,
        seed: int = 0,
    ) -> "World":
        """Add a cue: its share by class, its distance and the classes' shifts in deviations."""
        rng = np.random.default_rng([seed, len(self.scores)])
        count = len(self.labels)
        classes = sorted({str(label) for label in self.labels})
        shifts = dict(zip(classes, rng.normal(0, shift, len(classes)), strict=True))
        chance = np.array([rates.get(label, elsewhere) for label in self.labels])
        self.has[name] = rng.random(count) < chance
        offset = np.array([shifts[str(label)] for label in self.labels])
        noise = rng.normal(0, 1, count)
        self.scores[name] = 0.2 + 0.01 * (offset + noise + distance * self.has[name])
        return self

    @property
    def dataset(self) -> ds.Dataset:
        """As the audit reads it, in memory."""
        return ds.dataset(self.table())

    def table(self, metadata: Mapping[str, Any] | None = None) -> pa.Table:
        schema = output_schema(
            dict.fromkeys(self.columns, "string"),
            list(self.scores),
            maps=list(self.maps),
            embeddings=self.vectors is not None,
            metadata=metadata or {},
        )
        fine = np.array(self.statuses) == "ok"
        values: dict[str, Any] = {
            "image_id": self.ids,
            "key": self.ids,
            "shard": ["s"] * len(fine),
            "label": self.labels,
            "status": self.statuses,
            "sha256": self.ids,
            "width": [40] * len(fine),
            "height": [40] * len(fine),
            **self.columns,
        }
        if self.vectors is not None:
            rows = [row if good else None for row, good in zip(self.vectors, fine, strict=True)]
            values[EMBEDDING] = rows
        if self.sets:
            values["labels"] = self.sets
        for name, scores in self.scores.items():
            values[score_column(name)] = pa.array(scores.astype(np.float32), mask=~fine)
        for name, maps in self.maps.items():
            cells, peaks = encode_maps(maps)
            raw = [c.tobytes() if good else None for c, good in zip(cells, fine, strict=True)]
            values[map_column(name)] = raw
            values[peak_column(name)] = pa.array(peaks, mask=~fine)
        arrays = [
            pa.array(values[f.name], f.type) if f.name in values else pa.nulls(len(fine), f.type)
            for f in schema
        ]
        return pa.Table.from_arrays(arrays, schema=schema)

    def write(
        self, path: Path, roles: Mapping[str, str], classes: Sequence[str] = (), alias: str = "w"
    ) -> str:
        """A run on disk, in two parts; ``classes`` name class queries (label: spaces for _)."""
        queries = [{"name": n, "role": roles.get(n, "cue")} for n in self.scores]
        for query in queries:
            if query["name"] in classes:
                query |= {"role": "class", "label": query["name"].replace("_", " ")}
        metadata = {
            "schema_version": SCHEMA_VERSION,
            "grid": list(GRID),
            "queries": queries,
            "model": {"name": "test", "pretrained": None, "weights_sha256": "0" * 64},
            "software": {},
            "preprocess": {"size": [32, 32], "mode": "squash", "interpolation": "bicubic"},
        }
        folder = run_folder(str(path))
        source = {"uri": ["in"], "format": "webdataset", "alias": alias}
        identity = {"model.image_size": [32, 32], "model.resize": "squash"}
        identity |= {"model.layers": 1, "model.precision": "fp32"}
        manifest = {"metadata": metadata, "source": source, "identity": identity}
        manifest |= {"digest": "0" * 64, "created": "2026-11-29T12:00:00Z"}
        folder.manifest.write(json.dumps(manifest).encode())
        table = self.table(metadata)
        half = table.num_rows // 2
        for number, part in enumerate([table[:half], table[half:]]):
            for place in (folder.images, folder.checkpoint):
                Path(place.path).mkdir(parents=True, exist_ok=True)
            pq.write_table(part, folder.images.child(f"part-{number:06d}-0.parquet").path)
            ids = part.select(["image_id"])
            pq.write_table(ids, folder.checkpoint.child(f"part-{number:06d}.parquet").path)
        return str(path)


def labels(count: int, classes: Sequence[str], seed: int = 0) -> list[str | None]:
    """Drawn evenly."""
    rng = np.random.default_rng(seed)
    return [classes[int(rng.integers(len(classes)))] for _ in range(count)]
