"""Settings of the model whose heatmaps are computed."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, PositiveInt, ValidationInfo, model_validator

from legrad.models import catalog
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


def _as_tokenizer(value: Any, info: ValidationInfo) -> Any:
    """The absolute path of an existing folder; another text is a name on the hub."""
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
    tokenizer: Annotated[str | None, BeforeValidator(_as_tokenizer)] = None

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
