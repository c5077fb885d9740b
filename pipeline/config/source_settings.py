"""Settings of the source: where the images are."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, PositiveInt, Tag, model_validator

from legrad.settings import PathOrUri, Settings, StorageOptions, TextFrom, text_from
from pipeline.errors import UsageError
from pipeline.schema import PREFIXES, RESERVED

_CHAINED = frozenset(
    "simplecache filecache blockcache cached zip tar libarchive dir reference".split()
)
"""fsspec's protocols that read another location: ``simplecache::s3://...``."""


def _as_places(value: Any) -> Any:
    """Places as a list; a text may join several as webdataset does: ``a.tar::b.tar``."""
    places = (value,) if isinstance(value, str) else value
    if not isinstance(places, list | tuple):
        return places
    return [part for place in places for part in _separated(place)]


def _separated(place: Any) -> list[Any]:
    if not isinstance(place, str):
        return [place]
    if place.startswith("pipe:"):
        raise ValueError(
            "commands (pipe:) are not run; name what the command reads, such as s3://bucket/x.tar"
        )
    if "::" not in place or re.split(r"::|://", place)[0] in _CHAINED:
        return [place]
    parts = place.split("::")
    return list(text_from(parts, place.base)) if isinstance(place, TextFrom) else parts


def _as_carry(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return dict.fromkeys(value, "string")
    return value


Alias = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
Uris = Annotated[tuple[PathOrUri, ...], BeforeValidator(_as_places), Field(min_length=1)]
NamedUris = Annotated[dict[Alias, Uris], Field(min_length=1)]
Places = Annotated[
    Annotated[Uris, Tag("places")] | Annotated[NamedUris, Tag("named places")],
    Discriminator(lambda value: "named places" if isinstance(value, dict) else "places"),
]
Separator = Annotated[str, Field(min_length=1)] | None
CarryType = Literal["string", "int", "float", "bool"]
Carry = Annotated[dict[str, CarryType], BeforeValidator(_as_carry)]


class LabelsConfig(Settings):
    """A table of labels beside the images.

    Attributes:
        uri: CSV or Parquet file; COCO annotations (``instances_*.json``), whose categories are the
            labels; or CelebA's ``list_attr_celeba.txt``.
        key: column that names the image, by its image id without the alias, its key, or its file
            name, with or without extension; if not set, also a column with a usual name.
        label: column of labels; if not set, also a column with a usual name.
        columns: columns of yes or no, each named as the label that it stands for, instead of
            ``label``. An image has the labels of the columns that are 1 or true.
        separator: text between the labels of one cell, such as ``|``.
    """

    uri: PathOrUri
    key: str = "key"
    label: str = "label"
    columns: tuple[str, ...] = ()
    separator: Separator = None


@dataclass(frozen=True)
class Root:
    """A place of a source, and the alias with which its image ids begin; empty for none."""

    alias: str
    uri: str


class SourceConfig(Settings):
    """Where the images are.

    Attributes:
        format: ``webdataset`` (tar shards), ``folder`` (each file is an image, its folder is its
            class), ``parquet`` (images inside, as Hugging Face writes them) or ``list`` (CSV, TSV,
            JSONL or Parquet tables of image URIs).
        uri: one or several paths or URIs of files, folders, globs or brace ranges. A mapping gives
            each place an alias, with which its image ids begin:
            ``{photos: s3://a/x, scans: s3://b/x}``.
        alias: name of the data set, with which every image id begins, so that the data can move.
        image_field: the member of a tar's sample, or the column, that holds the image; default the
            first known one, and for a tar's sample every image in it.
        image_root: folder or URI that the relative paths in a table are relative to; default the
            table's folder (list, parquet).
        key_field: column that names an image within its file (parquet, list); default the row
            number (parquet) or the URI (list).
        label_field: field of a sample's JSON or a member of the sample (else ``cls``), or a column,
            that holds the label, or a list of labels; ``a.b`` is the field b of a.
        label_columns: columns or JSON fields of yes or no, each named as the label that it stands
            for, instead of ``label_field``. An image has the labels of those that are 1 or true.
        label_separator: text between several labels in one value, such as ``|``.
        caption_field: field of a sample's JSON or a member of the sample (else ``txt``), or a
            column, that holds the caption.
        label_names: names of integer labels, beginning with that of 0; default the names in a
            Hugging Face Parquet file. -1 means no label; other text stays as it is.
        labels: a table of labels, which replaces the labels in the source.
        carry: JSON fields or columns of the source that become columns of the output: a list
            (text), or ``name: type`` with the types string, int, float and bool.
        max_pixels: largest number of pixels; larger images (decompression bombs) are refused.
        decode: ``exact`` decodes every pixel; ``fast`` lets libjpeg decode a large JPEG at the
            smallest scale that still has twice the model's input along each side, which changes
            maps about as much as bf16 does.
        only: CSV or Parquet table whose column ``image_id`` names the only images to process.
        shards: glob; only files whose name, or path below the root, matches it are read.
        sample: number of images of every label in a random sample. The labels of tar shards are not
            known before reading, so there it is the total, spread evenly over the shards.
        sample_seed: seed of the sample; the same seed draws the same images on every attempt.
        limit: number of rows after which to stop, in the order of the files and of the sample.
        options: storage options of fsspec, or a group of them for each protocol
            (``{s3: {...}}``) where files are in several kinds of storage; never stored with the
            results.
    """

    format: Literal["webdataset", "folder", "parquet", "list"]
    uri: Places
    alias: Alias | None = None
    image_field: str | None = None
    image_root: PathOrUri | None = None
    key_field: str | None = None
    label_field: str = "label"
    label_columns: tuple[str, ...] = ()
    label_separator: Separator = None
    caption_field: str = "caption"
    label_names: tuple[str, ...] | None = None
    labels: LabelsConfig | None = None
    carry: Carry = Field(default_factory=dict)
    max_pixels: PositiveInt = 178_956_970
    decode: Literal["exact", "fast"] = "exact"
    only: PathOrUri | None = None
    shards: Annotated[str, Field(min_length=1)] | None = None
    sample: PositiveInt | None = None
    sample_seed: int = 0
    limit: PositiveInt | None = None
    options: StorageOptions = Field(default_factory=dict, repr=False)

    @model_validator(mode="after")
    def _columns_are_free(self) -> "SourceConfig":
        taken = [n for n in self.carry if n in RESERVED or n.startswith(PREFIXES)]
        if taken:
            raise ValueError(f"carry: {', '.join(taken)} would hide columns of the output")
        return self

    @model_validator(mode="after")
    def _keys_have_columns(self) -> "SourceConfig":
        if self.key_field is not None and self.format not in ("parquet", "list"):
            raise ValueError(f"key_field: only parquet and list have columns, not {self.format}")
        return self

    @model_validator(mode="after")
    def _named_or_drawn(self) -> "SourceConfig":
        if self.only is not None and (self.sample is not None or self.limit is not None):
            raise ValueError("only: names the images; sample and limit cannot be set with it")
        return self

    @property
    def roots(self) -> tuple[Root, ...]:
        """Every place of the source, in the order of the settings."""
        if isinstance(self.uri, dict):
            return tuple(Root(alias, uri) for alias, uris in self.uri.items() for uri in uris)
        return tuple(Root("", uri) for uri in self.uri)

    @property
    def uris(self) -> tuple[str, ...]:
        """All places, without their aliases."""
        return tuple(root.uri for root in self.roots)

    @property
    def id_prefix(self) -> str:
        """The prefix of every image id."""
        return f"{self.alias}/" if self.alias else ""

    def refuse_same_names(self, names: Sequence[str]) -> None:
        """Refuse names that two places share, as image ids are made of names relative to a place.

        Raises:
            UsageError: a name appears twice.
        """
        repeated = [name for name, count in Counter(names).items() if count > 1]
        if repeated:
            raise UsageError(
                f"source: {len(repeated)} file names are in more than one place of `uri` (first: "
                f"{repeated[0]}), so their images would share ids. Name one common folder, or give "
                "each place an alias: `uri: {a: PLACE, b: OTHER}`."
            )
