"""Rename the tensors of ``CLIPModel``, ``SiglipModel`` and ``Siglip2Model`` to open_clip's names.

Attention keeps query, key and value in one matrix in open_clip and timm, and in three in
transformers; its projections to the embedding are transposed. `Siglip2Model` has a linear layer
over flattened patches (row, column, channel) where timm has a convolution.
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

Tensors = Mapping[str, Tensor]

_LAYER = re.compile(r"encoder\.layers\.(\d+)\.")
_OPEN_CLIP_BLOCK = {
    "layer_norm1": "ln_1", "layer_norm2": "ln_2", "self_attn.out_proj": "attn.out_proj",
    "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj",
}  # fmt: skip
_TIMM_BLOCK = {
    "layer_norm1": "norm1", "layer_norm2": "norm2", "self_attn.out_proj": "attn.proj",
    "mlp.fc1": "mlp.fc1", "mlp.fc2": "mlp.fc2",
}  # fmt: skip
_CLIP_IMAGE = {
    "embeddings.class_embedding": "class_embedding",
    "embeddings.patch_embedding.weight": "conv1.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "pre_layrnorm.weight": "ln_pre.weight", "pre_layrnorm.bias": "ln_pre.bias",
    "post_layernorm.weight": "ln_post.weight", "post_layernorm.bias": "ln_post.bias",
}  # fmt: skip
_TEXT = {
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "final_layer_norm.weight": "ln_final.weight", "final_layer_norm.bias": "ln_final.bias",
    "head.weight": "text_projection.weight", "head.bias": "text_projection.bias",
}  # fmt: skip
_SIGLIP_IMAGE = {
    "embeddings.patch_embedding.weight": "patch_embed.proj.weight",
    "embeddings.patch_embedding.bias": "patch_embed.proj.bias",
    "embeddings.position_embedding.weight": "pos_embed",
    "post_layernorm.weight": "norm.weight", "post_layernorm.bias": "norm.bias",
    "head.probe": "attn_pool.latent",
    "head.attention.out_proj.weight": "attn_pool.proj.weight",
    "head.attention.out_proj.bias": "attn_pool.proj.bias",
    "head.layernorm.weight": "attn_pool.norm.weight",
    "head.layernorm.bias": "attn_pool.norm.bias",
    "head.mlp.fc1.weight": "attn_pool.mlp.fc1.weight",
    "head.mlp.fc1.bias": "attn_pool.mlp.fc1.bias",
    "head.mlp.fc2.weight": "attn_pool.mlp.fc2.weight",
    "head.mlp.fc2.bias": "attn_pool.mlp.fc2.bias",
}  # fmt: skip


def converted(tensors: Tensors, kind: str, patch: int) -> dict[str, Tensor]:
    """The tensors under the names that the open_clip module has.

    Args:
        tensors: all of a model of transformers, by name.
        kind: its ``model_type``: ``clip``, ``siglip`` or ``siglip2``.
        patch: side of a patch in pixels.

    Raises:
        KeyError: a tensor is missing; the message is its name.
    """
    image, text = _below(tensors, "vision_model."), _below(tensors, "text_model.")
    if kind == "clip":
        state = _tower(image, _CLIP_IMAGE, "visual.") | _tower(text, _TEXT, "")
        state["visual.proj"] = tensors["visual_projection.weight"].T
        state["text_projection"] = tensors["text_projection.weight"].T
        return state | {"logit_scale": tensors["logit_scale"].reshape(())}
    weight = image["embeddings.patch_embedding.weight"]
    if weight.ndim == 2:
        rows = weight.reshape(len(weight), patch, patch, -1).permute(0, 3, 1, 2)
        image = {**image, "embeddings.patch_embedding.weight": rows}
    image = _with_batch(image)
    return {
        **_tower(image, _SIGLIP_IMAGE, "visual.trunk.", timm=True),
        **_pooler(image),
        **_tower(text, _TEXT, "text."),
        "logit_scale": tensors["logit_scale"].reshape(()),
        "logit_bias": tensors["logit_bias"].reshape(()),
    }


def siglip_image(tensors: Tensors) -> dict[str, Tensor]:
    """The vision tower of SigLIP under timm's names, without its pooler.

    Raises:
        KeyError: a tensor is missing; the message is its name.
    """
    image = _with_batch(_below(tensors, "vision_model."))
    plain = {key: value for key, value in image.items() if not key.startswith("head.")}
    return _tower(plain, _SIGLIP_IMAGE, "", timm=True)


def _with_batch(image: Tensors) -> dict[str, Tensor]:
    """The tensors with the positions as timm has them, (1, n, D)."""
    name = "embeddings.position_embedding.weight"
    return {**image, name: image[name][None]}


def _below(tensors: Tensors, prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _tower(
    tensors: Tensors, names: Mapping[str, str], prefix: str, *, timm: bool = False
) -> dict[str, Tensor]:
    state = {f"{prefix}{new}": tensors[old] for old, new in names.items() if old in tensors}
    layers = {int(match[1]) for key in tensors if (match := _LAYER.match(key))}
    for layer in layers:
        block = _below(tensors, f"encoder.layers.{layer}.")
        kept = f"{prefix}{'blocks' if timm else 'transformer.resblocks'}.{layer}."
        for old, new in (_TIMM_BLOCK if timm else _OPEN_CLIP_BLOCK).items():
            for part in ("weight", "bias"):
                state[f"{kept}{new}.{part}"] = block[f"{old}.{part}"]
        for part in ("weight", "bias"):
            joined = torch.cat([block[f"self_attn.{name}_proj.{part}"] for name in "qkv"])
            state[f"{kept}attn.{f'qkv.{part}' if timm else f'in_proj_{part}'}"] = joined
    return state


def _pooler(image: Tensors) -> dict[str, Tensor]:
    """The query's part of the pooler's attention, and that of keys and values."""
    state = {}
    for part in ("weight", "bias"):
        joined = image[f"head.attention.in_proj_{part}"]
        width = len(joined) // 3
        state[f"visual.trunk.attn_pool.q.{part}"] = joined[:width]
        state[f"visual.trunk.attn_pool.kv.{part}"] = joined[width:]
    return state
