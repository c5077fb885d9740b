"""LeGrad by plain autograd in float64: slow, obvious and independent of the package.

Written from the definition (arXiv 2404.03214): in every explained block the attention matrix is
a leaf, the block's own score is computed from it, and the score is differentiated.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class BlockState:
    """What a block sees of one image: its input tokens (T,D) and attention (heads,T,T)."""

    block: nn.Module
    tokens: Tensor
    attention: Tensor


def _norm(layer: nn.Module, x: Tensor) -> Tensor:
    if isinstance(layer, nn.Identity):
        return x
    mean = x.mean(-1, keepdim=True)
    variance = ((x - mean) ** 2).mean(-1, keepdim=True)
    unit = (x - mean) / torch.sqrt(variance + layer.eps)
    return unit * layer.weight.double() + layer.bias.double()


def _linear(layer: nn.Linear, x: Tensor) -> Tensor:
    return x @ layer.weight.double().T + layer.bias.double()


def _scale(layer: nn.Module, x: Tensor) -> Tensor:
    return x if isinstance(layer, nn.Identity) else x * layer.gamma.double()


def _activation(layer: nn.Module, x: Tensor) -> Tensor:
    if isinstance(layer, nn.GELU) and layer.approximate == "none":
        return x * 0.5 * (1 + torch.erf(x / 2**0.5))
    return layer(x)


def _heads(block: nn.Module, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values of a block, each (heads, T, head width)."""
    attn = block.attn
    rows = _norm(block.ln_1, tokens) @ attn.in_proj_weight.double().T + attn.in_proj_bias.double()
    count, width = tokens.shape
    q, k, v = (
        part.reshape(count, attn.num_heads, width // attn.num_heads).transpose(0, 1)
        for part in rows.split(width, dim=-1)
    )
    return q, k, v


def block_output(block: nn.Module, tokens: Tensor, attention: Tensor) -> Tensor:
    """Output tokens (T,D) of a block whose attention matrix is given."""
    _, _, v = _heads(block, tokens)
    mixed = (attention @ v).transpose(0, 1).reshape(tokens.shape)
    x = tokens + _scale(block.ls_1, _linear(block.attn.out_proj, mixed))
    hidden = _activation(block.mlp.gelu, _linear(block.mlp.c_fc, _norm(block.ln_2, x)))
    return x + _scale(block.ls_2, _linear(block.mlp.c_proj, hidden))


def layer_score(visual: nn.Module, tokens: Tensor, direction: Tensor) -> Tensor:
    """The model's head on the mean of all tokens, class token included, against a direction."""
    feature = _norm(visual.ln_post, tokens.mean(0)) @ visual.proj.double()
    return feature / feature.norm() @ direction


def _positions(visual: nn.Module, grid: tuple[int, int]) -> Tensor:
    table = visual.positional_embedding.double()
    native = tuple(visual.grid_size)
    if grid == native:
        return table
    patches = table[1:].reshape(*native, -1).permute(2, 0, 1)[None]
    patches = F.interpolate(patches, grid, mode="bicubic", align_corners=False, antialias=True)
    return torch.cat([table[:1], patches[0].permute(1, 2, 0).reshape(grid[0] * grid[1], -1)])


def _embed(visual: nn.Module, image: Tensor) -> tuple[Tensor, tuple[int, int]]:
    """First tokens (T,D) and patch grid of one image (3,H,W)."""
    patch_h, patch_w = visual.conv1.kernel_size
    grid = (image.shape[1] // patch_h, image.shape[2] // patch_w)
    kernel = visual.conv1.weight.double().flatten(1)
    columns = F.unfold(image.double()[None], (patch_h, patch_w), stride=(patch_h, patch_w))[0]
    tokens = torch.cat([visual.class_embedding.double()[None], columns.T @ kernel.T])
    return _norm(visual.ln_pre, tokens + _positions(visual, grid)), grid


def states(visual: nn.Module, image: Tensor) -> Iterator[BlockState]:
    """Tokens and attention of every block for one normalised image (3,H,W), first block first."""
    tokens, _ = _embed(visual, image)
    for block in visual.transformer.resblocks:
        q, k, _ = _heads(block, tokens)
        attention = torch.softmax(q @ k.transpose(1, 2) / q.shape[-1] ** 0.5, dim=-1)
        yield BlockState(block, tokens, attention)
        tokens = block_output(block, tokens, attention)


def _image_feature(visual: nn.Module, tokens: Tensor) -> Tensor:
    """The model's own image embedding (unit), from the tokens after its last block."""
    if visual.pool_type == "tok":
        pooled = _norm(visual.ln_post, tokens[0])
    elif visual.final_ln_after_pool:
        pooled = _norm(visual.ln_post, tokens[1:].mean(0))
    else:
        pooled = _norm(visual.ln_post, tokens[1:]).mean(0)
    feature = pooled @ visual.proj.double()
    return feature / feature.norm()


def _relevance(visual: nn.Module, state: BlockState, direction: Tensor) -> Tensor:
    """Relevance (T,) of every key token of one block for one direction."""
    with torch.enable_grad():
        attention = state.attention.detach().clone().requires_grad_()
        score = layer_score(
            visual, block_output(state.block, state.tokens, attention), direction.double()
        )
        (gradient,) = torch.autograd.grad(score, attention)
    return gradient.clamp(min=0).mean(dim=(0, 1))


@torch.no_grad()
def oracle_maps(
    clip_module: nn.Module, pixels: Tensor, directions: Tensor, layers: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Maps (B,Q,h,w), scores (B,Q) and unit image features (B,E), all float64.

    `pixels` (B,3,H,W) are normalised, `layers` is the number of last blocks explained.
    """
    visual = clip_module.visual
    maps, features = [], []
    for image in pixels:
        _, grid = _embed(visual, image)
        blocks = list(states(visual, image))
        last = blocks[-1]
        features.append(
            _image_feature(visual, block_output(last.block, last.tokens, last.attention))
        )
        for direction in directions:
            keys = sum(_relevance(visual, state, direction) for state in blocks[-layers:])
            maps.append(keys[1:].reshape(grid))
    image_features = torch.stack(features)
    shape = (len(pixels), len(directions), *maps[0].shape)
    return (
        torch.stack(maps).reshape(shape),
        image_features @ directions.double().T,
        image_features,
    )
