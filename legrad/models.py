"""load_model(): an open_clip model with its own preprocessing, tokenizer and tower adapter."""

import hashlib
import logging
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, get_args

import open_clip
import torch
import torch.nn.functional as F
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from torch import Tensor, nn

from legrad import catalog
from legrad.preprocess import Preprocess, ResizeMode
from legrad.towers import ClipTower
from legrad.weights import is_weights_uri, model_with_weights

Precision = Literal["fp32", "bf16", "fp16"]
Tokenizer = Callable[[list[str]], Tensor]
_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
_PUBLISHED_LAYERS = 2
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class VisionLanguageModel:
    """An open_clip model and what goes with it; the module is never changed.

    Attributes:
        name: open_clip's model name, or ``mini``.
        pretrained: the tag or file its weights came from.
        model: the open_clip module, in the dtype of its weights.
        preprocess: PIL image -> uint8 (3, height, width).
        mean, std: per channel, in units of [0, 1] pixels; applied on the device.
        precision: ``fp32``, or autocast to ``bf16`` / ``fp16``.
        default_layers: how many last blocks LeGrad explains unless told otherwise.
        known_tokens: token ids seen in training, where known; others give a warning.
    """

    name: str
    pretrained: str | None
    model: nn.Module
    preprocess: Preprocess
    mean: tuple[float, float, float] = OPENAI_DATASET_MEAN
    std: tuple[float, float, float] = OPENAI_DATASET_STD
    precision: Precision = "fp32"
    default_layers: int = _PUBLISHED_LAYERS
    known_tokens: frozenset[int] | None = None
    make_tokenizer: Callable[[], Tokenizer] = field(default=open_clip.SimpleTokenizer, repr=False)

    @cached_property
    def tower(self) -> ClipTower:
        """The adapter that LeGrad reads the vision tower through."""
        return ClipTower(self.model.get_submodule("visual"))

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The model's own tokenizer: list of N strings -> (N, context) int64."""
        return self.make_tokenizer()

    @property
    def grid(self) -> tuple[int, int]:
        """(h, w) of the maps at the model's input size."""
        (height, width), (patch_h, patch_w) = self.preprocess.size, self.tower.patch_size
        return height // patch_h, width // patch_w

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.tower.projection.device

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return self.tower.projection.dtype

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) over names, dtypes, shapes and bytes of all weights."""
        sha = hashlib.sha256()
        for name, tensor in sorted(self.model.state_dict().items()):
            flat = tensor.detach().cpu().contiguous()
            sha.update(f"{name}|{flat.dtype}|{tuple(flat.shape)}|".encode())
            sha.update(flat.reshape(-1).view(torch.uint8).numpy())
        return sha.hexdigest()

    def autocast(self) -> AbstractContextManager[Any]:
        """The context a forward pass runs in at this precision."""
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=_AUTOCAST[self.precision])

    def normalise(self, pixels: Tensor) -> Tensor:
        """Move to the device; uint8 (B, 3, height, width) becomes normalised floats there."""
        if pixels.is_floating_point():
            return pixels.to(self.device, self.dtype)
        if pixels.dtype != torch.uint8:
            raise ValueError(f"pixels are {pixels.dtype}: expected uint8, or normalised floats")
        if self.device.type == "cuda" and pixels.device.type == "cpu":
            pixels = pixels.pin_memory()
        floats = pixels.to(self.device, non_blocking=True).to(self.dtype)
        mean = torch.tensor(self.mean, dtype=self.dtype, device=self.device)[:, None, None]
        std = torch.tensor(self.std, dtype=self.dtype, device=self.device)[:, None, None]
        return (floats / 255 - mean) / std

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Texts -> (Q, E) unit rows on the model's device.

        Warns:
            UserWarning: a text has words the model never saw (known for the mini model).
        """
        if isinstance(texts, str):
            raise TypeError("encode_text takes a list of texts, not one string")
        tokens = self.tokenizer(list(texts))
        self._warn_unknown(texts, tokens)
        encode: Callable[[Tensor], Tensor] = self.model.get_submodule("").encode_text  # type: ignore[assignment]
        with torch.no_grad(), self.autocast():
            features = encode(tokens.to(self.device))
        return F.normalize(features.to(self.dtype), dim=-1)

    def _warn_unknown(self, texts: Sequence[str], tokens: Tensor) -> None:
        if self.known_tokens is None:
            return
        strange = [
            text
            for text, row in zip(texts, tokens.tolist(), strict=True)
            if not self.known_tokens.issuperset(row)
        ]
        if strange:
            warnings.warn(
                f"model {self.name!r} never saw some words of: {', '.join(map(repr, strange))}. "
                "Their scores and maps mean nothing.",
                stacklevel=3,
            )


