"""Small open_clip models in which every parameter matters."""

import math
from collections.abc import Mapping
from typing import Any

import open_clip
import torch
from torch import Tensor, nn

from tests.oracle import states

CONTEXT = 8
VOCABULARY = 64
TINY_TEXT: Mapping[str, Any] = {
    "context_length": CONTEXT,
    "vocab_size": VOCABULARY,
    "width": 16,
    "heads": 2,
    "layers": 1,
}

TOWERS: Mapping[str, dict[str, Any]] = {
    "gelu": {},
    "quick_gelu": {"quick_gelu": True},
    "tanh_gelu": {"act_kwargs": {"approximate": "tanh"}},
    "layer_scale": {"ls_init_value": 0.5},
    "epsilon": {"norm_kwargs": {"eps": 0.1}},
    "no_ln_pre": {"no_ln_pre": True},
    "average": {"pool_type": "avg"},
    "average_then_norm": {"pool_type": "avg", "final_ln_after_pool": True},
}
"""Kinds of tower that differ in their equations, as arguments of `tiny_clip`."""

LOGIT_STD = 3.0


def tiny_clip(
    seed: int,
    *,
    width: int = 48,
    layers: int | tuple[int, int, int, int] = 3,
    heads: int = 4,
    patch: int = 8,
    image_size: tuple[int, int] = (32, 32),
    embed_dim: int = 32,
    quick_gelu: bool = False,
    ls_init_value: float | None = None,
    pool_type: str = "tok",
    final_ln_after_pool: bool = False,
    act_kwargs: dict[str, Any] | None = None,
    norm_kwargs: dict[str, Any] | None = None,
    custom_text: bool = False,
    dtype: torch.dtype = torch.float64,
    **vision: Any,
) -> open_clip.CLIP | open_clip.CustomTextCLIP:
    """A CLIP with a tiny tower, every parameter drawn at random and peaked attention.

    `vision` holds further fields of open_clip's `CLIPVisionCfg`.
    """
    vision_cfg = {
        "width": width,
        "layers": layers,
        "head_width": width // heads,
        "patch_size": patch,
        "image_size": image_size,
        "ls_init_value": ls_init_value,
        "pool_type": pool_type,
        "final_ln_after_pool": final_ln_after_pool,
        "act_kwargs": act_kwargs,
        "norm_kwargs": norm_kwargs,
        **vision,
    }
    kind = open_clip.CustomTextCLIP if custom_text else open_clip.CLIP
    model = kind(embed_dim, vision_cfg, dict(TINY_TEXT), quick_gelu=quick_gelu)
    return randomise(model, seed).to(dtype).eval()


@torch.no_grad()
def randomise(model: nn.Module, seed: int) -> nn.Module:
    """Draw every parameter anew: no weight left at one, no bias left at zero."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.copy_(_draw(name, parameter, noise))
    return model


QUERIES_AND_KEYS = (
    *("in_proj_weight", "attn.qkv.weight"),
    *("q_proj.weight", "k_proj.weight", "q_proj_weight", "k_proj_weight"),
    *("attn_pool.q.weight", "attn_pool.kv.weight"),
)


def _query_and_key_rows(name: str, rows: int) -> int:
    """How many first rows make queries and keys; the others make values."""
    if name.endswith(("in_proj_weight", "qkv.weight")):
        return rows * 2 // 3
    return rows // 2 if name.endswith("kv.weight") else rows


def _draw(name: str, old: Tensor, noise: Tensor) -> Tensor:
    if name.endswith("gamma"):
        return old * (1 + 0.4 * noise)
    if name.endswith(QUERIES_AND_KEYS):
        scaled = noise / math.sqrt(old.shape[1])
        scaled[: _query_and_key_rows(name, len(old))] *= math.sqrt(LOGIT_STD)
        return scaled
    if name.endswith(("logit_scale", "logit_bias")):
        return old + 0.1 * noise
    if name.endswith(("cls_token", "latent", "attn_pool.query")):
        return noise
    if old.ndim < 2 and name.endswith("weight"):
        return 1 + 0.3 * noise
    if old.ndim < 2:
        return (1.0 if name.endswith("class_embedding") else 0.3) * noise
    if "embedding" in name or name.endswith("pos_embed"):
        return 0.7 * noise
    if name.endswith("proj"):
        return noise / math.sqrt(old.shape[0])
    return noise / math.sqrt(old[0].numel())


def images(
    seed: int, count: int, size: tuple[int, int] = (32, 32), dtype: torch.dtype = torch.float64
) -> Tensor:
    """Normalised pixels (count,3,H,W)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((count, 3, *size), generator=generator, dtype=torch.float64).to(dtype)


def raw_images(seed: int, count: int, size: tuple[int, int] = (32, 32)) -> Tensor:
    """Pixels (count,3,H,W) in uint8."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, *size), generator=generator, dtype=torch.uint8)


def unit_directions(
    seed: int, count: int, width: int = 32, dtype: torch.dtype = torch.float64
) -> Tensor:
    """Text features (count,width): unit rows."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn((count, width), generator=generator, dtype=torch.float64)
    return (rows / rows.norm(dim=-1, keepdim=True)).to(dtype)


@torch.no_grad()
def attention_entropy(model: nn.Module, pixels: Tensor) -> float:
    """Mean entropy of all attention rows as a fraction of log T, the entropy of a uniform row."""
    rows = torch.stack(
        [state.attention for image in pixels for state in states(model.visual, image)]
    )
    entropy = -torch.xlogy(rows, rows).sum(-1).mean()
    return float(entropy) / math.log(rows.shape[-1])


def tokenize(texts: list[str]) -> Tensor:
    """A toy tokenizer for the tiny text tower: bytes, then the highest id as the end of text."""
    tokens = torch.zeros(len(texts), CONTEXT, dtype=torch.long)
    for row, text in enumerate(texts):
        ids = [1 + byte % (VOCABULARY - 2) for byte in text.encode()][: CONTEXT - 1]
        tokens[row, : len(ids) + 1] = torch.tensor([*ids, VOCABULARY - 1])
    return tokens
