"""EVA01 and EVA02, timm's ``Eva``: rotary positions, SwiGLU, inner norms, or post-norm blocks."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from timm.layers.pos_embed_sincos import RotaryEmbeddingCat
from timm.models.eva import EvaBlock, EvaBlockPostNorm
from torch import Tensor

from legrad.towers.base import Block, Mix, unsupported
from legrad.towers.timm_tower import TimmTower, heads_of, is_plain, plain_block


@dataclass(frozen=True)
class InnerNormBlock(Block):
    """EVA02's block: ``x1 = x + W_out norm(heads(x)) + b``, ``z = x1 + mlp(ln2 x1)``.

    Its MLP is gated (``W2 norm(silu(W_g y) * W_x y)``); its gradient is taken by autograd.
    """

    heads: int
    hidden: int
    mix: Mix
    module: Any

    def attend(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """See `Block.attend`."""
        return self.mix(x)

    def finish(self, x: Tensor, mixed: Tensor) -> Tensor:
        """See `Block.finish`."""
        block = self.module
        branch = block.attn.proj(block.attn.norm(mixed))
        x1 = x + (branch if block.gamma_1 is None else block.gamma_1 * branch)
        branch = block.mlp(block.norm2(x1))
        z: Tensor = x1 + (branch if block.gamma_2 is None else block.gamma_2 * branch)
        return z


@dataclass(frozen=True)
class PostNormBlock(InnerNormBlock):
    """EVA02-E's block: ``x1 = x + ln1(W_out heads(x) + b)``, ``z = x1 + ln2(mlp(x1))``."""

    def finish(self, x: Tensor, mixed: Tensor) -> Tensor:
        """See `Block.finish`."""
        block = self.module
        x1 = x + block.norm1(block.attn.proj(block.attn.norm(mixed)))
        z: Tensor = x1 + block.norm2(block.mlp(x1))
        return z


class EvaTower(TimmTower):
    """A class token; positions are added to the tokens and, in EVA02, to every block's attention.

    EVA01's blocks are plain, so the closed form applies; EVA02's are differentiated by autograd,
    one block at a time. The layer score is the head on the mean of all tokens, as for CLIP.
    """

    def __init__(self, visual: Any) -> None:
        self._rope = _rope_at(getattr(visual, "trunk", visual), None)
        super().__init__(visual)

    def _block(self, module: Any) -> Block:
        return eva_block(module, self._rope)

    def blocks_at(self, grid: tuple[int, int]) -> Sequence[Block]:
        """See `Tower.blocks_at`: rotary positions depend on the grid."""
        if self._rope is None or grid == self.native_grid:
            return self.blocks
        rope = _rope_at(self.trunk, grid)
        return [eva_block(module, rope) for module in self.trunk.blocks]


def eva_block(module: Any, rope: Tensor | None) -> Block:
    """The adapter of a block, with the rotary positions of a grid.

    Raises:
        UnsupportedModelError: the block is of another type.
    """
    if type(module) is EvaBlockPostNorm:
        mix = heads_of(module.attn, None, rope)
        return PostNormBlock(int(module.attn.num_heads), _hidden(module), mix, module)
    if type(module) is not EvaBlock:
        raise unsupported(f"has blocks of type {type(module).__name__}")
    mix = heads_of(module.attn, module.norm1, rope)
    if is_plain(module):
        return plain_block(module, mix, (module.gamma_1, module.gamma_2))
    return InnerNormBlock(int(module.attn.num_heads), _hidden(module), mix, module)


def _hidden(module: Any) -> int:
    return int(module.mlp.fc2.in_features)


def _rope_at(trunk: Any, grid: tuple[int, int] | None) -> Tensor | None:
    """(n, 2 d) sines and cosines of the patches' positions; ``grid`` None is the native grid."""
    if trunk.rope is None:
        return None
    if not isinstance(trunk.rope, RotaryEmbeddingCat):
        raise unsupported(f"has rotary positions of an unknown kind ({type(trunk.rope).__name__})")
    rope = trunk.rope
    if grid is not None:
        rope = copy.deepcopy(rope)
        rope.update_feat_shape(list(grid))
    embedding: Tensor = rope.get_embed()
    return embedding
