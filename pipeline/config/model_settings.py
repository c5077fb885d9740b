"""Settings of the model whose heatmaps are computed: a vision-language model or a classifier."""

from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Discriminator,
    PositiveInt,
    Tag,
    ValidationInfo,
    model_validator,
)

from legrad.models import catalog
from legrad.models.catalog import Architecture
from legrad.models.definition import FOLDER_PREFIX, MINI, Definition, define, is_location, is_name
from legrad.models.tokenizers import check_tokenizer
from legrad.preprocess import ResizeMode
from legrad.settings import WEIGHTS_SUFFIXES, Settings, TextFrom, is_weights_uri, resolved


def _as_size(value: Any) -> Any:
    return (value, value) if isinstance(value, int) and not isinstance(value, bool) else value


def _as_name(value: Any, info: ValidationInfo) -> Any:
    """The absolute path of a JSON file or a folder; a name of open_clip or the hub stays."""
    if not isinstance(value, str) or is_name(value):
        return value
    path = value.removeprefix(FOLDER_PREFIX)
    text = TextFrom(path, value.base) if isinstance(value, TextFrom) else path
    absolute_path = resolved(text, info)
    if value != path:
        return f"{FOLDER_PREFIX}{absolute_path}"
    return absolute_path if is_location(value) or Path(absolute_path).is_dir() else value


def _as_weights(value: Any, info: ValidationInfo) -> Any:
    """The absolute path of a weights file; a tag stays as it is."""
    return resolved(value, info) if isinstance(value, str) and is_weights_uri(value) else value


def _as_folder(value: Any, info: ValidationInfo) -> Any:
    """The absolute path of an existing folder; another text is a name or ``module:function``."""
    folder = resolved(value, info)
    return folder if isinstance(folder, str) and Path(folder).is_dir() else value


Size = Annotated[tuple[PositiveInt, PositiveInt], BeforeValidator(_as_size)]


class ModelConfig(Settings):
    """Which model is used, and how.

    Attributes:
        name: open_clip's name; a JSON file with a model config (path or URI); a folder with
            ``open_clip_config.json`` and weights, or with a CLIPModel, SiglipModel or Siglip2Model
            of transformers; ``hf-hub:ORG/NAME``; or ``mini``, the demo's model, whose maps mean
            nothing on other images.
        pretrained: open_clip tag or weights file (path or URI); none for ``mini``, and for the
            weights that are in a folder or a repository.
        tag: open_clip tag that a weights file was trained from: its activation, mean, standard
            deviation and interpolation are taken. Needed only where the tags of a name differ.
        image_size: side or [height, width] of the input, in pixels; default the model's own.
        resize: ``squash`` (whole picture), ``center_crop`` (as CLIP was trained) or ``pad`` (whole
            picture with its aspect ratio kept; the padding has no heat).
        layers: number of last blocks that are explained; default the model's own.
        precision: ``fp32``, ``bf16`` or ``fp16``.
        tokenizer: folder of a Hugging Face tokenizer, or a name on the hub, for models that have
            one (SigLIP, CLIPA, ...); default the model's own, from the hub.
    """

    name: Annotated[str, BeforeValidator(_as_name)]
    pretrained: Annotated[str | None, BeforeValidator(_as_weights)] = None
    tag: str | None = None
    image_size: Size | None = None
    resize: ResizeMode = "squash"
    layers: PositiveInt | None = None
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    tokenizer: Annotated[str | None, BeforeValidator(_as_folder)] = None

    @model_validator(mode="after")
    def _fits_the_architecture(self) -> "ModelConfig":
        arch = catalog.architecture(self.name)
        check_tokenizer(self.name, self.tokenizer)
        if self.name == MINI and self.pretrained is not None:
            raise ValueError("pretrained: the mini model has its own weights; leave this out")
        self._check_weights(define(self.name))
        size = self.image_size or arch.image_size
        if any(side % p for side, p in zip(size, arch.patch_size, strict=True)):
            raise ValueError(
                f"image_size {size[0]} x {size[1]}: expected multiples of the patch of "
                f"{self.name}, {arch.patch_size[0]} x {arch.patch_size[1]} pixels"
            )
        if self.layers is not None and self.layers > arch.layers:
            raise ValueError(f"layers {self.layers}: {self.name} has {arch.layers} blocks")
        return self

    def _check_weights(self, definition: Definition) -> None:
        """Raise ValueError unless it is clear which weights are meant."""
        if self.pretrained and not definition.built_in and not self.weights_file:
            raise ValueError(
                f"pretrained {self.pretrained}: only names of open_clip have tags; for "
                f"{self.name} give a weights file ({', '.join(WEIGHTS_SUFFIXES)})"
                + (", or leave this out" if definition.holds_weights else "")
            )
        if self.tag and not (definition.built_in and self.weights_file):
            raise ValueError(f"tag {self.tag}: only a weights file for a name of open_clip has one")
        if self.pretrained or self.name == MINI:
            return
        if definition.folder is not None:
            definition.weights_files()
        elif not definition.holds_weights:
            tag = "an open_clip tag or " if definition.built_in else ""
            raise ValueError(f"pretrained: model {self.name!r} needs {tag}a weights file")

    @property
    def weights_file(self) -> str | None:
        """``pretrained`` where it names a file and not a tag."""
        return self.pretrained if is_weights_uri(self.pretrained or "") else None

    @property
    def architecture(self) -> Architecture:
        """Sizes of the model."""
        return catalog.architecture(self.name)

    @property
    def about(self) -> dict[str, Any]:
        """Settings that a run's metadata hold beside those of both kinds."""
        return {"tag": self.tag, "tokenizer": self.tokenizer}


