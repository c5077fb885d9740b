"""Columns of a Parquet file that hold pictures in a form that is not read."""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from pipeline.errors import UsageError
from pipeline.storage.location import redact


def refuse_lists_and_videos(schema: pa.Schema, features: Mapping[str, Any], where: str) -> None:
    """Refuse a file whose pictures are in lists of images or in videos, with what to do about it.

    Args:
        schema: schema of the file.
        features: its features in Hugging Face's metadata, by column.
        where: the file, for messages.

    Raises:
        UsageError: a column holds lists of images, or videos.
    """
    for field in schema:
        feature = features.get(field.name)
        if _is_video(feature):
            raise UsageError(
                f"{where}: column {field.name!r} holds videos. Take frames out of them: ffmpeg -i "
                "VIDEO -vf fps=1 frames/NAME-%05d.jpg, then legrad init frames"
            )
        if _holds_images(feature) or _is_list_of_images(field.type):
            raise UsageError(
                f"{where}: column {field.name!r} holds a list of images in each row. Write a row "
                f"for each image: python -c \"import pandas as p; p.read_parquet('{redact(where)}')"
                f".explode('{field.name}').rename(columns={{'{field.name}': 'image'}})"
                ".to_parquet('images.parquet')\", then name images.parquet"
            )


def _is_video(feature: Any) -> bool:
    return isinstance(feature, dict) and feature.get("_type") in ("Video", "VideoFrame")


def _holds_images(feature: Any) -> bool:
    """Whether a feature is a list of images, in the forms of all versions of `datasets`."""
    inner = feature
    if isinstance(feature, list):
        inner = feature[0] if feature else None
    elif isinstance(feature, dict) and feature.get("_type") in ("Sequence", "List", "LargeList"):
        inner = feature.get("feature")
    return inner is not feature and isinstance(inner, dict) and inner.get("_type") == "Image"


def _is_list_of_images(kind: pa.DataType) -> bool:
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)):
        return False
    value = kind.value_type
    names = [value.field(i).name for i in range(value.num_fields)]
    is_image = pa.types.is_struct(value) and {"bytes", "path"} <= set(names)
    return is_image or pa.types.is_binary(value) or pa.types.is_large_binary(value)