def load_model(
    name: str,
    pretrained: str | None = None,
    *,
    image_size: int | tuple[int, int] | None = None,
    device: str | torch.device | None = None,
    precision: Precision = "fp32",
    resize: ResizeMode = "squash",
) -> VisionLanguageModel:
    """Load a model by name.

    Args:
        name: open_clip's name of an architecture (``ViT-B-32``), or ``mini``, the embedded one.
        pretrained: an open_clip tag (``laion2b_s34b_b88k``; fetched from the hub), or a weights
            file at a path or any fsspec URI: ``.safetensors``, or ``.pt``/``.pth``/``.bin``, which
            are only read with ``weights_only=True``. None for ``mini``.
        image_size: input side, or (height, width), in pixels; default the model's own. Any
            multiple of the patch: positional embeddings are interpolated, the module stays as is.
        device: torch device; default CUDA where there is one, else the CPU.
        precision: ``fp32``, or autocast to ``bf16`` / ``fp16``.
        resize: how an image is brought to the input size, see `Preprocess`.

    Raises:
        UnsupportedModelError: unknown name, or no closed form for its vision tower.
        FileNotFoundError: the weights file is not there.
        ValueError: ``image_size``, ``precision``, ``pretrained`` or the weights do not fit.
    """
    _check_precision(precision)
    arch = catalog.architecture(name)
    size = _checked_size(image_size, arch.image_size, arch.patch_size)
    target = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if name == catalog.MINI:
        if pretrained is not None:
            raise ValueError(f"pretrained={pretrained!r}: the mini model brings its own weights")
        return _load_mini(size, target, precision, resize)
    module = _create(name, pretrained)
    config: dict[str, Any] = module.visual.preprocess_cfg  # type: ignore[union-attr, assignment]
    return VisionLanguageModel(
        name=name,
        pretrained=pretrained,
        model=module.eval().to(target),
        preprocess=Preprocess(size, resize, config.get("interpolation", "bicubic")),
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        precision=precision,
        make_tokenizer=lambda: open_clip.get_tokenizer(name),
    )


def from_open_clip(
    module: nn.Module,
    *,
    tokenizer: Tokenizer | None = None,
    name: str = "custom",
    image_size: int | tuple[int, int] | None = None,
    device: str | torch.device | None = None,
    precision: Precision = "fp32",
    mean: tuple[float, float, float] = OPENAI_DATASET_MEAN,
    std: tuple[float, float, float] = OPENAI_DATASET_STD,
) -> VisionLanguageModel:
    """Wrap an open_clip module that is already in memory (a fine-tuned one, say).

    Args:
        device: where to move the module to; default: it stays where it is.

    Raises:
        UnsupportedModelError: no closed form for its vision tower.
        ValueError: ``image_size`` is not a multiple of the patch, or no such ``precision``.
    """
    _check_precision(precision)
    visual = module.get_submodule("visual")
    tower = ClipTower(visual)
    native: tuple[int, int] = tower.visual.image_size
    size = _checked_size(image_size, native, tower.patch_size)
    return VisionLanguageModel(
        name=name,
        pretrained=None,
        model=module if device is None else module.to(device),
        preprocess=Preprocess(size),
        mean=mean,
        std=std,
        precision=precision,
        make_tokenizer=(lambda: tokenizer) if tokenizer else open_clip.SimpleTokenizer,
        default_layers=min(_PUBLISHED_LAYERS, len(tower.blocks)),
    )


def _load_mini(
    size: tuple[int, int], device: torch.device, precision: Precision, resize: ResizeMode
) -> VisionLanguageModel:
    from legrad.mini import loader  # its world and weights are of no use to other models

    mini = loader.load()
    return VisionLanguageModel(
        name=catalog.MINI,
        pretrained=None,
        model=mini.model.to(device),
        preprocess=Preprocess(size, resize),
        mean=mini.mean,
        std=mini.std,
        precision=precision,
        default_layers=mini.default_layers,
        known_tokens=mini.known_tokens,
        make_tokenizer=lambda: mini.tokenizer,
    )


def _create(name: str, pretrained: str | None) -> nn.Module:
    """The open_clip module on the CPU, weights loaded."""
    if pretrained is None:
        raise ValueError(
            f"model {name!r} needs pretrained=: an open_clip tag such as "
            f"{_a_tag(name)!r}, or a weights file"
        )
    if is_weights_uri(pretrained):
        return model_with_weights(name, pretrained)
    tags = open_clip.list_pretrained_tags_by_model(name)
    if pretrained not in tags:
        raise ValueError(
            f"pretrained={pretrained!r}: no such tag for {name!r} and not a weights file "
            f"(.safetensors, .pt, .pth, .bin); tags: {', '.join(tags) or 'none'}"
        )
    quick = bool(open_clip.get_pretrained_cfg(name, pretrained).get("quick_gelu", False))
    tagged: nn.Module = open_clip.create_model(  # some tags want another GELU than the name says
        name, pretrained=pretrained, device="cpu", force_quick_gelu=quick
    )
    return tagged


def _check_precision(precision: str) -> None:
    if precision not in get_args(Precision):
        raise ValueError(f"precision {precision!r}: expected one of {get_args(Precision)}")


def _a_tag(name: str) -> str:
    tags = open_clip.list_pretrained_tags_by_model(name)
    return tags[-1] if tags else "path/to/weights.safetensors"


def _checked_size(
    wanted: int | tuple[int, int] | None, native: tuple[int, int], patch: tuple[int, int]
) -> tuple[int, int]:
    size = native if wanted is None else (wanted, wanted) if isinstance(wanted, int) else wanted
    if any(side <= 0 or side % p for side, p in zip(size, patch, strict=True)):
        raise ValueError(
            f"image_size {size[0]} x {size[1]}: expected multiples of the patch, "
            f"{patch[0]} x {patch[1]} pixels"
        )
    return size
