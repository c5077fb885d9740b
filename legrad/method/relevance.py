"""Relevance of every patch, summed over the explained blocks of a tower.

There are two kinds, depending on how the tower pools:

    BlockRelevance   each block's own self-attention (CLIP, EVA, MobileCLIP)
    PoolerRelevance  an attentional pooler, run on the output of every block (CoCa, SigLIP, PE-Core)

Both work through the (image, query) pairs in chunks of bounded memory.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from legrad.method.block_gradient import (
    Scratch,
    Trace,
    block_relevance,
    clamped_mean,
    fold,
    head_gradient,
    pool,
    trace,
)
from legrad.method.chunks import Budget, Chunk, budget, chunks
from legrad.method.direction_basis import basis_relevance, fewest_queries, numbers_per_token
from legrad.method.pooler_gradient import (
    fold_pooler,
    gradient_at_heads,
    lift,
    pooler_relevance,
    run_head,
)
from legrad.towers import Block, PlainBlock, Pooler, Tower

Autocast = Callable[[], AbstractContextManager[Any]]
"""Makes the context that a forward pass runs in."""


@dataclass(frozen=True)
class Request:
    """Which pairs of a batch to explain.

    Attributes:
        directions: (Q, E) in the dtype of the maps.
        selected: (B, Q) bool, or None for every pair.
        autocast: makes the context of a forward pass (`VisionModel.autocast`).
    """

    directions: Tensor
    selected: Tensor | None
    autocast: Autocast


class Relevance(ABC):
    """Runs the explained blocks and sums the relevance of their patches."""

    @abstractmethod
    def run(
        self, blocks: Sequence[Block], tokens: Tensor, request: Request
    ) -> tuple[Tensor, Tensor]:
        """Run tokens (B, T, D) through the explained blocks.

        Returns:
            the tokens after the last block, and the relevance (B, Q, patches) summed over blocks;
            zero for pairs that are not selected.
        """


class Layer(ABC):
    """One explained block, which keeps intermediates of its forward pass for its relevance.

    Attributes:
        hidden: width of the scratch for the MLP, per token and pair.
        numbers: all scratch per token and pair, `hidden` included.
    """

    hidden: int
    numbers: int

    @abstractmethod
    def run(self, block: Block, tokens: Tensor, autocast: Autocast) -> tuple[Tensor, Any]:
        """Run tokens through the block; returns the new tokens and the input of `relevance`."""

    @abstractmethod
    def relevance(self, kept: Any, part: slice, g_z: Tensor, scratch: Scratch) -> Tensor:
        """(b, q, T) for some images, from the gradient g_z (b, q, D) at the block's output."""


class ClosedForm(Layer):
    """A plain block: see `legrad.method.block_gradient`."""

    def __init__(self, block: PlainBlock, dtype: torch.dtype, *, compiled: bool) -> None:
        self.folded = fold(block, dtype)
        self.hidden = int(self.folded.up.shape[1])
        self.numbers = self.hidden + int(self.folded.up.shape[0])
        self._relevance: Callable[..., Tensor] = (
            torch.compile(block_relevance) if compiled else block_relevance
        )

    def run(self, block: Block, tokens: Tensor, autocast: Autocast) -> tuple[Tensor, Trace]:
        """See `Layer.run`."""
        if not isinstance(block, PlainBlock):
            raise TypeError(f"expected a plain block, found {type(block).__name__}")
        with autocast():
            return trace(block, self.folded, tokens)

    def relevance(self, kept: Trace, part: slice, g_z: Tensor, scratch: Scratch) -> Tensor:
        """See `Layer.relevance`."""
        return self._relevance(self.folded, kept.images(part), g_z, scratch)

    def many(
        self, kept: Trace, part: slice, g_basis: Tensor, directions: Tensor, scratch: Scratch
    ) -> Tensor:
        """(1, Q, T) for one image and many queries: see `legrad.method.direction_basis`."""
        return basis_relevance(self.folded, kept.images(part), g_basis, directions, scratch)


