"""Column names, row statuses, schema version and file metadata of everything that is stored."""

import json
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

import pyarrow as pa

SCHEMA_VERSION = 3
"""2 added the columns ``property__*``. 3 added ``labels``, and stores embeddings as float32
(before: float16) and maps as binary of any length (before: of a fixed one), types that all common
readers of Parquet know."""
METADATA_KEY = b"legrad"
OWN_LABEL = "own_label"
"""Stands for the class of each image's own label, where only the map of that class is kept."""
PREDICTED_CLASS = "predicted"
"""Stands for the class that a classifier predicts for each image, where only its map is kept."""
STAND_INS = (OWN_LABEL, PREDICTED_CLASS)
"""Names that have maps like a query, of another class in each image, and no scores."""
UNREADABLE = "#unreadable"
"""Key of a row that stands for the part of its shard that could not be read."""


class Status(StrEnum):
    """What became of an input row. Every row has one; only `OK` rows have scores and maps."""

    OK = "ok"
    NOT_AN_IMAGE = "not_an_image"
    """The bytes are of no image format that Pillow knows."""
    DECODE_ERROR = "decode_error"
    """An image by its header, but broken inside."""
    TRUNCATED = "truncated"
    """The image data ends early, even if a decoder would paint the rest grey."""
    TOO_MANY_PIXELS = "too_many_pixels"
    """More pixels than ``source.max_pixels``, in the image or in a picture inside it."""
    NO_IMAGE = "no_image"
    """A sample of a shard without an image member, or a row of a table without an image."""
    DUPLICATE_KEY = "duplicate_key"
    """An earlier row of this shard has the same key; the id ends in ``#2``, ``#3``, ..."""
    READ_ERROR = "read_error"
    """The storage did not return the file."""
    SHARD_ERROR = "shard_error"
    """The shard is truncated or corrupt; one row stands for all that could not be read of it, or of
    one row group."""
    NOT_FINITE = "not_finite"
    """The model returned NaN or infinity."""
    WORKER_KILLED = "worker_killed"
    """Decoding or explaining the image killed its process, or took too long, at least twice."""


LABEL_SEPARATOR = "|"
"""Between the labels of one image in the column ``label``."""
FETCH_COLUMNS = (*("shard", "key", "source_offset", "source_length", "row_group", "row", "sha256"),)
"""Columns that say where an image's bytes are: what `pipeline.sources.fetch` needs of a row."""
IDENTITY = (
    pa.field("image_id", pa.string(), nullable=False),
    pa.field("shard", pa.string()),
    pa.field("key", pa.string()),
    pa.field("source_offset", pa.int64()),
    pa.field("source_length", pa.int64()),
    pa.field("row_group", pa.int32()),
    pa.field("row", pa.int64()),
    pa.field("label", pa.string()),
    pa.field("labels", pa.list_(pa.string())),  # only where the source gives an image a set
    pa.field("caption", pa.string()),
)
OUTCOME = (
    pa.field("sha256", pa.string()),
    pa.field("width", pa.int32()),
    pa.field("height", pa.int32()),
    pa.field("status", pa.string(), nullable=False),
    pa.field("error", pa.string()),
)
EMBEDDING = "embedding"
"""Column of the image embedding: list<float32>, null unless the status is ok.

It has unit length, but for a classifier, whose embedding is what its linear layer gets."""
PREDICTED_LABEL = "predicted_label"
"""Column of a classifier's prediction: the class with the highest logit among the queries."""
PROPERTIES = (
    "brightness",
    "contrast",
    "colourfulness",
    "greyness",
    "sharpness",
    "jpeg_quality",
    "aspect_ratio",
    "megapixels",
    "uniform_frame",
)
"""Properties of an image that need no model, see `pipeline.stages.properties`."""
PREFIXES = ("score__", "heatmap", "property__")
"""How the names of measured columns begin; no column of the source may be called so."""
BOOK = "_book"
"""Internal column: where a row stands in its shard. It travels from the reader to the writer, which
stores it in the metadata of a part (`pipeline.runs.book`) and not as a column."""
BOOK_FIELD = pa.field(
    BOOK,
    pa.struct(
        [
            pa.field("number", pa.int64()),  # of the row in its shard, from 0; below 0: a stand-in
            pa.field("version", pa.string()),  # of the shard's file
            pa.field("bytes", pa.int64()),  # size of the shard's file
            pa.field("end", pa.string()),  # JSON, only on the last row of a read unit
        ]
    ),
)
CARRY_TYPES = {
    "string": pa.string(),
    "int": pa.int64(),
    "float": pa.float64(),
    "bool": pa.bool_(),
}


