"""LeGrad's relevance in closed form: pure tensor functions, no autograd, no hooks.

LeGrad (arXiv 2404.03214, section 3) scores layer l by the model's own head applied to the mean
token, ``s^l = < normalize(ln_post(zbar^l) @ proj), t >``, and takes as relevance of token j

    E^l_j = 1 / (H T)  sum_h sum_i  max(d s^l / d A^l_hij, 0)

with A^l the block's own softmax attention. ``s^l`` depends on ``A^l`` only through block l, so with
``v_hj`` the values and ``g_hi`` the gradient at head h's output for query token i

    d s^l / d A^l_hij = < g_hi, v_hj >.

``g`` follows from ``g_z``, the gradient at the block's output, which the mean pooling makes the
same for every token. The block's constant matrices are folded once (`fold`); what a forward pass
leaves behind is query independent (`trace`); what remains per (image, query) pair is one F x D
product per token and the T x T product above (`relevance`).
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from open_clip.transformer import QuickGELU
from torch import Tensor, nn

from legrad.errors import SUPPORTED_TOWERS, UnsupportedModelError
from legrad.towers import Block


@dataclass(frozen=True)
class FoldedBlock:
    """Constant matrices of one block's backward pass.

    Attributes:
        down: (D, F), ``diag(ls2) W2``: from ``g_z`` to the gradient u at the activation's output.
        up: (F, D), ``W1 diag(gamma2)`` with row means removed (the mean term of ln_2's gradient),
            then ``diag(ls1) W_out``.
        out: (D, D), ``diag(ls1) W_out``: attention output projection.
        shift: (F,), ``b1 + W1 beta2``: ``hidden - shift = W1 diag(gamma2) xhat``.
    """

    down: Tensor
    up: Tensor
    out: Tensor
    shift: Tensor


@dataclass(frozen=True)
class Trace:
    """What one forward pass through a block leaves behind for its gradient.

    Attributes:
        tokens: (B, T, D) output of the block.
        values: (B, H, d, T) attention values, transposed.
        slope: (B, T, F), ``act'(hidden) / sigma``.
        tilt: (B, F, T), ``slope * (hidden - shift) / D``.
        carried: (B, T, D), ``xhat @ out``.
    """

    tokens: Tensor
    values: Tensor
    slope: Tensor
    tilt: Tensor
    carried: Tensor


def fold(block: Block) -> FoldedBlock:
    """Multiply out what no image and no query changes."""
    w_out = block.attention.out_proj.weight
    out = w_out if block.ls_1 is None else block.ls_1[:, None] * w_out
    down = block.down.weight
    if block.ls_2 is not None:
        down = block.ls_2[:, None] * down
    gamma, beta = block.ln_2.weight, block.ln_2.bias
    scaled = block.up.weight * gamma
    centred = scaled - scaled.mean(dim=1, keepdim=True)
    shift = block.up.weight @ beta + block.up.bias
    return FoldedBlock(down=down, up=centred @ out, out=out, shift=shift)


def trace(block: Block, folded: FoldedBlock, x: Tensor) -> Trace:
    """Run a block forward and keep what its gradient needs.

    Args:
        x: (B, T, D) tokens that enter the block.
    """
    batch, count, width = x.shape
    attention = block.attention
    qkv = F.linear(block.ln_1(x), attention.in_proj_weight, attention.in_proj_bias)
    query, key, value = qkv.reshape(batch, count, 3, block.heads, -1).permute(2, 0, 3, 1, 4)
    mixed = F.scaled_dot_product_attention(query, key, value)  # (B, H, T, d)
    mixed = attention.out_proj(mixed.transpose(1, 2).reshape(batch, count, width))
    x1 = x + (mixed if block.ls_1 is None else mixed * block.ls_1)

    hidden = block.up(block.ln_2(x1))  # (B, T, F)
    branch = block.down(block.activation(hidden))
    tokens = x1 + (branch if block.ls_2 is None else branch * block.ls_2)

    inverse_sigma = (x1.var(dim=-1, correction=0, keepdim=True) + block.ln_2.eps).rsqrt()
    xhat = (x1 - x1.mean(dim=-1, keepdim=True)) * inverse_sigma
    slope = derivative(block.activation, hidden).mul_(inverse_sigma)
    tilt = (hidden - folded.shift).mul_(slope).div_(width)
    return Trace(
        tokens=tokens,
        values=value.transpose(2, 3),
        slope=slope,
        tilt=tilt.transpose(1, 2),
        carried=xhat @ folded.out,
    )


def derivative(activation: nn.Module, hidden: Tensor) -> Tensor:
    """``act'(hidden)``, elementwise.

    Raises:
        UnsupportedModelError: the activation is none of GELU, tanh-GELU, QuickGELU.
    """
    slope: Tensor
    if isinstance(activation, QuickGELU):  # x sigmoid(1.702 x)
        gate = torch.sigmoid(1.702 * hidden)
        slope = gate * (1 + 1.702 * hidden * (1 - gate))
    elif isinstance(activation, nn.GELU) and activation.approximate == "tanh":
        root = (2 / torch.pi) ** 0.5
        tanh = torch.tanh(root * (hidden + 0.044715 * hidden**3))
        inner = root * (1 + 3 * 0.044715 * hidden**2)
        slope = 0.5 * (1 + tanh) + 0.5 * hidden * (1 - tanh**2) * inner
    elif isinstance(activation, nn.GELU):  # x Phi(x)
        phi = torch.exp(-0.5 * hidden**2) * (2 * torch.pi) ** -0.5
        slope = 0.5 * (1 + torch.erf(hidden * 0.5**0.5)) + hidden * phi
    else:
        raise UnsupportedModelError(
            f"the activation {type(activation).__name__} has no derivative here; "
            f"{SUPPORTED_TOWERS}."
        )
    return slope


def head_gradient(tokens: Tensor, norm: nn.LayerNorm, proj: Tensor, directions: Tensor) -> Tensor:
    """Gradient of the layer score at every token of the block's output.

    Args:
        tokens: (B, T, D) output of the block.
        norm: the tower's final LayerNorm.
        proj: (D, E) projection into the embedding space.
        directions: (Q, E) text features, or any directions.

    Returns:
        (B, Q, D); the mean pooling hands every token the same gradient.
    """
    pooled = tokens.mean(dim=1)  # (B, D)
    sigma = (pooled.var(dim=-1, correction=0, keepdim=True) + norm.eps).sqrt()
    xhat = (pooled - pooled.mean(dim=-1, keepdim=True)) / sigma
    feature = norm(pooled) @ proj  # (B, E)
    length = torch.linalg.vector_norm(feature, dim=-1, keepdim=True).clamp_min(_TINY)
    unit = feature / length

    along = (unit @ directions.T)[..., None]  # (B, Q, 1)
    grad = (directions - along * unit[:, None]) / length[:, None]  # back through normalize
    grad = (grad @ proj.T) * norm.weight  # back through proj and the scale of ln_post
    tilt = (grad * xhat[:, None]).mean(dim=-1, keepdim=True)
    grad = grad - grad.mean(dim=-1, keepdim=True) - tilt * xhat[:, None]
    at_token: Tensor = grad / sigma[:, None] / tokens.shape[1]
    return at_token


_TINY = 1e-12


def relevance(folded: FoldedBlock, seen: Trace, g_z: Tensor) -> Tensor:
    """LeGrad relevance of every token, for a chunk of images and queries.

    Args:
        seen: trace of b images.
        g_z: (b, q, D) gradient at the block's output.

    Returns:
        (b, q, T) float32 (float64 for float64 models), non-negative; index 0 is the class token.
    """
    images, queries, _ = g_z.shape
    heads, count = seen.values.shape[1], seen.values.shape[3]
    u = g_z @ folded.down  # (b, q, F)
    through_mlp = (seen.slope[:, None] * u[:, :, None]) @ folded.up  # (b, q, T, D)
    along_xhat = u @ seen.tilt  # (b, q, T)
    g = through_mlp.addcmul_(along_xhat[..., None], seen.carried[:, None], value=-1)
    g += (g_z @ folded.out)[:, :, None]
    g = g.view(images, queries * count, heads, -1).transpose(1, 2)  # (b, H, q T, d)
    sensitivity = (g @ seen.values).clamp_(min=0)  # (b, H, q T, T): max(ds/dA, 0)
    sensitivity = sensitivity.view(images, heads, queries, count, count)
    dtype = torch.promote_types(sensitivity.dtype, torch.float32)
    return sensitivity.sum(dim=(1, 3), dtype=dtype) / (heads * count)
