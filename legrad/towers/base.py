"""The interface of a vision tower, limited to what the method needs."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from legrad.errors import SUPPORTED_TOWERS, UnsupportedModelError

Mix = Callable[[Tensor], tuple[Tensor, Tensor]]
"""A module's attention: input (B, T, D) -> the heads' concatenated outputs (B, T, H d), before the
output projection, and values (B, H, T, d)."""


class Block(ABC):
    """One transformer block, split at the outputs of its attention heads.

    Attributes:
        heads: number of attention heads H.
        hidden: width of the MLP.
    """

    heads: int
    hidden: int

    @abstractmethod
    def attend(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens (B, T, D) -> head outputs (B, T, H d) and values (B, H, T, d)."""

    @abstractmethod
    def finish(self, x: Tensor, mixed: Tensor) -> Tensor:
        """The rest of the block: its input and head outputs -> its output (B, T, D)."""

    def __call__(self, x: Tensor) -> Tensor:
        """Tokens (B, T, D) through the block."""
        return self.finish(x, self.attend(x)[0])


@dataclass(frozen=True)
class PlainBlock(Block):
    """A pre-norm block, for which the closed form is written.

    ``x1 = x + ls1 (W_out heads(x) + b)``, ``z = x1 + ls2 (W2 act(W1 ln2 x1 + b1) + b2)``. How the
    heads are computed (biases, rotary or relative positions) does not matter to the gradient.
    """

    heads: int
    mix: Mix
    out: nn.Linear
    ls_1: Tensor | None
    ln_2: nn.LayerNorm
    up: nn.Linear
    activation: nn.Module
    down: nn.Linear
    ls_2: Tensor | None

    @property
    def hidden(self) -> int:  # type: ignore[override]
        """Width F of the MLP."""
        return int(self.up.out_features)

    def attend(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """See `Block.attend`."""
        return self.mix(x)

    def project(self, x: Tensor, mixed: Tensor) -> Tensor:
        """The end of the attention branch: x and head outputs -> x1 (B, T, D)."""
        branch: Tensor = self.out(mixed)
        return x + (branch if self.ls_1 is None else branch * self.ls_1)

    def feed(self, x1: Tensor) -> tuple[Tensor, Tensor]:
        """The MLP branch: x1 (B, T, D) -> hidden (B, T, F) before the activation, and output."""
        hidden = self.up(self.ln_2(x1))
        branch = self.down(self.activation(hidden))
        return hidden, x1 + (branch if self.ls_2 is None else branch * self.ls_2)

    def finish(self, x: Tensor, mixed: Tensor) -> Tensor:
        """See `Block.finish`."""
        return self.feed(self.project(x, mixed))[1]


@dataclass(frozen=True)
class Head:
    """From one pooled token (..., D) to the embedding (..., E): ``norm(z) @ matrix + bias``.

    Attributes:
        norm: None if it comes before the pooling.
        matrix: (D, E); None if the embedding is the normed token (E = D).
        bias: (E,).
        normalised: whether a score is taken with the embedding at unit length, as CLIP does; a
            classifier takes it as it is.
    """

    norm: nn.LayerNorm | None
    matrix: Tensor | None
    bias: Tensor | None = None
    normalised: bool = True

    def project(self, z: Tensor) -> Tensor:
        """The part after the norm."""
        if self.matrix is None:
            return z
        projected: Tensor = F.linear(z, self.matrix.T, self.bias)
        return projected

    def __call__(self, z: Tensor) -> Tensor:
        """Embeddings, not normalised."""
        normed: Tensor = z if self.norm is None else self.norm(z)
        return self.project(normed)


@dataclass(frozen=True)
class Mlp:
    """``z = y + W2 act(W1 norm(y) + b1) + b2``."""

    norm: nn.LayerNorm
    up: nn.Linear
    activation: nn.Module
    down: nn.Linear

    def __call__(self, y: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        moved: Tensor = y + self.down(self.activation(self.up(self.norm(y))))
        return moved


@dataclass(frozen=True)
class Pooler:
    """An attentional pooler: one learned query attends over all tokens, in several heads.

    Attributes:
        heads: number of heads H.
        attend: tokens after a block (B, T, D) -> the heads' concatenated outputs (B, H d), and
            values (B, H, T, d); includes a final norm before the pooler.
        out: output projection of the attention.
        mlp: residual MLP after the projection, if there is one.
        head: the layers from the pooled token to the embedding.
        skipped: how many of the first keys are not patches.
    """

    heads: int
    attend: Mix
    out: nn.Linear
    mlp: Mlp | None
    head: Head
    skipped: int

    def __call__(self, tokens: Tensor) -> Tensor:
        """Tokens (B, T, D) after a block -> embeddings (B, E), not normalised."""
        pooled = self.out(self.attend(tokens)[0])
        return self.head(pooled if self.mlp is None else self.mlp(pooled))


class Tower(ABC):
    """A vision tower as LeGrad sees it; the module is only read.

    Attributes:
        visual: open_clip's module.
        blocks: the transformer blocks, with the positions of the native grid.
        prefix: number of tokens before the patches (class token, registers).
        head: from a pooled token to the embedding. LeGrad applies it to the mean token of a tower
            that pools one token or averages.
        pooler: pooler of a tower that pools by attention; None for other towers.
    """

    visual: Any
    blocks: Sequence[Block]
    prefix: int
    head: Head
    pooler: Pooler | None = None

    @property
    @abstractmethod
    def patch_size(self) -> tuple[int, int]:
        """(height, width) of a patch in pixels."""

    @property
    @abstractmethod
    def native_grid(self) -> tuple[int, int]:
        """(h, w) of the grid that the positions were trained for."""

    @property
    @abstractmethod
    def embed_dim(self) -> int:
        """Width E of the embedding."""

    @property
    @abstractmethod
    def width(self) -> int:
        """Width D of the tokens."""

    @property
    @abstractmethod
    def weight(self) -> Tensor:
        """A weight matrix of the tower; its device and dtype are the tower's."""

    @abstractmethod
    def tokens(self, pixels: Tensor) -> Tensor:
        """Normalised pixels (B, 3, height, width) -> tokens (B, T, D) before the first block."""

    @abstractmethod
    def embed(self, tokens: Tensor) -> Tensor:
        """Tokens (B, T, D) after the last block -> the model's embeddings (B, E), any length."""

    @property
    def native_size(self) -> tuple[int, int]:
        """(height, width) of the native input in pixels."""
        (h, w), (down, across) = self.native_grid, self.patch_size
        return h * down, w * across

    def blocks_at(self, grid: tuple[int, int]) -> Sequence[Block]:
        """The blocks for a grid, which differ from `blocks` where blocks contain positions."""
        del grid
        return self.blocks

    def check_grid(self, grid: tuple[int, int]) -> None:
        """Raise ValueError if the tower cannot run at a grid; by default every grid is allowed."""
        del grid


def unsupported(fault: str) -> UnsupportedModelError:
    """The error for a tower that no family covers."""
    return UnsupportedModelError(f"the vision tower {fault}; {SUPPORTED_TOWERS}.")


def layer_norm(module: nn.Module, role: str) -> nn.LayerNorm:
    """The module, checked to be a LayerNorm with weight and bias.

    Raises:
        UnsupportedModelError: it is not.
    """
    if not isinstance(module, nn.LayerNorm) or module.bias is None:
        raise unsupported(f"has a {type(module).__name__} as {role}, not a LayerNorm with bias")
    return module


def layer_scale(module: Any) -> Tensor | None:
    """Factors (D,) of a layer scale; None if the block has none."""
    if isinstance(module, nn.Identity):
        return None
    gamma: Tensor = module.gamma
    return gamma
