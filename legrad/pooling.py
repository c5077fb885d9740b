"""LeGrad's relevance of an attentional pooler in closed form: pure tensor functions, as `gradient`.

A pooler has one row of attention a head. LeGrad (arXiv 2404.03214, section 3.3) runs it on every
explained layer's tokens and differentiates against that row,

    E^l_j = 1 / H  sum_h  max(< g_h, v_hj >, 0),

with v_hj the pooler's values on the tokens of layer l and g_h the gradient of the layer score at
head h's output. The score is the model's whole head: with y the output of the pooler's attention,

    z = y + W2 act(W1 norm(y) + b1) + b2   (SigLIP's MLP; z = y in CoCa)
    f = norm(z) M + c                      (CoCa's ln_post and projection; SigLIP has neither)
    s = < f / |f|, t >.

One row has to be carried back, and up to the MLP's activation that is linear in the direction t
with matrices no image changes: `lift` multiplies a direction by these once for all images and
layers of a chunk. The head's norms only add vectors of the image, times numbers of the pair
(`gradient_at_heads`). What remains per pair is one product with the MLP's folded matrix, and
< g_h, v_hj >; without an MLP, only the latter.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from legrad.gradient import derivative
from legrad.towers.base import Head, Mlp, Pooler

_TINY = 1e-12


@dataclass(frozen=True)
class FoldedMlp:
    """The pooler's MLP.

    Attributes:
        down: (D, F), W2.
        up: (F, H d), ``W1 diag(gamma)`` with row means removed, then ``W_out``.
        shift: (F,), ``b1 + W1 beta``.
    """

    down: Tensor
    up: Tensor
    shift: Tensor


@dataclass(frozen=True)
class FoldedPooler:
    """Constant matrices of the way back, none of them rounded below float32.

    Attributes:
        out: (D, H d), the attention's output projection.
        back: (E, D), the transpose of ``diag(gamma) M`` with row means removed where the head has a
            norm; None for the identity.
        slopes: (E, D), the transpose of ``diag(gamma) M``; None without a norm.
        mlp: None where the pooler has none.
        lifts: what `lift` multiplies a direction by: (E, H d), and (E, F) with an MLP.
    """

    out: Tensor
    back: Tensor | None
    slopes: Tensor | None
    mlp: FoldedMlp | None
    lifts: tuple[Tensor, ...]

    @property
    def numbers(self) -> int:
        """Numbers that a pair takes, but for the products with the values."""
        return 2 * sum(matrix.shape[1] for matrix in self.lifts)


@dataclass(frozen=True)
class PooledRow:
    """What the pooler's forward pass on one layer's tokens leaves behind, for every image.

    Attributes:
        values: (B, H, T, d).
        unit: (B, E), the layer's own embedding; length: (B, 1) before normalisation.
        along: `lift` of ``unit``, a row an image.
        zhat: (B, D) what the head's norm makes of z, before its scale; None without a norm.
        sigma: (B, 1) its standard deviation; 1 without a norm.
        slope: (B, F), ``act'(hidden) / sigma`` of the MLP; tilt: (B, F), ``slope * (hidden - shift)
            / D``; carried: (B, H d), ``yhat @ out``; None without an MLP.
    """

    values: Tensor
    unit: Tensor
    length: Tensor
    along: tuple[Tensor, ...]
    zhat: Tensor | None
    sigma: Tensor
    slope: Tensor | None = None
    tilt: Tensor | None = None
    carried: Tensor | None = None

    def images(self, part: slice) -> "PooledRow":
        """The same of some images; a view."""
        cut = {name: None if rows is None else rows[part] for name, rows in self._rows().items()}
        return PooledRow(along=tuple(rows[part] for rows in self.along), **cut)  # type: ignore[arg-type]

    def _rows(self) -> dict[str, Tensor | None]:
        return {name: rows for name, rows in vars(self).items() if name != "along"}


def fold_pooler(pooler: Pooler, dtype: torch.dtype) -> FoldedPooler:
    """Multiply out what no image and no query changes, in ``dtype``."""
    out = pooler.out.weight.to(dtype)
    back, slopes = _fold_head(pooler.head, dtype)
    mlp = None if pooler.mlp is None else _fold_mlp(pooler.mlp, out)
    first = (out,) if mlp is None else (out, mlp.down)
    lifts = first if back is None else tuple(back @ matrix for matrix in first)
    return FoldedPooler(out, back, slopes, mlp, lifts)


def _fold_head(head: Head, dtype: torch.dtype) -> tuple[Tensor | None, Tensor | None]:
    if head.matrix is None:
        return None, None
    matrix = head.matrix.T.to(dtype)
    if head.norm is None:
        return matrix, None
    scaled = matrix * head.norm.weight.to(dtype)
    return scaled - scaled.mean(dim=1, keepdim=True), scaled


def _fold_mlp(mlp: Mlp, out: Tensor) -> FoldedMlp:
    gamma, beta = mlp.norm.weight.to(out.dtype), mlp.norm.bias.to(out.dtype)
    weight, bias = mlp.up.weight.to(out.dtype), mlp.up.bias.to(out.dtype)
    scaled = weight * gamma
    up = (scaled - scaled.mean(dim=1, keepdim=True)) @ out
    return FoldedMlp(mlp.down.weight.to(out.dtype), up, bias + weight @ beta)


def lift(folded: FoldedPooler, directions: Tensor) -> tuple[Tensor, ...]:
    """Directions (..., E) -> the part of their way back that no image changes.

    Returns:
        (..., H d): to the heads' outputs past the MLP; and (..., F) with one: to its activation.
    """
    return tuple(directions @ matrix for matrix in folded.lifts)


def look(pooler: Pooler, folded: FoldedPooler, mixed: Tensor, values: Tensor) -> PooledRow:
    """The head's forward pass behind the pooler's attention, and what its gradient needs.

    Args:
        mixed: (B, H d) outputs of the heads.
        values: (B, H, T, d).
    """
    dtype, head = folded.out.dtype, pooler.head
    out_bias = 0 if pooler.out.bias is None else pooler.out.bias.to(dtype)
    y = mixed.to(dtype) @ folded.out.T + out_bias
    z = y
    mlp_rows: dict[str, Tensor] = {}
    if pooler.mlp is not None and folded.mlp is not None:
        z, mlp_rows = _through_mlp(pooler.mlp, folded.mlp, folded.out, y)
    sigma, zhat, normed = torch.ones_like(z[:, :1]), None, z
    if head.norm is not None:
        zhat, inverse = _standardised(z, head.norm.eps)
        sigma = 1 / inverse
        normed = zhat * head.norm.weight.to(dtype) + head.norm.bias.to(dtype)
    feature = normed if head.matrix is None else normed @ head.matrix.to(dtype)
    if head.bias is not None:
        feature = feature + head.bias.to(dtype)
    length = torch.linalg.vector_norm(feature, dim=-1, keepdim=True).clamp_min(_TINY)
    unit = feature / length
    return PooledRow(
        values=values.to(dtype).contiguous(),
        unit=unit,
        length=length,
        along=lift(folded, unit),
        zhat=zhat,
        sigma=sigma,
        **mlp_rows,
    )


def _standardised(rows: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    inverse = (rows.var(dim=-1, correction=0, keepdim=True) + eps).rsqrt()
    return (rows - rows.mean(dim=-1, keepdim=True)) * inverse, inverse


def _through_mlp(
    mlp: Mlp, folded: FoldedMlp, out: Tensor, y: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    yhat, inverse = _standardised(y, mlp.norm.eps)
    centred = (yhat * mlp.norm.weight.to(y.dtype)) @ mlp.up.weight.to(y.dtype).T
    hidden = centred + folded.shift
    down_bias = 0 if mlp.down.bias is None else mlp.down.bias.to(y.dtype)
    z = y + mlp.activation(hidden) @ folded.down.T + down_bias
    slope = derivative(mlp.activation, hidden) * inverse
    rows = {"slope": slope, "tilt": slope * centred / y.shape[-1], "carried": yhat @ out}
    return z, rows


def gradient_at_heads(
    folded: FoldedPooler, seen: PooledRow, directions: Tensor, lifted: tuple[Tensor, ...]
) -> Tensor:
    """Gradient of the layer score at the outputs of the pooler's heads.

    Args:
        seen: of b images.
        directions: (b or 1, q, E).
        lifted: their `lift`.

    Returns:
        (b, q, H d).
    """
    unit = seen.unit[:, None]
    along = (directions * unit).sum(dim=-1, keepdim=True)  # (b, q, 1)
    rows = [part - along * own[:, None] for part, own in zip(lifted, seen.along, strict=True)]
    if seen.zhat is not None and folded.slopes is not None:  # the head's norm
        slant = (seen.zhat @ folded.slopes.T)[:, None] / seen.zhat.shape[-1]  # (b, 1, E)
        tilt = ((directions - along * unit) * slant).sum(dim=-1, keepdim=True)
        matrices = (folded.out,) if folded.mlp is None else (folded.out, folded.mlp.down)
        rows = [
            row - tilt * (seen.zhat @ matrix)[:, None]
            for row, matrix in zip(rows, matrices, strict=True)
        ]
    g = rows[0]
    if folded.mlp is not None and seen.slope is not None and seen.tilt is not None:
        u = rows[1]  # (b, q, F), at the activation's output
        g = g + (u * seen.slope[:, None]) @ folded.mlp.up
        g = g - (u @ seen.tilt[:, :, None]) * _known(seen.carried)[:, None]
    return g / (seen.length * seen.sigma)[:, None]


def _known(rows: Tensor | None) -> Tensor:
    if rows is None:
        raise ValueError("a pooler with an MLP leaves `carried` behind")
    return rows


def row_relevance(seen: PooledRow, g: Tensor) -> Tensor:
    """``1 / H  sum_h  max(< g_h, v_hj >, 0)``: (b, q, T) from g (b, q, H d)."""
    images, heads, _, width = seen.values.shape
    by_head = g.view(images, -1, heads, width).transpose(1, 2)  # (b, H, q, d)
    products = by_head @ seen.values.transpose(2, 3)  # ds/dA (b, H, q, T)
    return products.clamp_min_(0).mean(dim=1)
