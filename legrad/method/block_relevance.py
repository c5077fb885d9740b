"""Relevance against each block's own attention, layer by layer: CLIP, EVA, MobileCLIP."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from legrad.method.block_gradient import (
    Scratch,
    Trace,
    clamped_mean,
    fold,
    head_gradient,
    pool,
    relevance,
    trace,
)
from legrad.method.chunks import Chunk, budget, chunks
from legrad.method.relevance import Asked, Autocast, Relevance
from legrad.towers import Block, PlainBlock, Tower


class Layer(ABC):
    """One explained block: how its forward pass is kept and its gradient taken.

    Attributes:
        numbers: what a token and pair take, in numbers, and `Scratch` has room for of ``hidden``.
        hidden: so many of them are scratch for the MLP.
    """

    hidden: int
    numbers: int

    @abstractmethod
    def run(self, block: Block, tokens: Tensor, autocast: Autocast) -> tuple[Tensor, Any]:
        """Tokens through the block, and what the gradient needs of it."""

    @abstractmethod
    def relevance(self, seen: Any, part: slice, g_z: Tensor, scratch: Scratch) -> Tensor:
        """(b, q, T) for some images, from the gradient g_z (b, q, D) at the block's output."""


class ClosedForm(Layer):
    """A plain block: see `legrad.method.block_gradient`."""

    def __init__(self, block: PlainBlock, dtype: torch.dtype, *, compiled: bool) -> None:
        self.folded = fold(block, dtype)
        self.hidden = int(self.folded.up.shape[1])
        self.numbers = self.hidden + int(self.folded.up.shape[0])
        self._relevance: Callable[..., Tensor] = torch.compile(relevance) if compiled else relevance

    def run(self, block: Block, tokens: Tensor, autocast: Autocast) -> tuple[Tensor, Trace]:
        """See `Layer.run`."""
        if not isinstance(block, PlainBlock):
            raise TypeError(f"expected a plain block, found {type(block).__name__}")
        with autocast():
            return trace(block, self.folded, tokens)

    def relevance(self, seen: Trace, part: slice, g_z: Tensor, scratch: Scratch) -> Tensor:
        """See `Layer.relevance`."""
        return self._relevance(self.folded, seen.images(part), g_z, scratch)


@dataclass(frozen=True)
class Cached:
    """A block's input, its heads' outputs and its values; and how it ran."""

    block: Block
    tokens: Tensor
    mixed: Tensor
    values: Tensor
    autocast: Autocast


class Replay(Layer):
    """Any other block: what follows its heads is run again, with their output as the only leaf.

    The graph is that of one block without its attention; it lives for one chunk, and the weights
    are no part of it.
    """

    hidden = 0

    def __init__(self, block: Block, width: int) -> None:
        self.numbers = 3 * block.hidden + 6 * width

    def run(self, block: Block, tokens: Tensor, autocast: Autocast) -> tuple[Tensor, Cached]:
        """See `Layer.run`."""
        with autocast():
            mixed, values = block.attend(tokens)
            left = block.finish(tokens, mixed)
        return left, Cached(block, tokens, mixed, values, autocast)

    def relevance(self, seen: Cached, part: slice, g_z: Tensor, scratch: Scratch) -> Tensor:
        """See `Layer.relevance`."""
        tokens, mixed = seen.tokens[part], seen.mixed[part]
        size = g_z.abs().amax(dim=-1, keepdim=True)  # left out: half precision holds no small ones
        unit = (g_z / size.clamp_min(torch.finfo(g_z.dtype).tiny)).transpose(0, 1)  # (q, b, D)
        with seen.autocast():
            left, pull, *_ = torch.func.vjp(lambda leaf: seen.block.finish(tokens, leaf), mixed)
        cotangents = unit[:, :, None].to(left.dtype).expand(-1, -1, left.shape[1], -1)
        found = torch.stack([pull(one)[0] for one in cotangents])  # (q, b, T, H d)
        g = found.permute(3, 1, 0, 2).to(scratch.products.dtype).contiguous()
        return clamped_mean(seen.values[part].to(g.dtype), g, scratch) * size


class BlockRelevance(Relevance):
    """LeGrad of towers that pool a token or average: every explained block against itself.

    Args:
        tower: whose last blocks are explained.
        layers: how many.
        dtype: of the products.
        chunk_bytes: bound on the arrays of the pairs that are worked on at once.
        compiled: run the closed form through `torch.compile`.
    """

    def __init__(
        self, tower: Tower, layers: int, dtype: torch.dtype, chunk_bytes: int, *, compiled: bool
    ) -> None:
        self.head, self.prefix = tower.head, tower.prefix
        self.chunk_bytes, self.dtype = chunk_bytes, dtype
        self.layers: list[Layer] = [
            ClosedForm(block, dtype, compiled=compiled)
            if isinstance(block, PlainBlock)
            else Replay(block, tower.width)
            for block in tower.blocks[-layers:]
        ]

    def through(
        self, blocks: Sequence[Block], tokens: Tensor, asked: Asked
    ) -> tuple[Tensor, Tensor]:
        """See `Relevance.through`."""
        batch, count = int(tokens.shape[0]), int(tokens.shape[1])
        shape = (batch, len(asked.directions))
        numbers = max(layer.numbers for layer in self.layers)
        bound = budget(self.chunk_bytes, count, numbers, self.dtype, tokens.device)
        plan = chunks(shape, asked.selected, bound.pairs, tokens.device)
        scratch = self._scratch(plan, blocks[0].heads, bound.products, tokens)
        total = asked.directions.new_zeros(*shape, count - self.prefix)
        for block, layer in zip(blocks, self.layers, strict=True):
            tokens, seen = layer.run(block, tokens, asked.autocast)
            pooled = pool(tokens.to(total.dtype), self.head)
            for chunk in plan:
                directions = asked.directions[chunk.queries]  # (b, q, E)
                g_z = head_gradient(pooled.images(chunk.images), self.head, directions)
                found = layer.relevance(seen, chunk.images, g_z, scratch)
                add(total, chunk, found[..., self.prefix :])
            del seen  # before the next block makes its own
        return tokens, total

    def _scratch(self, plan: list[Chunk], heads: int, products: int, tokens: Tensor) -> Scratch:
        count, width = int(tokens.shape[1]), int(tokens.shape[2])
        pairs = max((chunk.queries.numel() for chunk in plan), default=0)
        one = max((chunk.queries.shape[1] for chunk in plan), default=0) * count**2
        at_once = min(heads, max(1, products // max(1, one)))
        hidden = max(layer.hidden for layer in self.layers)
        closed = any(isinstance(layer, ClosedForm) for layer in self.layers)
        empty = tokens.new_empty(0, dtype=self.dtype)
        return Scratch(
            hidden=empty.new_empty(pairs * count * hidden),
            gradient=empty.new_empty(pairs * count * width if closed else 0),
            products=empty.new_empty(one * at_once),
        )


def add(total: Tensor, chunk: Chunk, patches: Tensor) -> None:
    """Add the relevance (b, q, n) of a chunk's pairs to that of all (B, Q, n)."""
    queries = chunk.queries[..., None].expand_as(patches)
    total[chunk.images].scatter_add_(1, queries, patches)
