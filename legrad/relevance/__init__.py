"""Where the gradient is taken: against a pooler's attention, or against each block's own."""

import torch

from legrad.relevance.base import Asked, Relevance
from legrad.relevance.blocks import BlockRelevance
from legrad.relevance.pooler import PoolerRelevance
from legrad.towers import Tower

__all__ = ["Asked", "Relevance", "relevance_of"]


def relevance_of(
    tower: Tower,
    layers: int,
    dtypes: tuple[torch.dtype, torch.dtype],
    chunk_bytes: int,
    *,
    compiled: bool,
) -> Relevance:
    """The kind of relevance that fits a tower.

    Args:
        layers: how many last blocks are explained.
        dtypes: of large products, and of what comes out.
        chunk_bytes: bound in bytes on the arrays of the pairs that are worked on at once.
        compiled: run the work per pair through `torch.compile`, where it is a closed form.
    """
    compute, exact = dtypes
    if tower.pooler is not None:
        return PoolerRelevance(tower.pooler, exact, chunk_bytes)
    return BlockRelevance(tower, layers, compute, chunk_bytes, compiled=compiled)
