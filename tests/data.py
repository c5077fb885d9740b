"""Files and settings that tests run on."""

import io
import json
import tarfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from pipeline.config import RunConfig, SourceConfig
from pipeline.config.loading import load_config, packaged_config, validated
from pipeline.schema import BOOK
from pipeline.sources.datasource import open_source, read_units

CLASSES_AND_CUES = (
    {"name": "fish", "role": "class", "prompts": "a fish"},
    {"name": "watermark", "role": "cue", "prompts": "a watermark"},
    {"name": "an_image", "role": "baseline", "prompts": "an image"},
)


def demo_config(shards: Sequence[str], output: Path | str, *overrides: str) -> RunConfig:
    """The shipped demo configuration on other files."""
    uris = "[" + ", ".join(repr(uri) for uri in shards) + "]"
    settings = [f"source.uri={uris}", f"output={str(output)!r}", *overrides]
    return load_config(packaged_config("demo.yaml"), settings)


def mini_config(source: dict[str, Any], output: Path | str, **more: Any) -> RunConfig:
    """The mini model and three queries on a source."""
    data = {
        "model": {"name": "mini"},
        "source": source,
        "queries": list(CLASSES_AND_CUES),
        "output": str(output),
        "runtime": {"actors": 1, "threads_per_actor": 1, "batch_size": 8},
        **more,
    }
    return validated(RunConfig, data, "test")


def picture(seed: int, size: tuple[int, int] = (40, 30)) -> Image.Image:
    """An RGB image of smooth noise."""
    noise = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def jpeg(seed: int) -> bytes:
    return encoded(picture(seed))


def tar_bytes(members: Iterable[tuple[str, bytes]], mode: str = "w") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:  # type: ignore[call-overload]
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def samples(keys: Sequence[str], first_seed: int = 0) -> list[tuple[str, bytes]]:
    """A jpg and a json with a label for every key."""
    members = []
    for number, key in enumerate(keys):
        record = {"label": f"label {number % 3}", "caption": f"caption of {key}", "size": number}
        members.append((f"{key}.jpg", jpeg(first_seed + number)))
        members.append((f"{key}.json", json.dumps(record).encode()))
    return members


def read_all(source: SourceConfig) -> list[dict[str, Any]]:
    """Every row of a source, as the read tasks give it, without its place in the book."""
    opened = open_source(source)
    return [
        {name: value for name, value in row.items() if name != BOOK}
        for unit in opened.units
        for table in read_units(source, [unit], opened.reporter)
        for row in table.to_pylist()
    ]


def settings(kind: str, uri: Any, **more: Any) -> SourceConfig:
    return SourceConfig.model_validate({"format": kind, "uri": uri, **more})


def hugging_face(
    place: Any, rows: Sequence[dict[str, Any]], names: Sequence[str] = (), per_group: int = 4
) -> None:
    """A Parquet file as `datasets` writes it: struct{bytes, path}, class names in the metadata."""
    features: dict[str, Any] = {"image": {"_type": "Image"}}
    fields = [pa.field("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())]))]
    if names:
        features["label"] = {"names": list(names), "_type": "ClassLabel"}
    known = {name for row in rows for name in row} - {"image"}
    kinds = {name: pa.array([row.get(name) for row in rows]).type for name in sorted(known)}
    fields += [pa.field(name, kind) for name, kind in kinds.items()]
    meta = {"huggingface": json.dumps({"info": {"features": features}})}
    table = pa.Table.from_pylist(list(rows), pa.schema(fields, metadata=meta))
    pq.write_table(table, place, row_group_size=per_group)