def property_column(name: str) -> str:
    """Column of a property: float32; null where the image was not decoded or has no such value."""
    return f"property__{name}"


RESERVED = frozenset(
    [
        *(field.name for field in (*IDENTITY, *OUTCOME)),
        *(property_column(name) for name in PROPERTIES),
        *(EMBEDDING, PREDICTED_LABEL, BOOK, "bytes", "pixels"),
    ]
)


def score_column(query: str) -> str:
    """Column of a query's score: float32, cosine of image and query, or a classifier's logit."""
    return f"score__{query}"


def map_column(query: str) -> str:
    """Column of a query's map: binary of h * w bytes, row-major; value = byte / 255 * maximum."""
    return f"heatmap__{query}"


def peak_column(query: str) -> str:
    """Column of the maximum of a query's map: float32, in the map's own units."""
    return f"heatmap_max__{query}"


def carried_fields(carry: Mapping[str, str]) -> list[pa.Field]:
    """Fields of the columns that are carried over from the source."""
    return [pa.field(name, CARRY_TYPES[kind]) for name, kind in carry.items()]


def source_schema(carry: Mapping[str, str]) -> pa.Schema:
    """Schema of rows that were read: where they are, what the source says about them, the bytes."""
    return pa.schema(
        [
            *IDENTITY,
            *carried_fields(carry),
            pa.field("bytes", pa.binary()),
            pa.field("status", pa.string(), nullable=False),
            pa.field("error", pa.string()),
            BOOK_FIELD,
        ]
    )


def _property_fields() -> list[pa.Field]:
    return [pa.field(property_column(name), pa.float32()) for name in PROPERTIES]


def decoded_schema(carry: Mapping[str, str], *, properties: bool = False) -> pa.Schema:
    """Schema of decoded rows: uint8 pixels (3 * height * width bytes), null unless status is ok."""
    measured = _property_fields() if properties else []
    pixels = pa.field("pixels", pa.binary())
    return pa.schema([*IDENTITY, *carried_fields(carry), *OUTCOME, *measured, pixels, BOOK_FIELD])


def output_schema(
    carry: Mapping[str, str],
    queries: Sequence[str],
    *,
    maps: Sequence[str] | None = None,
    embeddings: bool,
    properties: bool = False,
    prediction: bool = False,
    metadata: Mapping[str, Any],
) -> pa.Schema:
    """Schema of ``OUT/images/*.parquet``: a row for each image, a group of columns for each query.

    Args:
        carry: columns carried over from the source, with their types.
        queries: names of the queries, in configuration order.
        maps: names that have maps: queries, or some of `STAND_INS`; default all queries.
        embeddings: whether image embeddings are stored.
        properties: whether properties of the images are stored.
        prediction: whether a classifier's prediction is stored.
        metadata: what is stored as JSON in the file's metadata.
    """
    mapped = queries if maps is None else maps
    fields = [*IDENTITY, *carried_fields(carry), *OUTCOME]
    if properties:
        fields += _property_fields()
    if prediction:
        fields.append(pa.field(PREDICTED_LABEL, pa.string()))
    if embeddings:
        fields.append(pa.field(EMBEDDING, pa.list_(pa.float32())))
    for name in dict.fromkeys([*queries, *mapped]):
        if name in queries:
            fields.append(pa.field(score_column(name), pa.float32()))
        if name in mapped:
            fields.append(pa.field(map_column(name), pa.binary()))
            fields.append(pa.field(peak_column(name), pa.float32()))
    return pa.schema(fields, metadata={METADATA_KEY: json.dumps(dict(metadata)).encode()})


def schema_in_memory(stored: pa.Schema, grid: tuple[int, int]) -> pa.Schema:
    """The schema in which the rows of a part of any schema version are read.

    Maps become fixed-size binary of h * w bytes, which has no limit of 2 GiB per array, and
    embeddings list<float32>.

    Args:
        stored: the schema of the part.
        grid: height and width of a map, in cells.
    """
    types = {EMBEDDING: pa.list_(pa.float32())}
    cells = pa.binary(grid[0] * grid[1])
    types |= {name: cells for name in stored.names if name.startswith(map_column(""))}
    fields = [field.with_type(types.get(field.name, field.type)) for field in stored]
    return pa.schema(fields, stored.metadata)


def with_book(schema: pa.Schema) -> pa.Schema:
    """The output's schema as it travels to the writer."""
    return schema.append(BOOK_FIELD)


def read_metadata(schema: pa.Schema) -> dict[str, Any] | None:
    """The metadata that `output_schema` put into a file; None for a file of other origin."""
    raw = (schema.metadata or {}).get(METADATA_KEY)
    return None if raw is None else json.loads(raw)
