"""Tokens, heads and blocks that the timm transformers in open_clip's ``TimmModel`` share."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers.mlp import Mlp as TimmMlp
from timm.layers.pos_embed import resample_abs_pos_embed
from timm.layers.pos_embed_sincos import apply_rot_embed_cat
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from legrad.towers.base import (
    Block,
    Head,
    Mix,
    PlainBlock,
    Tower,
    layer_norm,
    layer_scale,
    unsupported,
)

Bias = Callable[[], Tensor] | None


class TimmTower(Tower):
    """Patches or a convolutional stem, prefix tokens, positions, blocks, a linear head.

    A subclass describes its blocks. If the tower pools a token or averages, LeGrad applies the
    head to the mean of all tokens, as for CLIP.

    Args:
        visual: open_clip's ``TimmModel``, or timm's module itself: a classifier, whose embedding is
            what its last linear layer gets.

    Raises:
        UnsupportedModelError: a part is of a kind that is not covered.
    """

    def __init__(self, visual: Any) -> None:
        self.visual: Any = visual
        self.trunk: Any = getattr(visual, "trunk", visual)
        self._check()
        self.prefix = int(self.trunk.num_prefix_tokens)
        self.blocks: Sequence[Block] = [self._block(module) for module in self.trunk.blocks]
        norm = self._final_norm()
        if self.trunk is visual:
            self.head = Head(norm, None, normalised=False)
        else:
            self.head = Head(norm, *_linear(visual))

    @abstractmethod
    def _block(self, module: Any) -> Block:
        """The adapter of one block of the trunk."""

    def _check(self) -> None:
        """Raise UnsupportedModelError unless the trunk pools as its family does."""
        if self.trunk.global_pool not in ("token", "avg"):
            raise unsupported(f"pools by {self.trunk.global_pool!r}")

    def _final_norm(self) -> nn.LayerNorm | None:
        """The norm before or after the pooling; exactly one of the two is expected."""
        norms = [n for n in (self.trunk.norm, self.trunk.fc_norm) if not isinstance(n, nn.Identity)]
        if len(norms) != 1:
            raise unsupported(f"has {len(norms)} final norms")
        return layer_norm(norms[0], "final norm")

    @property
    def weight(self) -> Tensor:
        """See `Tower.weight`."""
        weight: Tensor = self.trunk.blocks[0].attn.proj.weight
        return weight

    @property
    def width(self) -> int:
        """See `Tower.width`."""
        return int(self.trunk.embed_dim)

    @property
    def embed_dim(self) -> int:
        """See `Tower.embed_dim`."""
        head = self.head if self.pooler is None else self.pooler.head
        return self.width if head.matrix is None else int(head.matrix.shape[1])

    @property
    def native_grid(self) -> tuple[int, int]:
        """See `Tower.native_grid`."""
        h, w = self.trunk.patch_embed.grid_size
        return int(h), int(w)

    @property
    def patch_size(self) -> tuple[int, int]:
        """See `Tower.patch_size`; for a convolutional stem, its stride."""
        stem = self.trunk.patch_embed
        down, across = stem.patch_size
        ratio = getattr(stem, "feature_ratio", (1, 1))
        return int(down * ratio[0]), int(across * ratio[1])

    def tokens(self, pixels: Tensor) -> Tensor:
        """See `Tower.tokens`.

        Raises:
            ValueError: a batch norm of the stem is in training mode and would change.
        """
        patches = self._stem(pixels)
        grid = (int(patches.shape[2]), int(patches.shape[3]))
        patches = patches.flatten(2).transpose(1, 2)
        patches = getattr(self.trunk.patch_embed, "norm", nn.Identity())(patches)
        position = self._positions(grid)
        if position is None:
            return self._normed(self._prefixed(patches))
        if position.shape[1] == patches.shape[1]:  # the prefix tokens have none
            return self._normed(self._prefixed(patches + position))
        return self._normed(self._prefixed(patches) + position)

    def _stem(self, pixels: Tensor) -> Tensor:
        stem = self.trunk.patch_embed
        backbone = getattr(stem, "backbone", None)
        if backbone is None:
            flat: Tensor = stem.proj(pixels)
            return flat
        if any(m.training for m in backbone.modules() if isinstance(m, _BatchNorm)):
            raise ValueError(
                "the model is in training mode, in which its batch norms would change: call "
                "model.eval() first"
            )
        patches: Tensor = stem.proj(backbone(pixels))
        return patches

    def _prefixed(self, patches: Tensor) -> Tensor:
        prefix = [self.trunk.cls_token, getattr(self.trunk, "reg_token", None)]
        rows = [row.expand(len(patches), -1, -1) for row in prefix if row is not None]
        return torch.cat([*rows, patches], dim=1) if rows else patches

    def _normed(self, tokens: Tensor) -> Tensor:
        norm = getattr(self.trunk, "norm_pre", None)
        return tokens if norm is None else norm(tokens)

    def _positions(self, grid: tuple[int, int]) -> Tensor | None:
        """(1, n or T, D); for a grid other than the native one interpolated as timm does it."""
        position: Tensor | None = getattr(self.trunk, "pos_embed", None)
        if position is None or grid == self.native_grid:
            return position
        patches = self.native_grid[0] * self.native_grid[1]
        resized: Tensor = resample_abs_pos_embed(
            position,
            new_size=list(grid),
            old_size=list(self.native_grid),
            num_prefix_tokens=position.shape[1] - patches,
        )
        return resized

    def embed(self, tokens: Tensor) -> Tensor:
        """See `Tower.embed`."""
        if self.pooler is not None:
            return self.pooler(tokens)
        tokens = self.trunk.norm(tokens)
        include_prefix = getattr(self.trunk, "pool_include_prefix", False)
        if self.trunk.global_pool == "token":
            pooled = tokens[:, 0]
        else:
            pooled = tokens[:, 0 if include_prefix else self.prefix :].mean(dim=1)
        return self.head.project(self.trunk.fc_norm(pooled))


def _linear(visual: Any) -> tuple[Tensor | None, Tensor | None]:
    """Matrix (D, E) and bias of the linear layer after the pooling, if there is one."""
    after_pooling = [visual.trunk.head, *visual.head.children()]
    linear = [m for m in after_pooling if not isinstance(m, nn.Identity | nn.Dropout)]
    if not linear:
        return None, None
    if len(linear) > 1 or not isinstance(linear[0], nn.Linear):
        names = ", ".join(type(m).__name__ for m in linear)
        raise unsupported(f"ends in {names}, not in one linear layer")
    return linear[0].weight.T, linear[0].bias


def heads_of(
    attention: Any, norm: nn.Module | None, rope: Tensor | None = None, bias: Bias = None
) -> Mix:
    """Attention as timm computes it, up to the heads' outputs.

    Args:
        attention: timm's module.
        norm: applied before the attention, if there is one.
        rope: (n, 2 d) rotary positions of the patches.
        bias: returns what is added to the attention logits, (1, H, T, T).
    """
    if not all(hasattr(attention, name) for name in ("qkv", "q_norm", "k_norm", "proj")):
        raise unsupported(f"has attention of type {type(attention).__name__}")
    if getattr(attention, "gate", None) is not None or getattr(attention, "num_kv_groups", 1) > 1:
        raise unsupported("has gated or grouped attention")

    def mix(x: Tensor) -> tuple[Tensor, Tensor]:
        query, key, value = _projected(attention, x if norm is None else norm(x))
        query, key = attention.q_norm(query), attention.k_norm(key)
        if rope is not None:
            query, key = (_rotated(attention, rows, rope).type_as(value) for rows in (query, key))
        mask = None if bias is None else bias().to(query.dtype)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return mixed.transpose(1, 2).flatten(2), value

    return mix


def _projected(attention: Any, x: Tensor) -> Sequence[Tensor]:
    """Queries, keys and values, each (B, H, T, d)."""
    batch, count, _ = x.shape
    if attention.qkv is None:
        layers = (attention.q_proj, attention.k_proj, attention.v_proj)
        rows = [layer(x).view(batch, count, attention.num_heads, -1) for layer in layers]
        return [row.transpose(1, 2) for row in rows]
    fused = attention.qkv(x)
    if getattr(attention, "q_bias", None) is not None:  # EVA keeps the biases apart from the layer
        fused = fused + torch.cat([attention.q_bias, attention.k_bias, attention.v_bias])
    split: Tensor = fused.view(batch, count, 3, attention.num_heads, -1).permute(2, 0, 3, 1, 4)
    return split.unbind(0)


def _rotated(attention: Any, rows: Tensor, rope: Tensor) -> Tensor:
    prefix = attention.num_prefix_tokens
    half = getattr(attention, "rotate_half", False)
    turned = apply_rot_embed_cat(rows[:, :, prefix:], rope, half=half)
    return torch.cat([rows[:, :, :prefix], turned], dim=2)


def is_plain(block: Any) -> bool:
    """Whether a pre-norm block has a plain MLP and no norm inside attention or MLP."""
    inner = (getattr(block.attn, "norm", nn.Identity()), getattr(block.mlp, "norm", None))
    return type(block.mlp) is TimmMlp and all(isinstance(norm, nn.Identity) for norm in inner)


def plain_block(block: Any, mix: Mix, scales: tuple[Tensor | None, Tensor | None]) -> PlainBlock:
    """The adapter of a timm block for which `is_plain` holds."""
    return PlainBlock(
        heads=int(block.attn.num_heads),
        mix=mix,
        out=block.attn.proj,
        ls_1=scales[0],
        ln_2=layer_norm(block.norm2, "norm of the MLP"),
        up=block.mlp.fc1,
        activation=block.mlp.act,
        down=block.mlp.fc2,
        ls_2=scales[1],
    )


def vit_block(block: Any, bias: Bias = None) -> PlainBlock:
    """A block of timm's ViT, with or without relative positions.

    Raises:
        UnsupportedModelError: it has inner norms or a gated MLP.
    """
    if not is_plain(block):
        raise unsupported(f"has blocks of type {type(block).__name__} with inner norms")
    mix = heads_of(block.attn, block.norm1, bias=bias)
    return plain_block(block, mix, (layer_scale(block.ls1), layer_scale(block.ls2)))
