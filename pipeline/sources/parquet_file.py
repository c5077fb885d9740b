"""Open a Parquet file of images, find its columns, and cut it into parts."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.config import SourceConfig
from pipeline.errors import UsageError
from pipeline.sources.columns import Columns, choose_columns, columns_in_folders
from pipeline.sources.image_column import (
    element,
    hugging_face_features,
    image_column,
    is_binary,
    is_struct,
)
from pipeline.sources.input_rows import BLOCK_ROWS, READ_BLOCK_BYTES, is_corruption, text_of
from pipeline.sources.read_unit import Part
from pipeline.storage.location import Location, redact

READ_BYTES = 4 * 2**20
BYTES_PER_PART = 64 * 2**20
ROWS_PER_PART = 8192


@contextmanager
def open_parquet(location: Location) -> Iterator[pq.ParquetFile]:
    """Open a file such that it is read page by page, never a whole column of a row group."""
    # Arrow reads ahead itself, so fsspec shall not.
    with location.fs.open(location.path, "rb", cache_type="none") as stream:
        if getattr(stream, "size", 0) is None:
            raise _without_ranges(location)
        try:
            with pq.ParquetFile(stream, pre_buffer=False, buffer_size=READ_BYTES) as table:
                _refuse_odd_counts(table.metadata)
                yield table
        except ValueError as error:
            if "range requests" in str(error):  # as fsspec says it
                raise _without_ranges(location) from error
            raise


def _without_ranges(location: Location) -> UsageError:
    url = redact(location.path)
    return UsageError(
        f"{url}: the server sends no byte ranges, which Parquet needs. Download the file (curl -O "
        f"{url}) and name the copy"
    )


def _refuse_odd_counts(metadata: pq.FileMetaData) -> None:
    rows = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
    if min(rows, default=0) < 0 or sum(rows) != metadata.num_rows:
        raise pa.ArrowInvalid(f"{metadata.num_rows} rows, but {sum(rows)} in its row groups")


def columns_of(table: pq.ParquetFile, source: SourceConfig, where: str) -> Columns:
    """The columns to read, as the settings name them; see `image_column` for that of the images.

    Raises:
        UsageError: there is no column of images, or a column named in the settings is missing.
    """
    schema = table.schema_arrow
    image = source.image_field or image_column(table)
    if image is None:
        refuse_lists_and_videos(schema, hugging_face_features(schema), where)
    folders = columns_in_folders(where)
    names = list(dict.fromkeys((*schema.names, *folders)))
    columns = replace(choose_columns(names, image, source, where), folders=folders)
    kind = schema.field(columns.image).type
    if not is_struct(kind) and not is_binary(kind):
        raise UsageError(
            f"source.image_field: {where}: {columns.image!r} holds {kind}; expected binary or "
            "struct{bytes, path}. For URIs, use `format: list`."
        )
    return columns


def image_of(value: Any) -> tuple[bytes | None, str | None]:
    """The bytes and the path in a value of the image column."""
    if isinstance(value, dict):
        return value.get("bytes"), text_of(value.get("path"))
    return value, None


def cut(metadata: pq.FileMetaData) -> Iterator[Part]:
    """Cut a file into parts of one or more neighbouring row groups, about `BYTES_PER_PART` each."""
    groups: list[int] = []
    first = rows = size = 0
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        if groups and (
            size + group.total_byte_size > BYTES_PER_PART or rows + group.num_rows > ROWS_PER_PART
        ):
            yield Part(first, rows, size, tuple(groups))
            groups, first, rows, size = [], first + rows, 0, 0
        groups.append(number)
        rows += group.num_rows
        size += group.total_byte_size
    if groups:
        yield Part(first, rows, size, tuple(groups))


def batch_rows(metadata: pq.FileMetaData, group: int) -> int:
    """Number of rows that amount to about `READ_BLOCK_BYTES`.

    It uses only totals of the row group: with a damaged footer, asking pyarrow for the metadata of
    a column ends the process.
    """
    meta = metadata.row_group(group)
    mean = meta.total_byte_size // max(1, meta.num_rows)
    return int(min(BLOCK_ROWS, max(1, READ_BLOCK_BYTES // max(1, mean))))


def is_broken(error: Exception) -> bool:
    """Whether an error means a damaged file; storage errors pass through Arrow unchanged."""
    return isinstance(error, pa.ArrowException | UnicodeDecodeError) or is_corruption(error)


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
    inner = element(feature)
    return inner is not feature and isinstance(inner, dict) and inner.get("_type") == "Image"


def _is_list_of_images(kind: pa.DataType) -> bool:
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)):
        return False
    value = kind.value_type
    names = [value.field(i).name for i in range(value.num_fields)]
    is_image = pa.types.is_struct(value) and {"bytes", "path"} <= set(names)
    return is_image or pa.types.is_binary(value) or pa.types.is_large_binary(value)
