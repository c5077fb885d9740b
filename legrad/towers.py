"""What the gradient needs from a vision tower, read from its module and never patched into it.

A tower yields tokens, plain blocks, and the head that turns a pooled token into an embedding. One
adapter so far: open_clip's own ``VisionTransformer`` (pre-norm blocks, class or average pooling).
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from open_clip.transformer import LayerScale, ResidualAttentionBlock, VisionTransformer
from torch import Tensor, nn

from legrad.errors import SUPPORTED_TOWERS, UnsupportedModelError


@dataclass(frozen=True)
class Block:
    """One pre-norm block: ``x1 = x + ls1 attn(ln1 x)``, ``z = x1 + ls2 W2 act(W1 ln2 x1)``."""

    ln_1: nn.LayerNorm
    attention: nn.MultiheadAttention
    ls_1: Tensor | None
    ln_2: nn.LayerNorm
    up: nn.Linear
    activation: nn.Module
    down: nn.Linear
    ls_2: Tensor | None

    @property
    def heads(self) -> int:
        """Number of attention heads H."""
        return int(self.attention.num_heads)

    def attend(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The attention branch: tokens (B, T, D) -> x1 (B, T, D) and values (B, H, T, d)."""
        batch, count, width = x.shape
        weight, bias = self.attention.in_proj_weight, self.attention.in_proj_bias
        rows = F.linear(self.ln_1(x), weight, bias).view(batch, count, 3, self.heads, -1)
        query, key, value = rows.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value)
        mixed = self.attention.out_proj(mixed.transpose(1, 2).reshape(batch, count, width))
        return x + (mixed if self.ls_1 is None else mixed * self.ls_1), value

    def feed(self, x1: Tensor) -> tuple[Tensor, Tensor]:
        """The MLP branch: x1 (B, T, D) -> hidden (B, T, F) before the activation, and tokens."""
        hidden = self.up(self.ln_2(x1))
        branch = self.down(self.activation(hidden))
        return hidden, x1 + (branch if self.ls_2 is None else branch * self.ls_2)

    def __call__(self, x: Tensor) -> Tensor:
        """Tokens (B, T, D) through the block."""
        return self.feed(self.attend(x)[0])[1]


class ClipTower:
    """Adapter of an open_clip ``VisionTransformer``.

    Args:
        visual: the tower; only read.

    Raises:
        UnsupportedModelError: the module is another kind of tower, or has blocks, activations or a
            pooling the closed form does not cover.
    """

    def __init__(self, visual: nn.Module) -> None:
        if not isinstance(visual, VisionTransformer):
            raise UnsupportedModelError(
                f"the vision tower is a {type(visual).__name__}; {SUPPORTED_TOWERS}."
            )
        if visual.attn_pool is not None or visual.pool_type not in ("tok", "avg"):
            raise UnsupportedModelError(
                f"the vision tower pools by attention or not at all; {SUPPORTED_TOWERS}."
            )
        # open_clip declares several attributes loosely; they are read as what they are.
        self.visual: Any = visual
        self.blocks = [_block(module) for module in self.visual.transformer.resblocks]

    @property
    def norm(self) -> nn.LayerNorm:
        """The final LayerNorm ``ln_post``."""
        norm: nn.LayerNorm = self.visual.ln_post
        return norm

    @property
    def projection(self) -> Tensor:
        """(D, E) matrix from the tower's width to the embedding."""
        projection: Tensor = self.visual.proj
        return projection

    @property
    def patch_size(self) -> tuple[int, int]:
        """(height, width) of a patch in pixels."""
        height, width = self.visual.patch_size
        return int(height), int(width)

    @property
    def native_grid(self) -> tuple[int, int]:
        """(h, w) of the grid that the positional embedding was made for."""
        h, w = self.visual.grid_size
        return int(h), int(w)

    def tokens(self, pixels: Tensor) -> Tensor:
        """Normalised pixels (B, 3, height, width) -> tokens (B, T, D) before the first block."""
        patches = self.visual.conv1(pixels)
        grid = (int(patches.shape[2]), int(patches.shape[3]))
        patches = patches.flatten(2).transpose(1, 2)
        cls = self.visual.class_embedding.to(patches.dtype).expand(len(patches), 1, -1)
        position = self.positional_embedding(grid).to(patches.dtype)
        normed: Tensor = self.visual.ln_pre(torch.cat([cls, patches], dim=1) + position)
        return normed

    def positional_embedding(self, grid: tuple[int, int]) -> Tensor:
        """(T, D) for any grid; a foreign one is interpolated (bicubic, antialiased), not stored."""
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
        """Tokens (B, T, D) after the last block -> image embeddings (B, E), not normalised."""
        if self.visual.final_ln_after_pool:
            pooled = self.norm(self._pool(tokens))
        elif self.visual.pool_type == "tok":
            pooled = self.norm(tokens[:, 0])
        else:
            pooled = self._pool(self.norm(tokens))
        embedded: Tensor = pooled @ self.projection
        return embedded

    def _pool(self, tokens: Tensor) -> Tensor:
        return tokens[:, 0] if self.visual.pool_type == "tok" else tokens[:, 1:].mean(dim=1)


_HALF = (torch.float16, torch.bfloat16)


def _block(module: nn.Module) -> Block:
    if type(module) is not ResidualAttentionBlock or hasattr(module, "ln_1_kv"):
        raise UnsupportedModelError(
            f"the vision tower has blocks of type {type(module).__name__}; {SUPPORTED_TOWERS}."
        )
    block: Any = module
    attention: nn.MultiheadAttention = block.attn
    if attention.in_proj_weight is None or attention.bias_k is not None:
        raise UnsupportedModelError(
            f"the attention has separate or extra key/value weights; {SUPPORTED_TOWERS}."
        )
    return Block(
        ln_1=block.ln_1,
        attention=attention,
        ls_1=_layer_scale(block.ls_1),
        ln_2=block.ln_2,
        up=block.mlp.c_fc,
        activation=block.mlp.gelu,
        down=block.mlp.c_proj,
        ls_2=_layer_scale(block.ls_2),
    )


def _layer_scale(module: nn.Module) -> Tensor | None:
    return module.gamma if isinstance(module, LayerScale) else None
