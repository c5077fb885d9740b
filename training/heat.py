"""LeGrad's map, differentiable, so that the training of the mini model can have a loss on it.

`legrad.method.block_gradient` computes the same map in place and without autograd, for many
queries. Here autograd keeps every intermediate.
"""

from dataclasses import dataclass

import torch
from open_clip import CLIP
from torch import Tensor

from legrad.towers import ClipTower, Head, PlainBlock


@dataclass(frozen=True)
class Traced:
    """One forward pass.

    Attributes:
        states: tokens (B, T, D) after every block.
        maps: (B, q, patches), summed over the explained blocks; not normalised.
    """

    states: list[Tensor]
    maps: Tensor


def trace_maps(model: CLIP, pixels: Tensor, directions: Tensor, blocks: int) -> Traced:
    """Run the tower and explain its last blocks.

    Args:
        model: the model in training.
        pixels: normalised images (B, 3, side, side).
        directions: unit text features (B, q, E), those of each image.
        blocks: how many last blocks are explained.
    """
    tower = ClipTower(model.visual)
    tokens: Tensor = model.visual._embeds(pixels)
    states: list[Tensor] = []
    maps: list[Tensor] = []
    for number, block in enumerate(tower.blocks, start=1):
        mixed, values = block.attend(tokens)
        x1 = block.project(tokens, mixed)
        hidden, tokens = block.feed(x1)
        states.append(tokens)
        if number > len(tower.blocks) - blocks:
            at_output = _head_gradient(tower.head, tokens.float().mean(dim=1), directions)
            at_heads = _block_gradient(block, x1.float(), hidden.float(), at_output)
            maps.append(_relevance(at_heads, values.float()))
    return Traced(states, torch.stack(maps).sum(dim=0))


def _head_gradient(head: Head, mean: Tensor, directions: Tensor) -> Tensor:
    """(B, q, D) gradient of < normalize(ln_post(mean) @ proj), t > at the mean token (B, D)."""
    norm, proj = head.norm, head.matrix
    if norm is None or proj is None:
        raise TypeError("the mini model's head has a norm and a matrix")
    centred = mean - mean.mean(dim=-1, keepdim=True)
    sigma = (centred.square().mean(dim=-1, keepdim=True) + norm.eps).sqrt()
    xhat = centred / sigma
    feature = (xhat * norm.weight + norm.bias) @ proj
    length = feature.norm(dim=-1, keepdim=True)
    unit = (feature / length)[:, None]
    along = (directions * unit).sum(dim=-1, keepdim=True)
    grad = ((directions - along * unit) @ proj.T) * norm.weight
    grad = _through_norm(grad, xhat[:, None])
    at_mean: Tensor = grad / (length * sigma)[:, None]
    return at_mean


def _block_gradient(block: PlainBlock, x1: Tensor, hidden: Tensor, grad: Tensor) -> Tensor:
    """(B, q, T, D) gradient at the heads' outputs, from ``grad`` (B, q, D) at the block's output.

    The activation is the exact GELU: its derivative is ``Phi(x) + x phi(x)``.
    """
    density = torch.exp(-0.5 * hidden.square()) * (2 * torch.pi) ** -0.5
    slope = 0.5 * (1 + torch.erf(hidden * 0.5**0.5)) + hidden * density  # (B, T, F)
    at_hidden = slope[:, None] * (grad @ block.down.weight)[:, :, None]  # (B, q, T, F)
    centred = x1 - x1.mean(dim=-1, keepdim=True)
    sigma = (centred.square().mean(dim=-1, keepdim=True) + block.ln_2.eps).sqrt()
    at_normed = (at_hidden @ block.up.weight) * block.ln_2.weight
    branch = _through_norm(at_normed, (centred / sigma)[:, None]) / sigma[:, None]
    at_heads: Tensor = (branch + grad[:, :, None]) @ block.out.weight
    return at_heads


def _through_norm(grad: Tensor, xhat: Tensor) -> Tensor:
    """Back through a normalisation, without its division by sigma."""
    tilt = (grad * xhat).mean(dim=-1, keepdim=True)
    return grad - grad.mean(dim=-1, keepdim=True) - tilt * xhat


def _relevance(at_heads: Tensor, values: Tensor) -> Tensor:
    """``mean_hi max(< g_hi, v_hj >, 0)`` of every patch j: (B, q, patches)."""
    heads, _, size = values.shape[1:]
    at_heads = at_heads.unflatten(-1, (heads, size))  # (B, q, i, H, d)
    products = torch.einsum("bqihd,bhjd->bqhij", at_heads, values)
    return products.clamp(min=0).mean(dim=(2, 3))[:, :, 1:]
