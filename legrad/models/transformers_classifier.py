"""Image classifiers of the package transformers as modules of timm, from a folder's files."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from legrad.errors import UnsupportedModelError
from legrad.models.transformers_folder import (
    ACTIVATIONS,
    CONFIG,
    INTERPOLATIONS,
    VISION_DEFAULTS,
    image_processor,
    mlp_ratio,
)
from legrad.models.transformers_weights import siglip_image

_CLASSES = {
    "vit": "ViTForImageClassification",
    "deit": "DeiTForImageClassification",
    "siglip": "SiglipForImageClassification",
}
_BILINEAR, _BICUBIC = 2, 3
_TOKENS = {  # (class token, registers); DeiT's distillation token is read by no class head
    "vit": (True, 0),
    "deit": (True, 1),
    "siglip": (False, 0),
}
_IMAGE = {
    "embeddings.cls_token": "cls_token",
    "embeddings.distillation_token": "reg_token",
    "embeddings.position_embeddings": "pos_embed",
    "embeddings.patch_embeddings.projection.weight": "patch_embed.proj.weight",
    "embeddings.patch_embeddings.projection.bias": "patch_embed.proj.bias",
    "layernorm.weight": "norm.weight",
    "layernorm.bias": "norm.bias",
}
_BLOCK = {
    "layernorm_before": "norm1", "layernorm_after": "norm2", "attention.output.dense": "attn.proj",
    "intermediate.dense": "mlp.fc1", "output.dense": "mlp.fc2",
}  # fmt: skip

Config = Mapping[str, Any]


def build(name: str, config: Config) -> nn.Module:
    """A timm module for the weights of a folder, with random weights.

    Args:
        name: how the user named the folder, for messages.
        config: content of its ``config.json``.

    Raises:
        UnsupportedModelError: it is of a class that is not covered.
    """
    kind, classes = config.get("model_type", ""), config.get("architectures") or []
    if kind not in _CLASSES or (classes and classes[0] != _CLASSES[kind]):
        written = classes[0] if classes else f"model_type {kind!r}"
        raise UnsupportedModelError(
            f"classifier {name}: its {CONFIG} is of {written}; of classifiers of the package "
            f"transformers {', '.join(_CLASSES.values())} are supported"
        )
    sizes = _sizes(config)
    if sizes["hidden_act"] not in ACTIVATIONS:
        raise UnsupportedModelError(
            f"classifier {name}: activation {sizes['hidden_act']!r}: expected one of "
            f"{', '.join(ACTIVATIONS)}"
        )
    class_token, registers = _TOKENS[kind]
    return VisionTransformer(
        img_size=sizes["image_size"],
        patch_size=sizes["patch_size"],
        embed_dim=sizes["hidden_size"],
        depth=sizes["num_hidden_layers"],
        num_heads=sizes["num_attention_heads"],
        mlp_ratio=mlp_ratio(sizes),
        qkv_bias=sizes.get("qkv_bias", True),
        act_layer=ACTIVATIONS[sizes["hidden_act"]],
        norm_layer=partial(nn.LayerNorm, eps=sizes["layer_norm_eps"]),
        class_token=class_token,
        reg_tokens=registers,
        global_pool="token" if class_token else "avg",
        fc_norm=False,
        num_classes=len(config.get("id2label") or range(2)),
    )


def _sizes(config: Config) -> dict[str, Any]:
    if config["model_type"] == "siglip":
        return VISION_DEFAULTS["siglip"] | dict(config.get("vision_config") or {})
    older = VISION_DEFAULTS["siglip"] | {"hidden_act": "gelu", "layer_norm_eps": 1e-12}
    return older | dict(config)


def renamed(kind: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under timm's names; query, key and value are joined.

    Args:
        kind: ``model_type`` of the config.
        tensors: weights under the names in the folder's file.

    Raises:
        ValueError: a tensor is missing.
    """
    head = {
        f"head.{part}": tensors[f"classifier.{part}"]
        for part in ("weight", "bias")
        if f"classifier.{part}" in tensors
    }
    try:
        if kind == "siglip":
            return siglip_image(tensors) | head
        return _vit(kind, tensors) | head
    except KeyError as error:
        raise ValueError(f"the weights of the folder lack {error}") from error


def _vit(kind: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    state = {
        new: tensors[f"{kind}.{old}"] for old, new in _IMAGE.items() if f"{kind}.{old}" in tensors
    }
    first = f"{kind}.encoder.layer."
    layers = {int(key[len(first) :].split(".")[0]) for key in tensors if key.startswith(first)}
    for layer in layers:
        old_block, block = f"{first}{layer}.", f"blocks.{layer}."
        for part in ("weight", "bias"):
            rows = [f"{old_block}attention.attention.{n}.{part}" for n in ("query", "key", "value")]
            if rows[0] in tensors:  # a config may leave these biases out
                state[f"{block}attn.qkv.{part}"] = torch.cat([tensors[name] for name in rows])
            for old, new in _BLOCK.items():
                state[f"{block}{new}.{part}"] = tensors[f"{old_block}{old}.{part}"]
    return state


def data_config(config: Config, folder: Path) -> dict[str, Any]:
    """timm's data settings for what the folder's image processor says.

    Args:
        config: content of the folder's ``config.json``.
        folder: the folder.
    """
    said = image_processor(folder)
    default = _BILINEAR if config["model_type"] == "vit" else _BICUBIC
    plain = said.get("do_normalize") is False
    size = _pair(said.get("size")) or _pair(_sizes(config)["image_size"])
    cropped = _pair(said.get("crop_size")) if said.get("do_center_crop") else None
    by_shortest = isinstance(said.get("size"), Mapping) and "shortest_edge" in said["size"]
    if size is None:
        raise ValueError(f"{folder}: the image processor's size {said.get('size')!r} is not known")
    return {
        "input_size": (3, *(cropped or size)),
        "crop_pct": 1.0 if cropped is None else cropped[0] / size[0],
        "crop_mode": "center" if by_shortest else "squash",
        "mean": [0.0] * 3 if plain else said.get("image_mean", [0.5] * 3),
        "std": [1.0] * 3 if plain else said.get("image_std", [0.5] * 3),
        "interpolation": INTERPOLATIONS.get(said.get("resample", default), "bicubic"),
    }


def _pair(size: Any) -> tuple[int, int] | None:
    """(height, width) of a size as image processors write it."""
    if isinstance(size, Mapping):
        side = size.get("shortest_edge")
        size = side if side else (size.get("height"), size.get("width"))
    pair = (size, size) if isinstance(size, int) else size
    return None if pair is None or None in pair else (int(pair[0]), int(pair[1]))
