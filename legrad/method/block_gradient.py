"""LeGrad's relevance in closed form: pure tensor functions, no autograd, no hooks.

LeGrad (arXiv 2404.03214, section 3) scores layer l by the model's own head applied to the mean
token, ``s^l = < normalize(ln_post(zbar^l) @ proj), t >``, and takes as relevance of token j

    E^l_j = 1 / (H T)  sum_h sum_i  max(d s^l / d A^l_hij, 0)

with A^l the block's own softmax attention. ``s^l`` depends on ``A^l`` only through block l, so with
``v_hj`` the values and ``g_hi`` the gradient at head h's output for query token i

    d s^l / d A^l_hij = < g_hi, v_hj >.

``g`` follows from ``g_z``, the gradient at the block's output, which the mean pooling makes the
same for every token. The block's constant matrices are folded once (`fold`). The intermediates of
the forward pass do not depend on the query (`pool`, `trace`). Each (image, query) pair then costs
one F x D product per token and the T x T product above (`block_relevance`).

The gradient is held features first, (D, b, q, T): a head is then a block of rows, and the sum over
query tokens i runs along memory.
"""

import math
from dataclasses import dataclass, replace

import torch
from open_clip.transformer import QuickGELU
from timm.layers import activations as timm_act
from torch import Tensor, nn

from legrad.errors import SUPPORTED_TOWERS, UnsupportedModelError
from legrad.towers.base import Head, PlainBlock

TINY = 1e-12
"""Smallest length that an embedding is divided by."""


@dataclass(frozen=True)
class FoldedBlock:
    """Constant matrices of one block's backward pass, in the dtype it is computed in.

    Attributes:
        down: (F, D), the transpose of ``diag(ls2) W2``: from ``g_z`` to the gradient u at the
            activation's output.
        up: (D, F), the transpose of ``W1 diag(gamma2)`` with row means removed (the mean term of
            ln_2's gradient), then ``diag(ls1) W_out``.
        out: (D, D), ``diag(ls1) W_out``: attention output projection.
        shift: (F,), ``b1 + W1 beta2``: ``hidden - shift = W1 diag(gamma2) xhat``; never rounded.
    """

    down: Tensor
    up: Tensor
    out: Tensor
    shift: Tensor


@dataclass(frozen=True)
class Pooled:
    """The head's forward pass on the mean token of every image.

    Attributes:
        xhat: (B, D), the mean token as ln_post normalises it.
        sigma: (B, 1), its standard deviation.
        count: T.
        unit: (B, E), the normalised embedding; None if the head does not normalise.
        length: (B, 1), length of the embedding before it was normalised; None as for ``unit``.
    """

    xhat: Tensor
    sigma: Tensor
    count: int
    unit: Tensor | None = None
    length: Tensor | None = None

    def images(self, part: slice) -> "Pooled":
        """A view of some of the images."""
        unit, length = (None if rows is None else rows[part] for rows in (self.unit, self.length))
        return Pooled(self.xhat[part], self.sigma[part], self.count, unit, length)


@dataclass(frozen=True)
class Trace:
    """The intermediates of a block's forward pass that its gradient needs.

    Attributes:
        values: (B, H, T, d), the attention's values.
        slope: (B, T, F), ``act'(hidden) / sigma``.
        tilt: (B, T, F), ``slope * (hidden - shift) / D``.
        carried: (D, B, T), ``xhat @ out``, features first.
    """

    values: Tensor
    slope: Tensor
    tilt: Tensor
    carried: Tensor

    def images(self, part: slice) -> "Trace":
        """A view of some of the images."""
        return Trace(self.values[part], self.slope[part], self.tilt[part], self.carried[:, part])


def fold(block: PlainBlock, dtype: torch.dtype) -> FoldedBlock:
    """Multiply out the matrices that depend on neither image nor query."""
    w_out = block.out.weight
    out = w_out if block.ls_1 is None else block.ls_1[:, None] * w_out
    down = block.down.weight
    if block.ls_2 is not None:
        down = block.ls_2[:, None] * down
    gamma, beta = block.ln_2.weight, block.ln_2.bias
    scaled = block.up.weight * gamma
    centred = scaled - scaled.mean(dim=1, keepdim=True)
    shift = block.up.weight @ beta + block.up.bias
    up = (out.T @ centred.T).contiguous()
    exact = torch.promote_types(shift.dtype, torch.float32)
    down = down.T.contiguous()
    return FoldedBlock(down.to(dtype), up.to(dtype), out.to(dtype), shift.to(exact))


