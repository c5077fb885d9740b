"""An open_clip model with its preprocessing, tokenizer and tower adapter."""

import hashlib
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import open_clip
import torch
import torch.nn.functional as F
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from torch import Tensor, nn

from legrad.models.text_length import cut_texts
from legrad.preprocess import Preprocess
from legrad.towers import Tower, tower_of

Precision = Literal["fp32", "bf16", "fp16"]
Tokenizer = Callable[[list[str]], Tensor]
PUBLISHED_LAYERS = 2
_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class VisionLanguageModel:
    """An open_clip model, its preprocessing and its tokenizer; the module is never changed.

    Attributes:
        name: open_clip's model name, or ``mini``.
        pretrained: the tag or file its weights came from.
        model: the open_clip module, in the dtype of its weights.
        preprocess: PIL image -> uint8 (3, height, width).
        mean, std: per channel, in units of [0, 1] pixels; applied on the device.
        precision: ``fp32``, or autocast to ``bf16`` / ``fp16``.
        default_layers: how many of the last blocks LeGrad explains by default.
        known_tokens: ids of the tokens that occurred in training, if known; texts with other
            tokens give a warning.
        make_tokenizer: called when the first text is encoded.
    """

    name: str
    pretrained: str | None
    model: nn.Module
    preprocess: Preprocess
    mean: tuple[float, float, float] = OPENAI_DATASET_MEAN
    std: tuple[float, float, float] = OPENAI_DATASET_STD
    precision: Precision = "fp32"
    default_layers: int = PUBLISHED_LAYERS
    known_tokens: frozenset[int] | None = None
    make_tokenizer: Callable[[], Tokenizer] = field(default=open_clip.SimpleTokenizer, repr=False)

    @cached_property
    def tower(self) -> Tower:
        """The adapter through which LeGrad reads the vision tower."""
        return tower_of(self.model.get_submodule("visual"))

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
        """Device of the weights."""
        return self.tower.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the weights."""
        return self.tower.weight.dtype

    @property
    def exact_dtype(self) -> torch.dtype:
        """Dtype of scores, features and maps: float32, or float64 for float64 weights."""
        return torch.promote_types(self.dtype, torch.float32)

    @property
    def compute_dtype(self) -> torch.dtype:
        """Dtype of the matrix products at this precision."""
        return _AUTOCAST.get(self.precision, self.dtype)

    @property
    def logit(self) -> dict[str, float | None]:
        """Scale and bias that turn a score, a cosine, into the model's logit: scale * score + bias.

        SigLIP has a bias, CLIP has none (None).
        """
        scale = getattr(self.model, "logit_scale", None)
        bias = getattr(self.model, "logit_bias", None)
        return {
            "scale": None if scale is None else float(scale.detach().double().exp().mean()),
            "bias": None if bias is None else float(bias.detach().double().mean()),
        }

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of the names, dtypes, shapes and bytes of all weights."""
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
        if pixels.dtype != torch.uint8 and not pixels.is_floating_point():
            raise ValueError(f"pixels are {pixels.dtype}: expected uint8, or normalised floats")
        floats = self.moved(pixels).to(self.dtype)
        if pixels.is_floating_point():
            return floats
        mean, std = (self._per_channel(values) for values in (self.mean, self.std))
        return (floats / 255 - mean) / std

    def moved(self, tensor: Tensor) -> Tensor:
        """The tensor on the model's device.

        A copy to a GPU is asynchronous, from pinned memory. A copy to the CPU is synchronous, since
        code on the CPU would not wait for it.
        """
        onto_gpu = self.device.type == "cuda"
        if onto_gpu and tensor.device.type == "cpu":
            tensor = tensor.pin_memory()
        return tensor.to(self.device, non_blocking=onto_gpu)

    def _per_channel(self, values: tuple[float, float, float]) -> Tensor:
        """(3, 1, 1) on the device; made on the host, to copy it without waiting for the device."""
        row = torch.tensor(values, dtype=self.dtype)[:, None, None]
        return row.to(self.device, non_blocking=True)

    def encode_image(self, pixels: Tensor) -> Tensor:
        """Pixels (B, 3, height, width), as for `LeGrad.explain` -> (B, E) unit rows."""
        images = self.normalise(pixels)
        with torch.no_grad(), self.autocast():
            tokens = self.tower.tokens(images)
            (height, width), (down, across) = images.shape[2:], self.tower.patch_size
            for block in self.tower.blocks_at((height // down, width // across)):
                tokens = block(tokens)
            features = self.tower.embed(tokens)
        return F.normalize(features.to(self.exact_dtype), dim=-1)

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Texts -> (Q, E) unit rows on the model's device.

        Warns:
            UserWarning: a text has more tokens than the model reads, so that its end is cut off, or
                words that did not occur in training (mini model only).
        """
        if isinstance(texts, str):
            raise TypeError("encode_text takes a list of texts, not one string")
        tokens = self.tokenizer(list(texts))
        self._warn_cut(texts, tokens.shape[1])
        self._warn_unknown(texts, tokens)
        encode: Callable[[Tensor], Tensor] = self.model.get_submodule("").encode_text  # type: ignore[assignment]
        with torch.no_grad(), self.autocast():
            features = encode(tokens.to(self.device))
        return F.normalize(features.to(self.exact_dtype), dim=-1)

    def _warn_cut(self, texts: Sequence[str], context: int) -> None:
        cut = cut_texts(self.tokenizer, texts, context)
        if cut:
            warnings.warn(
                f"model {self.name!r} reads {context} tokens of a text, and the end is cut off of: "
                f"{', '.join(map(repr, cut))}",
                stacklevel=3,
            )

    def _warn_unknown(self, texts: Sequence[str], tokens: Tensor) -> None:
        if self.known_tokens is None:
            return
        unknown = [
            text
            for text, row in zip(texts, tokens.tolist(), strict=True)
            if not self.known_tokens.issuperset(row)
        ]
        if unknown:
            warnings.warn(
                f"model {self.name!r} never saw some words of: {', '.join(map(repr, unknown))}. "
                "Their scores and maps mean nothing.",
                stacklevel=3,
            )