CLASSIFIER = "classifier"


def _as_names(value: Any, info: ValidationInfo) -> Any:
    """A list as it is; the absolute path of a file or folder that lists the classes."""
    return resolved(value, info) if isinstance(value, str) else value


class ClassifierConfig(Settings):
    """Which classifier is explained, and how; see docs/classifiers.md.

    The settings are checked by loading it, once.

    Attributes:
        kind: ``classifier``.
        name: timm's name of a ViT; a folder that timm or transformers wrote; or
            ``module:function``, which returns the module.
        checkpoint: weights file (path or URI) of a training script; none for the weights in the
            folder, those of the function's module, or timm's published ones.
        num_classes: number of classes; default the size of the checkpoint's class head.
        classes: names of the classes in the order of the logits, or the file or folder that lists
            them; default those in the checkpoint or folder. They must be the labels of the data.
        image_size: side or [height, width] of the input, in pixels; default the model's own.
        resize: as for a vision-language model; default the one in the model's data settings.
        layers: number of last blocks that are explained; default 2.
        precision: ``fp32``, ``bf16`` or ``fp16``.
    """

    kind: Literal["classifier"]
    name: Annotated[str, BeforeValidator(_as_folder)]
    checkpoint: Annotated[str | None, BeforeValidator(resolved)] = None
    num_classes: PositiveInt | None = None
    classes: Annotated[tuple[str, ...] | str | None, BeforeValidator(_as_names)] = None
    image_size: Size | None = None
    resize: ResizeMode | None = None
    layers: PositiveInt | None = None
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"

    @model_validator(mode="after")
    def _can_be_loaded(self) -> "ClassifierConfig":
        blocks = self.architecture.layers
        if self.layers is not None and self.layers > blocks:
            raise ValueError(f"layers {self.layers}: {self.name} has {blocks} blocks")
        return self

    @property
    def pretrained(self) -> str | None:
        """The weights file, as vision-language models call it."""
        return self.checkpoint

    @property
    def weights_file(self) -> str | None:
        """The weights file, without the part of it that is read."""
        return None if self.checkpoint is None else self.checkpoint.partition("#")[0]

    @property
    def architecture(self) -> Architecture:
        """Sizes of the model."""
        return _facts(self.arguments)[0]

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes in the order of the logits."""
        return _facts(self.arguments)[1]

    @property
    def about(self) -> dict[str, Any]:
        """See `ModelConfig.about`."""
        return {"kind": self.kind, "classes": list(self.class_names), "resize": self.resize}

    @property
    def arguments(self) -> tuple[tuple[str, Any], ...]:
        """Arguments of `load_classifier`, by name."""
        names = ("name", "checkpoint", "num_classes", "classes", "image_size", "resize")
        return tuple((name, getattr(self, name)) for name in names)


@cache
def _facts(arguments: tuple[tuple[str, Any], ...]) -> tuple[Architecture, tuple[str, ...]]:
    """Sizes and classes of a classifier, which is loaded for them and dropped again."""
    from legrad.models.load_classifier import load_classifier  # imports torch

    try:
        model = load_classifier(**dict(arguments), device="cpu")
    except FileNotFoundError as error:
        raise ValueError(str(error)) from error
    tower = model.tower
    sizes = Architecture(
        name=model.name,
        image_size=model.preprocess.size,
        patch_size=tower.patch_size,
        layers=len(tower.blocks),
        width=tower.width,
        embed_dim=tower.embed_dim,
        family=type(model.model).__name__,
        parameters=sum(weights.numel() for weights in model.model.parameters()),
    )
    return sizes, model.classes


def _kind(value: Any) -> str:
    kind = value.get("kind") if isinstance(value, dict) else getattr(value, "kind", None)
    return CLASSIFIER if kind == CLASSIFIER else "vision_language"


AnyModelConfig = Annotated[
    Annotated[ModelConfig, Tag("vision_language")] | Annotated[ClassifierConfig, Tag(CLASSIFIER)],
    Discriminator(_kind),
]
"""Settings of either kind of model; those with ``kind: classifier`` are of a classifier."""
