"""A vision model that LeGrad explains: module, preprocessing, precision and tower adapter."""

import hashlib
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from legrad.preprocess import Preprocess
from legrad.towers import Tower

Precision = Literal["fp32", "bf16", "fp16"]
PUBLISHED_LAYERS = 2
_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, kw_only=True)
class VisionModel(ABC):
    """What a vision-language model and a classifier have in common; the module is never changed.

    Attributes:
        name: name of the model, as the user gave it.
        pretrained: the tag or file its weights came from.
        model: the module, in the dtype of its weights.
        preprocess: PIL image -> uint8 (3, height, width).
        mean, std: per channel, in units of [0, 1] pixels; applied on the device.
        precision: ``fp32``, or autocast to ``bf16`` / ``fp16``.
        default_layers: how many of the last blocks LeGrad explains by default.
    """

    name: str
    pretrained: str | None
    model: nn.Module
    preprocess: Preprocess
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    precision: Precision = "fp32"
    default_layers: int = PUBLISHED_LAYERS

    @property
    @abstractmethod
    def tower(self) -> Tower:
        """The adapter through which LeGrad reads the vision tower."""

    def finished(self, embedded: Tensor) -> Tensor:
        """Embeddings (B, E) as scores need them: at unit length, except for a classifier."""
        return F.normalize(embedded, dim=-1) if self.tower.head.normalised else embedded

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
        """Pixels (B, 3, height, width), as for `LeGrad.explain` -> (B, E), see `finished`."""
        images = self.normalise(pixels)
        with torch.no_grad(), self.autocast():
            tokens = self.tower.tokens(images)
            (height, width), (down, across) = images.shape[2:], self.tower.patch_size
            for block in self.tower.blocks_at((height // down, width // across)):
                tokens = block(tokens)
            features = self.tower.embed(tokens)
        return self.finished(features.to(self.exact_dtype))


def check_precision(precision: str) -> None:
    """Raise ValueError unless the precision is known."""
    if precision not in get_args(Precision):
        raise ValueError(f"precision {precision!r}: expected one of {get_args(Precision)}")