@dataclass(frozen=True)
class BlockCall:
    """A block, its input, its heads' outputs and values, and the context it ran in."""

    block: Block
    tokens: Tensor
    mixed: Tensor
    values: Tensor
    autocast: Autocast


class Replay(Layer):
    """Any other block: autograd through the part after its heads, whose output is the only leaf.

    The graph covers one block without its attention, lives for one chunk, and does not contain
    the weights.
    """

    hidden = 0

    def __init__(self, block: Block, width: int) -> None:
        self.numbers = 3 * block.hidden + 6 * width

    def run(self, block: Block, tokens: Tensor, autocast: Autocast) -> tuple[Tensor, BlockCall]:
        """See `Layer.run`."""
        with autocast():
            mixed, values = block.attend(tokens)
            after = block.finish(tokens, mixed)
        return after, BlockCall(block, tokens, mixed, values, autocast)

    def relevance(self, kept: BlockCall, part: slice, g_z: Tensor, scratch: Scratch) -> Tensor:
        """See `Layer.relevance`."""
        tokens, mixed = kept.tokens[part], kept.mixed[part]
        # Scaled to 1 until the end: half precision cannot hold gradients this small.
        size = g_z.abs().amax(dim=-1, keepdim=True)
        unit = (g_z / size.clamp_min(torch.finfo(g_z.dtype).tiny)).transpose(0, 1)  # (q, b, D)
        with kept.autocast():
            after, pull, *_ = torch.func.vjp(lambda leaf: kept.block.finish(tokens, leaf), mixed)
        cotangents = unit[:, :, None].to(after.dtype).expand(-1, -1, after.shape[1], -1)
        gradients = torch.stack([pull(cotangent)[0] for cotangent in cotangents])  # (q, b, T, H d)
        g = gradients.permute(3, 1, 0, 2).to(scratch.products.dtype).contiguous()
        return clamped_mean(kept.values[part].to(g.dtype), g, scratch) * size


