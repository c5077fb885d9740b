"""Relevance against an attentional pooler's attention on every layer: CoCa, SigLIP, PE-Core."""

from collections.abc import Sequence

import torch
from torch import Tensor

from legrad.method.block_relevance import add
from legrad.method.chunks import budget, chunks
from legrad.method.pooler_gradient import fold_pooler, gradient_at_heads, lift, look, row_relevance
from legrad.method.relevance import Asked, Relevance
from legrad.towers import Block, Pooler


class PoolerRelevance(Relevance):
    """LeGrad of towers that pool by attention: the pooler on every explained block's tokens.

    Args:
        pooler: the tower's.
        dtype: what maps come in; the way back is computed in it, being nearly free.
        chunk_bytes: bound on the arrays of the pairs that are worked on at once.
    """

    def __init__(self, pooler: Pooler, dtype: torch.dtype, chunk_bytes: int) -> None:
        self.pooler, self.chunk_bytes = pooler, chunk_bytes
        self.folded = fold_pooler(pooler, dtype)

    def through(
        self, blocks: Sequence[Block], tokens: Tensor, asked: Asked
    ) -> tuple[Tensor, Tensor]:
        """See `Relevance.through`."""
        seen = []
        for block in blocks:
            with asked.autocast():
                tokens = block(tokens)
                mixed, values = self.pooler.attend(tokens)
            seen.append(look(self.pooler, self.folded, mixed, values))
        shape = (len(tokens), len(asked.directions))
        keys = seen[0].values.shape[2]
        numbers = self.folded.numbers + self.pooler.heads * keys
        bound = budget(self.chunk_bytes, 1, numbers, self.folded.out.dtype, tokens.device)
        total = asked.directions.new_zeros(*shape, keys - self.pooler.skipped)
        for chunk in chunks(shape, asked.selected, bound.pairs, tokens.device):
            # Without a selection all images of a chunk have the same queries: lifted once.
            queries = chunk.queries[:1] if asked.selected is None else chunk.queries
            directions = asked.directions[queries]
            lifted = lift(self.folded, directions)
            found = torch.zeros((), device=tokens.device, dtype=total.dtype)
            for row in seen:
                part = row.images(chunk.images)
                g = gradient_at_heads(self.folded, part, directions, lifted)
                found = found + row_relevance(part, g)
            add(total, chunk, found[..., self.pooler.skipped :])
        return tokens, total
