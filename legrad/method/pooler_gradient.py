"""LeGrad's relevance of an attentional pooler in closed form, as pure tensor functions.

A pooler has one row of attention per head. LeGrad (arXiv 2404.03214, section 3.3) runs it on every
explained layer's tokens and differentiates against that row,

    E^l_j = 1 / H  sum_h  max(< g_h, v_hj >, 0),

with v_hj the pooler's values on the tokens of layer l and g_h the gradient of the layer score at
head h's output. The score is the model's whole head: with y the output of the pooler's attention,

    z = y + W2 act(W1 norm(y) + b1) + b2   (SigLIP's MLP; z = y in CoCa)
    f = norm(z) M + c                      (CoCa's ln_post and projection; SigLIP has neither)
    s = < f / |f|, t >.

The gradient of s is carried back through one row only. From the direction t to the MLP's
activation the way back is linear, and its matrices do not depend on the image: `lift` multiplies a
direction by them once, for all images and layers of a chunk. The slope of the activation and the
MLP's norm depend on the image (`carry_back`). Normalising by |f| subtracts from t its component
along the embedding, and the head's norm subtracts the gradient's component along norm(z). Both
vectors depend on the image alone, so they are carried back once per image, and each pair only
scales them (`gradient_at_heads`); a classifier does not normalise and has only the second. A pair
thus costs one product with the MLP's folded matrix and < g_h, v_hj >; without an MLP only the
latter.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from legrad.method.block_gradient import TINY, derivative
from legrad.towers.base import Head, Mlp, Pooler


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
    """Constant matrices of the pooler's backward pass, in float32 or better.

    Attributes:
        out: (D, H d), the attention's output projection.
        slopes: (E, D), the transpose of ``diag(gamma) M``; None without a norm.
        mlp: None if the pooler has no MLP.
        first: matrices from the gradient at z to the heads' outputs along the residual branch,
            (D, H d), and with an MLP also to its activation, (D, F).
        lifts: such matrices from a direction: (E, H d) and (E, F).
    """

    out: Tensor
    slopes: Tensor | None
    mlp: FoldedMlp | None
    first: tuple[Tensor, ...]
    lifts: tuple[Tensor, ...]

    @property
    def numbers(self) -> int:
        """Numbers held per pair, not counting the products with the values."""
        return 2 * sum(matrix.shape[1] for matrix in self.lifts)


@dataclass(frozen=True)
class MlpRow:
    """The intermediates of the MLP's forward pass that the gradient needs.

    Attributes:
        slope: (B, F), ``act'(hidden) / sigma``.
        tilt: (B, F), ``(hidden - shift) / D``.
        carried: (B, H d), ``norm(y) @ out`` before gamma and beta.
    """

    slope: Tensor
    tilt: Tensor
    carried: Tensor

    def images(self, part: slice) -> "MlpRow":
        """A view of some of the images."""
        return MlpRow(self.slope[part], self.tilt[part], self.carried[part])


@dataclass(frozen=True)
class PooledRow:
    """The intermediates of the pooler's forward pass on one layer's tokens.

    Attributes:
        values: (B, H, T, d).
        scale: (B, 1), 1 / (|f| sigma), with sigma the standard deviation in the head's norm, and
            1 for |f| if the head does not normalise.
        unit: (B, E), the layer's own embedding; None if the head does not normalise.
        along: (B, H d), ``unit`` carried back as if it were a direction; None as for ``unit``.
        slant: (B, E), whose product with a direction is the component along norm(z); None
            without a norm.
        across: (B, H d), norm(z) carried back; None without a norm.
        mlp: None without an MLP.
    """

    values: Tensor
    scale: Tensor
    unit: Tensor | None = None
    along: Tensor | None = None
    slant: Tensor | None = None
    across: Tensor | None = None
    mlp: MlpRow | None = None

    def images(self, part: slice) -> "PooledRow":
        """A view of some of the images."""
        return PooledRow(
            values=self.values[part],
            scale=self.scale[part],
            unit=_part(self.unit, part),
            along=_part(self.along, part),
            slant=_part(self.slant, part),
            across=_part(self.across, part),
            mlp=None if self.mlp is None else self.mlp.images(part),
        )


def _part(rows: Tensor | None, part: slice) -> Tensor | None:
    return None if rows is None else rows[part]


def fold_pooler(pooler: Pooler, dtype: torch.dtype) -> FoldedPooler:
    """Multiply out the matrices that depend on neither image nor query, in ``dtype``."""
    out = pooler.out.weight.to(dtype)
    back, slopes = _fold_head(pooler.head, dtype)
    mlp = None if pooler.mlp is None else _fold_mlp(pooler.mlp, out)
    first = (out,) if mlp is None else (out, mlp.down)
    lifts = first if back is None else tuple(back @ matrix for matrix in first)
    return FoldedPooler(out, slopes, mlp, first, lifts)


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
    """Carry directions (..., E) back as far as no image is involved.

    Returns:
        (..., H d) at the heads' outputs, along the residual branch; with an MLP also (..., F) at
        its activation.
    """
    return tuple(directions @ matrix for matrix in folded.lifts)


def run_head(pooler: Pooler, folded: FoldedPooler, mixed: Tensor, values: Tensor) -> PooledRow:
    """Run the layers after the pooler's attention, and keep the intermediates of the gradient.

    Args:
        mixed: (B, H d) outputs of the heads.
        values: (B, H, T, d).
    """
    dtype, head = folded.out.dtype, pooler.head
    z, row = _linear(mixed.to(dtype), folded.out, pooler.out.bias), None
    if pooler.mlp is not None and folded.mlp is not None:
        z, row = _through_mlp(pooler.mlp, folded.mlp, folded.out, z)
    zhat, inverse = None, torch.ones_like(z[:, :1])
    if head.norm is not None:
        zhat, inverse = _standardised(z, head.norm.eps)
        z = zhat * head.norm.weight.to(dtype) + head.norm.bias.to(dtype)
    unit = along = slant = across = None
    if head.normalised:
        feature = z if head.matrix is None else _linear(z, head.matrix.T.to(dtype), head.bias)
        length = torch.linalg.vector_norm(feature, dim=-1, keepdim=True).clamp_min(TINY)
        unit, inverse = feature / length, inverse / length
        along = carry_back(folded, row, lift(folded, unit[:, None]))[:, 0]
    if zhat is not None and folded.slopes is not None:
        slant = zhat @ folded.slopes.T / zhat.shape[-1]
        across = carry_back(folded, row, tuple(zhat[:, None] @ m for m in folded.first))[:, 0]
    return PooledRow(
        values=values.to(dtype).contiguous(),
        scale=inverse,
        unit=unit,
        along=along,
        slant=slant,
        across=across,
        mlp=row,
    )


def _linear(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return F.linear(rows, weight, None if bias is None else bias.to(rows.dtype))


def _standardised(rows: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    inverse = (rows.var(dim=-1, correction=0, keepdim=True) + eps).rsqrt()
    return (rows - rows.mean(dim=-1, keepdim=True)) * inverse, inverse


def _through_mlp(mlp: Mlp, folded: FoldedMlp, out: Tensor, y: Tensor) -> tuple[Tensor, MlpRow]:
    yhat, inverse = _standardised(y, mlp.norm.eps)
    shifted = (yhat * mlp.norm.weight.to(y.dtype)) @ mlp.up.weight.to(y.dtype).T
    hidden = shifted + folded.shift
    z = y + _linear(mlp.activation(hidden), folded.down, mlp.down.bias)
    slope = derivative(mlp.activation, hidden) * inverse
    return z, MlpRow(slope, shifted / y.shape[-1], yhat @ out)


def carry_back(folded: FoldedPooler, row: MlpRow | None, lifted: tuple[Tensor, ...]) -> Tensor:
    """Carry lifted directions the rest of the way back, to the outputs of the heads.

    Args:
        row: the MLP's forward pass on b images; None without an MLP.
        lifted: results of `lift`, each (b or 1, q, ...).

    Returns:
        (b, q, H d); without an MLP as many rows as ``lifted`` has.
    """
    if row is None or folded.mlp is None:
        return lifted[0]
    hidden = lifted[1] * row.slope[:, None]  # back through act, 1 / sigma
    along_yhat = hidden @ row.tilt[:, :, None]
    g = lifted[0] + hidden @ folded.mlp.up  # the residual; W1 and W_out
    return torch.addcmul(g, along_yhat, row.carried[:, None], value=-1)


def gradient_at_heads(
    folded: FoldedPooler, row: PooledRow, directions: Tensor, lifted: tuple[Tensor, ...]
) -> Tensor:
    """Gradient of the layer score at the outputs of the pooler's heads, without `scale`.

    Args:
        row: the pooler's forward pass on b images.
        directions: (b or 1, q, E).
        lifted: result of `lift` for these directions.

    Returns:
        (b, q, H d).
    """
    g = carry_back(folded, row.mlp, lifted)
    tilt = None if row.slant is None else directions @ row.slant[:, :, None]
    if row.unit is not None and row.along is not None:  # back through normalize
        along = directions @ row.unit[:, :, None]  # (b, q, 1)
        g = torch.addcmul(g, along, row.along[:, None], value=-1)
        if tilt is not None and row.slant is not None:
            tilt = tilt - along * (row.unit * row.slant).sum(dim=-1)[:, None, None]
    if tilt is not None and row.across is not None:  # back through the head's norm
        g = torch.addcmul(g, tilt, row.across[:, None], value=-1)
    return g


def pooler_relevance(row: PooledRow, g: Tensor) -> Tensor:
    """``scale / H  sum_h  max(< g_h, v_hj >, 0)``: (b, q, T) from g (b, q, H d)."""
    images, heads, _, width = row.values.shape
    by_head = g.view(images, -1, heads, width).transpose(1, 2)  # (b, H, q, d)
    products = by_head @ row.values.transpose(2, 3)  # ds/dA (b, H, q, T)
    total = products.clamp_min_(0).sum(dim=1)
    return total * (row.scale / heads)[:, None]
