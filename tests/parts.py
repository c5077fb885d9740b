"""Runs made by hand: parts as a run leaves them, and those of earlier versions."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.runs.book import ENDS
from pipeline.runs.manifest import RunFolder, run_folder
from pipeline.runs.parts import PARQUET, PENDING, write_part
from pipeline.schema import BOOK, SCHEMA_VERSION, output_schema, with_book
from pipeline.sources.listing import SourceFile
from pipeline.sources.read_unit import Unit
from pipeline.storage.location import Location

GRID = (2, 3)
METADATA = {"schema_version": SCHEMA_VERSION, "grid": list(GRID), "note": "größer"}
SCHEMA = output_schema({"weight": "float"}, ["cue"], embeddings=True, metadata=METADATA)


def ray_name(number: int) -> str:
    """A commit's name as earlier versions gave it."""
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
    """A data part of an earlier version."""
    place = Path(folder.images.child(f"{name}-0{PARQUET}").path)
    place.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(some), schema=SCHEMA), place)
    return place


def ids(folder: RunFolder, name: str, some: Sequence[dict[str, Any]], wave: str = "") -> None:
    """The ids of an earlier version's part, committed or (``name.pending``) not yet."""
    place = Path(folder.checkpoint.child(wave, f"{name}{PARQUET}").path)
    place.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"image_id": [r["image_id"] for r in some]}), place)


def pending(folder: RunFolder, name: str, some: Sequence[dict[str, Any]], wave: str = "") -> None:
    ids(folder, f"{name}{PENDING.removesuffix(PARQUET)}", some, wave)


def earlier_part(
    folder: RunFolder, name: str, some: Sequence[dict[str, Any]], wave: str = "wave-0000"
) -> None:
    """A committed part of a version with Ray's checkpoint."""
    data(folder, name, some)
    ids(folder, name, some, wave)


def part(
    folder: RunFolder,
    some: Sequence[dict[str, Any]],
    *,
    first: int = 0,
    version: str = "etag:1",
    size: int = 1000,
    ends: Sequence[dict[str, Any]] = (),
) -> Location:
    """A part.

    Args:
        some: rows; those with a number below `BOOK` have that, the others count from ``first``.
        version, size: of the shards' files.
        ends: ends of units, see `end`.
    """
    places = [
        {"number": row.get(BOOK, first + n), "version": version, "bytes": size, "end": None}
        for n, row in enumerate(some)
    ]
    placed = [row | {BOOK: place} for row, place in zip(some, places, strict=True)]
    table = pa.Table.from_pylist(placed, schema=with_book(SCHEMA))
    return write_part(folder.images, table, pa.Table.from_pylist(list(ends), schema=ENDS))


def end(unit: Unit, rows: int, kept: int = 0) -> dict[str, Any]:
    """The record that a unit has so many rows."""
    found = {"unit": unit.key, "version": unit.version, "bytes": unit.size}
    return found | {"rows": rows, "kept": kept}


def whole(folder: RunFolder, unit: Unit, keys: Sequence[str]) -> Location:
    """A part with all rows of a unit."""
    (file,) = unit.files
    some = rows(file.name, keys)
    return part(folder, some, ends=[end(unit, len(keys))], version=file.version)


def tar(name: str, size: int = 1000, version: str = "etag:1") -> Unit:
    return Unit(name, (SourceFile(f"/in/{name}", name, size, version),))


def chunk(*names: str, version: str = "etag:1") -> Unit:
    """Some files of a folder, each of them one image."""
    files = tuple(SourceFile(f"/in/{n}", n, 10, version) for n in names)
    return Unit(names[0], files, single_images=True)
