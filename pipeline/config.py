"""Pydantic models of a run's YAML; checked without torch and without Ray."""

import posixpath
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, PositiveInt, model_validator

from legrad import catalog
from legrad.queries import Query, Role
from legrad.settings import Settings
from pipeline.errors import UsageError
from pipeline.schema import CARRY_TYPES, OWN_LABEL, RESERVED

MAX_QUERIES = 256
DEMO_ALIAS = "demo"
"""Alias of the drawn data set, the one the mini model was trained for."""
WEIGHTS_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")


def _as_tuple(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


def _as_size(value: Any) -> Any:
    return (value, value) if isinstance(value, int) and not isinstance(value, bool) else value


def _as_carry(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return dict.fromkeys(value, "string")
    return value


Uris = Annotated[tuple[str, ...], BeforeValidator(_as_tuple), Field(min_length=1)]
Size = Annotated[tuple[PositiveInt, PositiveInt], BeforeValidator(_as_size)]
CarryType = Literal["string", "int", "float", "bool"]
Carry = Annotated[dict[str, CarryType], BeforeValidator(_as_carry)]


class ModelConfig(Settings):
    """Which model explains, and how.

    Attributes:
        name: open_clip's name, or ``mini`` (the demo's; it means nothing on other images).
        pretrained: open_clip tag, or a weights file (path or URI); none for ``mini``.
        image_size: input side or [height, width] in pixels; default the model's own.
        resize: ``squash`` (whole picture) or ``center_crop`` (as CLIP was trained).
        layers: how many last blocks are explained; default the model's own.
        precision: ``fp32``, ``bf16`` or ``fp16``.
    """

    name: str
    pretrained: str | None = None
    image_size: Size | None = None
    resize: Literal["squash", "center_crop"] = "squash"
    layers: PositiveInt | None = None
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"

    @model_validator(mode="after")
    def _fits_the_architecture(self) -> "ModelConfig":
        arch = catalog.architecture(self.name)
        if self.name == catalog.MINI and self.pretrained is not None:
            raise ValueError("pretrained: the mini model brings its own weights, leave it out")
        if self.name != catalog.MINI and not self.pretrained:
            raise ValueError(
                f"pretrained: model {self.name!r} needs an open_clip tag or a weights file"
            )
        size = self.image_size or arch.image_size
        if any(side % p for side, p in zip(size, arch.patch_size, strict=True)):
            raise ValueError(
                f"image_size {size[0]} x {size[1]}: expected multiples of the patch of "
                f"{self.name}, {arch.patch_size[0]} x {arch.patch_size[1]} pixels"
            )
        if self.layers is not None and self.layers > arch.layers:
            raise ValueError(f"layers {self.layers}: {self.name} has {arch.layers} blocks")
        return self

    @property
    def weights_file(self) -> str | None:
        """``pretrained`` where it names a file and not a tag."""
        text = self.pretrained or ""
        return text if text.endswith(WEIGHTS_SUFFIXES) or "/" in text else None


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


class StoreConfig(Settings):
    """What is kept.

    Attributes:
        embeddings: the image embedding, float16 (the audit's probe needs it).
        captions: the source's captions.
    """

    embeddings: bool = True
    captions: bool = True


class RuntimeConfig(Settings):
    """How the work is spread; changes no result.

    Attributes:
        actors: number of model replicas; ``auto``: one a GPU, else one for two cores, at most 8.
        gpus_per_actor: GPUs each replica reserves; ``auto``: 1 where the cluster has any.
        threads_per_actor: CPU threads of a replica without a GPU; ``auto``: cores / actors.
        batch_size: images explained at once.
        rows_per_part: rows of a Parquet part, the unit of commit; ``auto``: a minute of work.
        report_every: seconds between progress lines.
    """

    actors: PositiveInt | Literal["auto"] = "auto"
    gpus_per_actor: Annotated[float, Field(ge=0)] | Literal["auto"] = "auto"
    threads_per_actor: PositiveInt | Literal["auto"] = "auto"
    batch_size: PositiveInt = 32
    rows_per_part: PositiveInt | Literal["auto"] = "auto"
    report_every: Annotated[float, Field(gt=0)] = 10.0


class RunConfig(Settings):
    """One run: a source, a model, queries, and where the results go."""

    model: ModelConfig
    source: SourceConfig
    queries: tuple[Query, ...]
    output: str
    output_options: dict[str, Any] = Field(default_factory=dict, repr=False)
    store: StoreConfig = StoreConfig()
    runtime: RuntimeConfig = RuntimeConfig()

    @model_validator(mode="after")
    def _queries_are_sound(self) -> "RunConfig":
        if not self.queries:
            raise ValueError("queries: none given; name at least one class or cue")
        if len(self.queries) > MAX_QUERIES:
            raise ValueError(
                f"queries: {len(self.queries)}, at most {MAX_QUERIES} in one run; make several "
                "runs, they join on image_id"
            )
        counts = Counter(query.name for query in self.queries)
        twice = [name for name, count in counts.items() if count > 1]
        if twice:
            raise ValueError(f"queries: {', '.join(twice)} stand more than once")
        taken = [name for name in counts if name == OWN_LABEL or name in RESERVED]
        if taken:
            raise ValueError(f"queries: {', '.join(taken)} would clash with columns of the output")
        return self

    @model_validator(mode="after")
    def _output_is_elsewhere(self) -> "RunConfig":
        for uri in self.source.uri:
            if f"{self.output.rstrip('/')}/".startswith(f"{uri.rstrip('/')}/"):
                raise ValueError(
                    f"output {self.output} lies inside the source {uri}: the next attempt would "
                    "take the results for images"
                )
        return self

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the user should know before the run."""
        if self.model.name == catalog.MINI and self.source.alias != DEMO_ALIAS:
            return (
                "model mini was trained on the demo's drawn scenes only: on other images its "
                "scores and maps mean nothing. Set model.name and model.pretrained.",
            )
        return ()

    @property
    def labels(self) -> dict[str, str]:
        """Label of the data set -> name of its class query (the first one)."""
        named = [(q.label, q.name) for q in self.queries if q.role is Role.CLASS and q.label]
        return dict(reversed(named))


def is_uri(path: str) -> bool:
    """Whether a path has a scheme (``s3://``)."""
    return "://" in path


def absolute(path: str, base: Path) -> str:
    """A relative local path against a folder; URIs and absolute paths as they are."""
    if is_uri(path):
        return path
    return posixpath.normpath((base / Path(path).expanduser()).as_posix())
