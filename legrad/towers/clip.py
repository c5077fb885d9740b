"""open_clip's ``VisionTransformer``: CLIP with a class token, CLIPA with the patches' mean."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from torch import Tensor, nn

from legrad.towers.base import Head, Mix, PlainBlock, Tower, layer_scale, unsupported

_HALF = (torch.float16, torch.bfloat16)


class ClipTower(Tower):
    """Pre-norm blocks, a class token, and a head of ``ln_post`` and a matrix.

    The layer score is the head on the mean of all tokens, class token included, as LeGrad defines
    it, even if the model itself pools another token.

    Raises:
        UnsupportedModelError: the closed form does not cover the blocks or the pooling.
    """

    blocks: Sequence[PlainBlock]
    prefix = 1

    def __init__(self, visual: nn.Module) -> None:
        if not isinstance(visual, VisionTransformer):
            raise unsupported(f"is a {type(visual).__name__}")
        self.visual: Any = visual
        if self.visual.pool_type not in ("tok", "avg"):
            raise unsupported("does not pool its tokens")
        self.blocks = [_block(module) for module in self.visual.transformer.resblocks]

    @property
    def head(self) -> Head:  # type: ignore[override]
        """``ln_post`` and ``proj``."""
        return Head(self.visual.ln_post, self.visual.proj)

    @property
    def weight(self) -> Tensor:
        """See `Tower.weight`."""
        projection: Tensor = self.visual.proj
        return projection

    @property
    def width(self) -> int:
        """See `Tower.width`."""
        return int(self.visual.conv1.out_channels)

    @property
    def embed_dim(self) -> int:
        """See `Tower.embed_dim`."""
        return int(self.visual.proj.shape[1])

    @property
    def patch_size(self) -> tuple[int, int]:
        """See `Tower.patch_size`."""
        height, width = self.visual.patch_size
        return int(height), int(width)

    @property
    def native_grid(self) -> tuple[int, int]:
        """See `Tower.native_grid`."""
        h, w = self.visual.grid_size
        return int(h), int(w)

    def tokens(self, pixels: Tensor) -> Tensor:
        """See `Tower.tokens`."""
        patches = self.visual.conv1(pixels)
        grid = (int(patches.shape[2]), int(patches.shape[3]))
        patches = patches.flatten(2).transpose(1, 2)
        cls = self.visual.class_embedding.to(patches.dtype).expand(len(patches), 1, -1)
        position = self.positional_embedding(grid).to(patches.dtype)
        normed: Tensor = self.visual.ln_pre(torch.cat([cls, patches], dim=1) + position)
        return normed

    def positional_embedding(self, grid: tuple[int, int]) -> Tensor:
        """(T, D); for a grid other than the native one interpolated (bicubic, antialiased)."""
        position: Tensor = self.visual.positional_embedding
        if grid == self.native_grid:
            return position
        h, w = self.native_grid
        patches = position[1:].float() if position.dtype in _HALF else position[1:]
        image = patches.reshape(1, h, w, -1).permute(0, 3, 1, 2).contiguous()
        image = F.interpolate(image, size=grid, mode="bicubic", antialias=True, align_corners=False)
        resized = image.permute(0, 2, 3, 1).reshape(grid[0] * grid[1], -1)
        return torch.cat([position[:1], resized.to(position.dtype)])

    def embed(self, tokens: Tensor) -> Tensor:
        """See `Tower.embed`."""
        head = self.head
        if self.visual.pool_type == "tok":
            return head(tokens[:, 0])
        if self.visual.final_ln_after_pool:
            return head(tokens[:, 1:].mean(dim=1))
        return head.project(self.visual.ln_post(tokens)[:, 1:].mean(dim=1))


def _block(module: nn.Module) -> PlainBlock:
    if type(module) is not ResidualAttentionBlock or hasattr(module, "ln_1_kv"):
        raise unsupported(f"has blocks of type {type(module).__name__}")
    block: Any = module
    attention: nn.MultiheadAttention = block.attn
    if attention.in_proj_weight is None or attention.bias_k is not None:
        raise unsupported("has attention with separate or extra key and value weights")
    return PlainBlock(
        heads=int(attention.num_heads),
        mix=_mix(block.ln_1, attention),
        out=attention.out_proj,
        ls_1=layer_scale(block.ls_1),
        ln_2=block.ln_2,
        up=block.mlp.c_fc,
        activation=block.mlp.gelu,
        down=block.mlp.c_proj,
        ls_2=layer_scale(block.ls_2),
    )


def _mix(ln_1: nn.LayerNorm, attention: nn.MultiheadAttention) -> Mix:
    heads = int(attention.num_heads)

    def mix(x: Tensor) -> tuple[Tensor, Tensor]:
        batch, count, width = x.shape
        weight, bias = attention.in_proj_weight, attention.in_proj_bias
        rows = F.linear(ln_1(x), weight, bias).view(batch, count, 3, heads, -1)
        query, key, value = rows.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value)
        return mixed.transpose(1, 2).reshape(batch, count, width), value

    return mix