def trace(block: PlainBlock, folded: FoldedBlock, x: Tensor) -> tuple[Tensor, Trace]:
    """Run a block forward and keep the intermediates of its gradient.

    Args:
        x: (B, T, D) tokens that enter the block.

    Returns:
        tokens (B, T, D) that leave it, and the trace in the dtype of the folded matrices.
    """
    mixed, value = block.attend(x)
    x1 = block.project(x, mixed)
    hidden, tokens = block.feed(x1)  # (B, T, F), (B, T, D)
    dtype, exact = folded.up.dtype, folded.shift.dtype
    x1, hidden = x1.to(exact), hidden.to(exact)
    inverse_sigma = (x1.var(dim=-1, correction=0, keepdim=True) + block.ln_2.eps).rsqrt()
    xhat = (x1 - x1.mean(dim=-1, keepdim=True)) * inverse_sigma
    slope = derivative(block.activation, hidden).mul_(inverse_sigma)
    tilt = (hidden - folded.shift).mul_(slope).div_(x.shape[-1])
    carried = xhat.to(dtype) @ folded.out  # (B, T, D)
    return tokens, Trace(
        values=value.to(dtype).contiguous(),
        slope=slope.to(dtype),
        tilt=tilt.to(dtype),
        carried=carried.permute(2, 0, 1).contiguous(),
    )


def derivative(activation: nn.Module, hidden: Tensor) -> Tensor:
    """``act'(hidden)``, elementwise.

    Raises:
        UnsupportedModelError: no derivative is implemented for the activation.
    """
    if isinstance(activation, QuickGELU | timm_act.QuickGELU):  # x sigmoid(1.702 x)
        gate = torch.sigmoid(1.702 * hidden)
        slope = gate * (1 + 1.702 * hidden * (1 - gate))
    elif _is_tanh(activation):
        root = (2 / torch.pi) ** 0.5
        tanh = torch.tanh(root * (hidden + 0.044715 * hidden**3))
        inner = root * (1 + 3 * 0.044715 * hidden**2)
        slope = 0.5 * (1 + tanh) + 0.5 * hidden * (1 - tanh**2) * inner
    elif isinstance(activation, nn.GELU | timm_act.GELU):  # x Phi(x)
        phi = hidden.square().mul_(-0.5).exp_().mul_((2 * torch.pi) ** -0.5)
        slope = (hidden * 0.5**0.5).erf_().add_(1).mul_(0.5).addcmul_(hidden, phi)
    else:
        raise UnsupportedModelError(
            f"no derivative is implemented for the activation {type(activation).__name__}; "
            f"{SUPPORTED_TOWERS}."
        )
    return slope


def _is_tanh(activation: nn.Module) -> bool:
    approximate = getattr(activation, "approximate", None)  # nn.GELU's
    return isinstance(activation, timm_act.GELUTanh) or approximate == "tanh"


def pool(tokens: Tensor, head: Head) -> Pooled:
    """Embedding of a layer, head(mean token), and the intermediates of its gradient.

    Args:
        tokens: (B, T, D) output of the block.
        head: head of the tower; it must have a norm.
    """
    norm = final_norm(head)
    mean = tokens.mean(dim=1)
    sigma = (mean.var(dim=-1, correction=0, keepdim=True) + norm.eps).sqrt()
    xhat = (mean - mean.mean(dim=-1, keepdim=True)) / sigma
    pooled = Pooled(xhat, sigma, tokens.shape[1])
    if not head.normalised:
        return pooled
    feature = xhat * norm.weight + norm.bias
    if head.matrix is not None:
        feature = feature @ head.matrix.to(mean.dtype)
    if head.bias is not None:
        feature = feature + head.bias
    length = torch.linalg.vector_norm(feature, dim=-1, keepdim=True).clamp_min(TINY)
    return replace(pooled, unit=feature / length, length=length)


