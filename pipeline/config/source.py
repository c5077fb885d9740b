"""Settings of the source: where the images are."""

from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, PositiveInt, model_validator

from legrad.settings import Settings
from pipeline.errors import UsageError
from pipeline.schema import CARRY_TYPES, RESERVED


def _as_tuple(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


def _as_carry(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return dict.fromkeys(value, "string")
    return value


Uris = Annotated[tuple[str, ...], BeforeValidator(_as_tuple), Field(min_length=1)]
CarryType = Literal["string", "int", "float", "bool"]
Carry = Annotated[dict[str, CarryType], BeforeValidator(_as_carry)]


class SourceConfig(Settings):
    """Where the images are.

    Attributes:
        format: ``webdataset`` (tar shards) or ``folder`` (a file an image, class = folder).
        uri: path or URI, or several: file, folder, glob, brace range.
        alias: name of the data set; it begins every image id, and lets the data move.
        image_field: extension of the image member of a sample; default the first known one.
        label_field: field of the sample's JSON, or a member of its own; else its ``cls`` member.
        caption_field: field of the sample's JSON; else its ``txt`` member.
        carry: fields of the sample's JSON that become columns: a list (text), or name: type with
            string, int, float, bool.
        max_pixels: larger images are refused (decompression bombs).
        options: storage options for fsspec; never stored with the results.
    """

    format: Literal["webdataset", "folder"]
    uri: Uris
    alias: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] | None = None
    image_field: Annotated[str, AfterValidator(str.lower)] | None = None
    label_field: str = "label"
    caption_field: str = "caption"
    carry: Carry = Field(default_factory=dict)
    max_pixels: PositiveInt = 178_956_970
    options: dict[str, Any] = Field(default_factory=dict, repr=False)

    @model_validator(mode="after")
    def _columns_are_free(self) -> "SourceConfig":
        taken = [n for n in self.carry if n in RESERVED or n.startswith(("score__", "heatmap"))]
        if taken:
            raise ValueError(f"carry: {', '.join(taken)} would hide columns of the output")
        if not set(self.carry.values()) <= set(CARRY_TYPES):
            raise ValueError(f"carry: types are {', '.join(CARRY_TYPES)}")
        return self

    @property
    def id_prefix(self) -> str:
        """What begins every image id."""
        return f"{self.alias}/" if self.alias else ""

    def refuse_same_names(self, names: Sequence[str]) -> None:
        """Image ids are made of names relative to a root; two roots may not share one.

        Raises:
            UsageError: a name stands twice.
        """
        twice = [name for name, count in Counter(names).items() if count > 1]
        if twice:
            raise UsageError(
                f"source: {len(twice)} file names stand in more than one place of `uri` (first: "
                f"{twice[0]}), so their images would share ids. Name one common folder, or make "
                "one run a folder."
            )
