"""What Hugging Face's metadata in a Parquet file says about its columns."""

import json
from typing import Any

import pyarrow as pa


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
        feature = _element(feature.get(name) if name else feature)
        if not isinstance(feature, dict):
            return None
    feature = _element(feature)
    names = feature.get("names") if isinstance(feature, dict) else None
    return tuple(map(str, names)) if isinstance(names, list) and names else None


def _element(feature: Any) -> Any:
    """The feature of a list's elements, in the forms of all versions of `datasets`."""
    while isinstance(feature, list) and feature:
        feature = feature[0]
    while isinstance(feature, dict) and feature.get("_type") in ("Sequence", "List", "LargeList"):
        feature = feature.get("feature")
    return feature