def head_gradient(pooled: Pooled, head: Head, directions: Tensor) -> Tensor:
    """Gradient of the layer score at every token of the block's output.

    Args:
        directions: (B, q, E), the directions of each image.

    Returns:
        (B, q, D): mean pooling gives every token the same gradient.
    """
    norm, xhat, grad = final_norm(head), pooled.xhat[:, None], directions
    if pooled.unit is not None and pooled.length is not None:  # back through normalize
        unit = pooled.unit[:, None]
        along = (grad * unit).sum(dim=-1, keepdim=True)
        grad = (grad - along * unit) / pooled.length[:, None]
    if head.matrix is not None:
        grad = grad @ head.matrix.T.to(grad.dtype)
    grad = grad * norm.weight  # through the scale of ln_post
    tilt = (grad * xhat).mean(dim=-1, keepdim=True)
    grad = grad - grad.mean(dim=-1, keepdim=True) - tilt * xhat
    at_token: Tensor = grad / (pooled.sigma[:, None] * pooled.count)
    return at_token


def final_norm(head: Head) -> nn.LayerNorm:
    """The norm of a head; raises UnsupportedModelError if it has none, as with a pooler."""
    if head.norm is None:
        raise UnsupportedModelError(f"the tower's head lacks a norm; {SUPPORTED_TOWERS}.")
    return head.norm


@dataclass(frozen=True)
class Scratch:
    """Memory reused by all chunks, because allocating fresh pages costs more than filling them.

    Attributes:
        hidden: holds (b, q, T, F).
        gradient: holds (D, b, q, T).
        products: holds (n, T, q T) for the n heads that are worked on at once, at least one.
    """

    hidden: Tensor
    gradient: Tensor
    products: Tensor


def block_relevance(folded: FoldedBlock, traced: Trace, g_z: Tensor, scratch: Scratch) -> Tensor:
    """LeGrad relevance of every token, for a chunk of images and queries.

    Args:
        traced: trace of b images.
        g_z: (b, q, D) gradient at the block's output.
        scratch: its arrays are overwritten.

    Returns:
        (b, q, T) in the dtype of ``g_z``, non-negative; index 0 is the class token.
    """
    images, queries, width = g_z.shape
    count = traced.values.shape[2]
    # Relevance is linear in the size of g_z, which is scaled to 1 until the end: half precision
    # cannot hold gradients this small.
    size = g_z.abs().amax(dim=-1, keepdim=True)
    unit = (g_z / size.clamp_min(torch.finfo(g_z.dtype).tiny)).to(folded.up.dtype)

    u = (folded.down @ unit.view(-1, width).T).T.contiguous().view(images, queries, -1)  # (b, q, F)
    hidden = view(scratch.hidden, images, queries, count, u.shape[2])
    torch.mul(traced.slope[:, None], u[:, :, None], out=hidden)  # back through act, 1 / sigma
    along_xhat = u @ traced.tilt.transpose(1, 2)  # (b, q, T)
    residual = (unit @ folded.out).permute(2, 0, 1).contiguous()[..., None]  # (D, b, q, 1)
    g = view(scratch.gradient, width, images, queries, count)
    torch.addcmul(residual, along_xhat, traced.carried[:, :, None], value=-1, out=g)
    g.view(width, -1).addmm_(folded.up, hidden.view(-1, u.shape[2]).T)  # through W1 and W_out

    return clamped_mean(traced.values, g, scratch) * size


def clamped_mean(values: Tensor, g: Tensor, scratch: Scratch) -> Tensor:
    """``1 / (H T)  sum_h sum_i  max(< g_hi, v_hj >, 0)``: (b, q, T).

    Args:
        values: (b, H, T, d).
        g: (H d, b, q, T) gradients at the heads' outputs, in the dtype of the values.
        scratch: `Scratch.products` is overwritten.
    """
    images, heads, count, _ = values.shape
    queries = g.shape[2]
    exact = torch.promote_types(g.dtype, torch.float32)
    g = g.view(heads, -1, images, queries * count)  # (H, d, b, q T)
    at_once = scratch.products.numel() // (queries * count * count)
    total = g.new_zeros(images, count, queries, dtype=exact)
    for image in range(images):
        for start in range(0, heads, at_once):
            part = slice(start, start + at_once)
            some_heads = values[image, part]  # (n, T, d)
            products = view(scratch.products, len(some_heads), count, queries * count)
            torch.bmm(some_heads, g[part, :, image], out=products).clamp_min_(0)  # max(ds/dA, 0)
            over_i = products.view(-1, count, queries, count).sum(dim=-1, dtype=exact)
            total[image] += over_i.sum(dim=0)
    return total.transpose(1, 2) / (heads * count)


def view(flat: Tensor, *shape: int) -> Tensor:
    """The first numbers of a flat array, in a shape."""
    return flat[: math.prod(shape)].view(shape)
