"""Relevance of many queries of one image, by way of a basis of the embedding space.

Until the clamp, the gradient ``g`` of `legrad.method.block_gradient` is linear in a query's
direction. With ``J_e`` the gradient of the e-th unit vector of the E-dimensional embedding space,

    g(t) = sum_e t_e J_e,

and ``max(< g_hi, v_hj >, 0)`` follows as for a single query. Multiply-adds per token:

    every query on its own      Q F D
    by way of the basis         E F D + Q E D

plus T D for each query in both. The basis thus needs fewer from ``Q = E F / (F - E)`` on, 614
queries for ViT-B-16 (E = 512, F = 3072), and only E / F of them with very many queries. All J_e of
an image would take E T D numbers, 310 MB for ViT-B-16, so a few query tokens i are worked on at
once: the sum over i can be taken in any order.
"""

import torch
from torch import Tensor

from legrad.method.block_gradient import FoldedBlock, Scratch, Trace, view

LEAST_GAIN = 1.2
"""The basis is used from this factor times the number of queries at which both ways need equally
many operations, because its smaller products take longer per operation."""


def fewest_queries(embed_dim: int, hidden: int) -> int | None:
    """Number of queries of an image from which the basis is faster; None if it never is.

    Args:
        embed_dim: E.
        hidden: F, width of the MLP.
    """
    if embed_dim >= hidden:
        return None
    return round(LEAST_GAIN * embed_dim * hidden / (hidden - embed_dim))


def numbers_per_token(embed_dim: int, hidden: int, width: int) -> int:
    """Scratch for each query token, with as many queries at once as the basis has vectors."""
    return embed_dim * (hidden + 2 * width)


def basis_relevance(
    folded: FoldedBlock, traced: Trace, g_basis: Tensor, directions: Tensor, scratch: Scratch
) -> Tensor:
    """LeGrad relevance of every token of one image for many queries.

    Args:
        traced: trace of the image.
        g_basis: (1, E, D), gradients at the block's output for the unit vectors of the embedding
            space.
        directions: (Q, E).
        scratch: its arrays are overwritten; it must hold `numbers_per_token` for one token.

    Returns:
        (1, Q, T) in the dtype of ``g_basis``, non-negative; index 0 is the class token.
    """
    _, basis, width = g_basis.shape
    _, heads, count, _ = traced.values.shape
    dtype, tiny = folded.up.dtype, torch.finfo(g_basis.dtype).tiny
    # Both factors are scaled to 1 until the end: half precision cannot hold numbers this small.
    size = g_basis.abs().amax().clamp_min(tiny)
    unit = (g_basis[0] / size).to(dtype)  # (E, D)
    length = directions.abs().amax(dim=1, keepdim=True).clamp_min(tiny)
    queries = (directions / length).to(dtype).T.contiguous()  # (E, Q)

    u = unit @ folded.down.T  # (E, F)
    along_xhat = traced.tilt[0] @ u.T  # (T, E)
    residual = (unit @ folded.out).T[:, None]  # (D, 1, E)
    exact = torch.promote_types(dtype, torch.float32)
    total = g_basis.new_zeros(count, len(directions), dtype=exact)
    at_once = min(
        scratch.hidden.numel() // u.numel(),
        scratch.gradient.numel() // (2 * width * basis),
        scratch.products.numel() // (count * basis),
    )
    for start in range(0, count, at_once):
        part = slice(start, min(start + at_once, count))
        tokens = part.stop - part.start
        hidden = view(scratch.hidden, tokens, *u.shape)
        torch.mul(traced.slope[0, part, None], u, out=hidden)  # back through act, 1 / sigma
        jacobian = view(scratch.gradient, width, tokens, basis)
        carried = traced.carried[:, 0, part, None]  # (D, t, 1)
        torch.addcmul(residual, along_xhat[part], carried, value=-1, out=jacobian)
        jacobian.view(width, -1).addmm_(folded.up, hidden.view(-1, u.shape[1]).T)  # W1, W_out
        _add_clamped(total, traced.values[0], jacobian, queries, scratch)
    return (total.T * (length * size / (heads * count)))[None].to(g_basis.dtype)


def _add_clamped(
    total: Tensor, values: Tensor, jacobian: Tensor, queries: Tensor, scratch: Scratch
) -> None:
    """Add ``sum_h sum_i  max(< g_hi, v_hj >, 0)`` of some query tokens i to the total.

    Args:
        total: (T, Q).
        values: (H, T, d).
        jacobian: (H d, t, E), the first numbers of `Scratch.gradient`.
        queries: (E, Q).
    """
    width, tokens, basis = jacobian.shape
    heads, count, _ = values.shape
    rest = scratch.gradient[jacobian.numel() :]
    for start in range(0, queries.shape[1], basis):
        some = queries[:, start : start + basis]
        g = view(rest, width * tokens, some.shape[1])
        torch.mm(jacobian.view(-1, basis), some, out=g)
        by_head = g.view(heads, -1, tokens * some.shape[1])  # (H, d, t q)
        at_once = scratch.products.numel() // (count * by_head.shape[2])
        for first in range(0, heads, at_once):
            part = slice(first, first + at_once)
            products = view(scratch.products, len(values[part]), count, by_head.shape[2])
            torch.bmm(values[part], by_head[part], out=products).clamp_min_(0)  # max(ds/dA, 0)
            over_i = products.view(-1, count, tokens, some.shape[1])
            total[:, start : start + basis] += over_i.sum(dim=(0, 2), dtype=total.dtype)
