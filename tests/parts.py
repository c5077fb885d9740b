"""Runs made by hand: parts, commits and pending files as a run leaves them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.runs.manifest import RunFolder, run_folder
from pipeline.runs.parts import PARQUET, PENDING
from pipeline.schema import SCHEMA_VERSION, output_schema
from pipeline.sources.listing import SourceFile
from pipeline.sources.read_unit import Unit

GRID = (2, 3)
METADATA = {"schema_version": SCHEMA_VERSION, "grid": list(GRID), "note": "größer"}
SCHEMA = output_schema({"weight": "float"}, ["cue"], GRID, embeddings=True, metadata=METADATA)


def ray_name(number: int) -> str:
    """A commit's name as Ray gives it."""
    return f"{number:032x}_{number:06d}"


def row(shard: str, key: str, **values: Any) -> dict[str, Any]:
    return {"image_id": f"{shard}/{key}", "shard": shard, "key": key, "status": "ok", **values}


def rows(shard: str, keys: Sequence[str]) -> list[dict[str, Any]]:
    return [
        row(
            shard,
            key,
            weight=float("nan") if number % 3 == 0 else float(number),
            embedding=[float(number), 0.5],
            score__cue=number / 7,
            heatmap__cue=bytes([number % 256] * GRID[0] * GRID[1]),
            heatmap_max__cue=1.0,
        )
        for number, key in enumerate(keys)
    ]


def make_run(path: Path) -> RunFolder:
    """An empty run."""
    folder = run_folder(str(path))
    query = {"name": "cue", "role": "cue", "prompts": ["a cue"]}
    manifest = {
        "metadata": METADATA | {"queries": [query]},
        "source": {"uri": ["in"], "format": "webdataset"},
        "identity": {},
    }
    folder.manifest.write(json.dumps(manifest).encode())
    return folder


def data(folder: RunFolder, name: str, some: Sequence[dict[str, Any]]) -> Path:
    """A data part."""
    place = Path(folder.images.child(f"{name}-0{PARQUET}").path)
    place.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(some), schema=SCHEMA), place)
    return place


def ids(folder: RunFolder, name: str, some: Sequence[dict[str, Any]], wave: str = "") -> None:
    """The ids of a part, committed or (``name.pending``) not yet."""
    place = Path(folder.checkpoint.child(wave, f"{name}{PARQUET}").path)
    place.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"image_id": [r["image_id"] for r in some]}), place)


def pending(folder: RunFolder, name: str, some: Sequence[dict[str, Any]], wave: str = "") -> None:
    ids(folder, f"{name}{PENDING.removesuffix(PARQUET)}", some, wave)


def part(folder: RunFolder, name: str, some: Sequence[dict[str, Any]], wave: str = "") -> None:
    """A committed part."""
    data(folder, name, some)
    ids(folder, name, some, wave)


def tar(name: str, size: int = 1000, version: str = "etag:1") -> Unit:
    return Unit(name, (SourceFile(f"/in/{name}", name, size, version),))


def chunk(*names: str, version: str = "etag:1") -> Unit:
    return Unit(names[0], tuple(SourceFile(f"/in/{n}", n, 10, version) for n in names))
