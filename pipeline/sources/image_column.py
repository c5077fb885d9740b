"""Find the column of a Parquet file that holds the images, and read what Hugging Face says of it.

A column that the file declares as images comes first, then one with a usual name, then one whose
bytes are images. Columns named as masks, thumbnails and the like are taken last.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, UnidentifiedImageError

from legrad.image_files import open_image
from pipeline.sources.column_names import IMAGES, named
from pipeline.sources.input_rows import is_corruption
from pipeline.sources.webdataset import COMPANIONS, IMAGE_EXTENSIONS

_NAMES = (*IMAGES, *("image_bytes", "img_bytes", "image_data"), *sorted(IMAGE_EXTENSIONS))
_NO_IMAGES = frozenset(("Video", "VideoFrame", "Audio", "Pdf"))
"""Features that are stored as images are, as bytes and a path."""
_LOOKED_AT = 16  # values of a column
_WORDS = re.compile(r"[^a-z]+")


def image_column(table: pq.ParquetFile) -> str | None:
    """Name of the image column of a file; None if no column holds images."""
    schema = table.schema_arrow
    kinds: dict[str, pa.DataType] = {field.name: field.type for field in schema}
    features = hugging_face_features(schema)
    candidates = [
        name
        for name, kind in kinds.items()
        if (is_struct(kind) or is_binary(kind)) and _declared(features, name) not in _NO_IMAGES
    ]
    declared = [name for name in candidates if _declared(features, name) == "Image"]
    for names in (declared, candidates):
        images = [name for name in names if not is_companion(name)]
        usual: str | None = named(tuple(images), _NAMES)
        if usual is not None:
            return usual
        if images and names is declared:
            return images[0]
    ordered = sorted(candidates, key=is_companion)
    return _by_bytes(table, ordered) or next((n for n in candidates if is_struct(kinds[n])), None)


def _declared(features: Mapping[str, Any], name: str) -> str | None:
    """The type of a column by Hugging Face's metadata; None where it says none."""
    feature = features.get(name)
    return str(feature.get("_type")) if isinstance(feature, dict) else None


def is_companion(name: str) -> bool:
    """Whether a column is named as data about an image: a mask, a depth map, a thumbnail."""
    return not COMPANIONS.isdisjoint(_WORDS.split(name.lower()))


def _by_bytes(table: pq.ParquetFile, names: Sequence[str]) -> str | None:
    """The first column whose first values are images, by the readers of Pillow."""
    for name in names:
        try:
            values = _first_values(table, name)
        except Exception as error:
            if not isinstance(error, pa.ArrowException) and not is_corruption(error):
                raise
            continue
        if values and all(map(_is_image, values)):
            return name
    return None


def _first_values(table: pq.ParquetFile, name: str) -> list[bytes]:
    for batch in table.iter_batches(_LOOKED_AT, columns=[name]):
        values = batch.column(0).to_pylist()
        data = [value.get("bytes") if isinstance(value, dict) else value for value in values]
        return [value for value in data if value is not None]
    return []


def _is_image(data: bytes) -> bool:
    try:
        open_image(data).close()
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError):
        return False
    except Image.DecompressionBombError:
        return True
    return True


def is_struct(kind: pa.DataType) -> bool:
    """Whether a type is struct{bytes, ...}, in which Hugging Face stores images."""
    names = [kind.field(i).name for i in range(kind.num_fields)] if pa.types.is_struct(kind) else []
    return "bytes" in names


def is_binary(kind: pa.DataType) -> bool:
    """Whether a type holds bytes of any length."""
    checks = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view)
    return any(check(kind) for check in checks)


def hugging_face_features(schema: pa.Schema) -> dict[str, Any]:
    """Features of the columns in Hugging Face's metadata, by column; empty without metadata."""
    try:
        meta = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        features = meta.get("info", {}).get("features", {})
    except (ValueError, AttributeError, RecursionError):
        return {}
    return features if isinstance(features, dict) else {}


def class_names(schema: pa.Schema, label_field: str) -> tuple[str, ...] | None:
    """Names of integer labels from Hugging Face's metadata, or None.

    Args:
        schema: schema of the file.
        label_field: column of a label or of a list of labels, or ``a.b`` for the field b of a.
    """
    feature: Any = hugging_face_features(schema)
    for name in ("", *([label_field] if label_field in feature else label_field.split("."))):
        feature = element(feature.get(name) if name else feature)
        if not isinstance(feature, dict):
            return None
    feature = element(feature)
    names = feature.get("names") if isinstance(feature, dict) else None
    return tuple(map(str, names)) if isinstance(names, list) and names else None


def element(feature: Any) -> Any:
    """The feature of a list's elements, in the forms of all versions of `datasets`."""
    while isinstance(feature, list) and feature:
        feature = feature[0]
    while isinstance(feature, dict) and feature.get("_type") in ("Sequence", "List", "LargeList"):
        feature = feature.get("feature")
    return feature