class BlockRelevance(Relevance):
    """LeGrad of towers that pool a token or average: every block against its own attention.

    Args:
        tower: the vision tower.
        layers: how many of its last blocks are explained.
        dtype: dtype of the matrix products.
        chunk_bytes: bound in bytes on the arrays of the pairs that are worked on at once.
        compiled: run the closed form through `torch.compile`.
    """

    def __init__(
        self, tower: Tower, layers: int, dtype: torch.dtype, chunk_bytes: int, *, compiled: bool
    ) -> None:
        self.head, self.prefix, self.embed_dim = tower.head, tower.prefix, tower.embed_dim
        self.chunk_bytes, self.dtype = chunk_bytes, dtype
        self.layers: list[Layer] = [
            ClosedForm(block, dtype, compiled=compiled)
            if isinstance(block, PlainBlock)
            else Replay(block, tower.width)
            for block in tower.blocks[-layers:]
        ]
        closed = all(isinstance(layer, ClosedForm) for layer in self.layers)
        hidden = max(layer.hidden for layer in self.layers)
        self.fewest = fewest_queries(self.embed_dim, hidden) if closed else None
        self._per_token = numbers_per_token(self.embed_dim, hidden, tower.width)

    def run(
        self, blocks: Sequence[Block], tokens: Tensor, request: Request
    ) -> tuple[Tensor, Tensor]:
        """See `Relevance.run`."""
        batch, count = int(tokens.shape[0]), int(tokens.shape[1])
        shape = (batch, len(request.directions))
        numbers = max(layer.numbers for layer in self.layers)
        bound = budget(self.chunk_bytes, count, numbers, self.dtype, tokens.device)
        many = self.fewest if self._per_token <= bound.numbers else None
        plan = chunks(shape, request.selected, bound.pairs, tokens.device, many)
        scratch = self._scratch(plan, blocks[0].heads, bound, tokens)
        total = request.directions.new_zeros(*shape, count - self.prefix)
        for block, layer in zip(blocks, self.layers, strict=True):
            tokens, kept = layer.run(block, tokens, request.autocast)
            pooled = pool(tokens.to(total.dtype), self.head)
            for chunk in plan:
                directions = request.directions[chunk.queries]  # (b, q, E)
                part = chunk.images
                if chunk.many and isinstance(layer, ClosedForm):
                    basis = torch.eye(self.embed_dim, dtype=total.dtype, device=total.device)[None]
                    g_basis = head_gradient(pooled.images(part), self.head, basis)
                    relevance = layer.many(kept, part, g_basis, directions[0], scratch)
                else:
                    g_z = head_gradient(pooled.images(part), self.head, directions)
                    relevance = layer.relevance(kept, part, g_z, scratch)
                _add(total, chunk, relevance[..., self.prefix :])
            del kept  # before the next block keeps its own
        return tokens, total

    def _scratch(self, plan: list[Chunk], heads: int, bound: Budget, tokens: Tensor) -> Scratch:
        count, width = int(tokens.shape[1]), int(tokens.shape[2])
        hidden = max(layer.hidden for layer in self.layers)
        few = [chunk for chunk in plan if not chunk.many]
        rows = count * max((chunk.queries.numel() for chunk in few), default=0)
        per_head = count**2 * max((chunk.queries.shape[1] for chunk in few), default=0)
        gradients = rows
        if len(few) < len(plan):
            many = self.embed_dim * min(count, bound.numbers // self._per_token)
            rows, gradients = max(rows, many), max(rows, 2 * many)
            per_head = max(per_head, count * many)
        at_once = min(heads, max(1, bound.products // max(1, per_head)))
        closed = any(isinstance(layer, ClosedForm) for layer in self.layers)
        empty = tokens.new_empty(0, dtype=self.dtype)
        return Scratch(
            hidden=empty.new_empty(rows * hidden),
            gradient=empty.new_empty(gradients * width if closed else 0),
            products=empty.new_empty(per_head * at_once),
        )


class PoolerRelevance(Relevance):
    """LeGrad of towers that pool by attention: the pooler on every explained block's output.

    Args:
        pooler: pooler of the tower.
        dtype: dtype of the maps, and of the gradient, which costs little here.
        chunk_bytes: bound in bytes on the arrays of the pairs that are worked on at once.
    """

    def __init__(self, pooler: Pooler, dtype: torch.dtype, chunk_bytes: int) -> None:
        self.pooler, self.chunk_bytes = pooler, chunk_bytes
        self.folded = fold_pooler(pooler, dtype)

    def run(
        self, blocks: Sequence[Block], tokens: Tensor, request: Request
    ) -> tuple[Tensor, Tensor]:
        """See `Relevance.run`."""
        layers = []
        for block in blocks:
            with request.autocast():
                tokens = block(tokens)
                mixed, values = self.pooler.attend(tokens)
            layers.append(run_head(self.pooler, self.folded, mixed, values))
        shape = (len(tokens), len(request.directions))
        keys = layers[0].values.shape[2]
        numbers = self.folded.numbers + self.pooler.heads * keys
        bound = budget(self.chunk_bytes, 1, numbers, self.folded.out.dtype, tokens.device)
        total = request.directions.new_zeros(*shape, keys - self.pooler.skipped)
        for chunk in chunks(shape, request.selected, bound.pairs, tokens.device):
            # Without a selection all images of a chunk have the same queries: lift them once.
            queries = chunk.queries[:1] if request.selected is None else chunk.queries
            directions = request.directions[queries]
            lifted = lift(self.folded, directions)
            relevance = torch.zeros((), device=tokens.device, dtype=total.dtype)
            for layer in layers:
                row = layer.images(chunk.images)
                g = gradient_at_heads(self.folded, row, directions, lifted)
                relevance = relevance + pooler_relevance(row, g)
            _add(total, chunk, relevance[..., self.pooler.skipped :])
        return tokens, total


def _add(total: Tensor, chunk: Chunk, patches: Tensor) -> None:
    """Add the relevance (b, q, n) of a chunk's pairs to that of all pairs (B, Q, n)."""
    queries = chunk.queries[..., None].expand_as(patches)
    total[chunk.images].scatter_add_(1, queries, patches)
