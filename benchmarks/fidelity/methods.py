"""LeGrad and other methods: a map for each image and its own text, on the patch grid.

The other methods are written from their papers, for towers that pool a class token or average; they
are not part of the product:

- raw attention: attention of the last block from the token that the model pools, averaged over
  heads;
- rollout (Abnar and Zuidema, ACL 2020): the product over blocks of (A + 1) / 2, A the heads' mean;
- GradCAM, on attention as Chefer et al. (CVPR 2021) apply it: the last block's attention row of
  the pooled token, each head weighted by the mean of its gradient, clamped;
- GAE, "CheferCAM" (Chefer, Gur and Wolf, ICCV 2021): R = R + E_h[(dA * A)+] R over all blocks;
- dense similarity (MaskCLIP, ECCV 2022): cosine of the text and each patch, whose last block mixes
  nothing: the values take the place of the heads' outputs;
- random noise, and a Gaussian at the centre, which every method must beat.

For a model that averages its patches, the row of the pooled token is the mean of the patches' rows.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from legrad.heatmaps import suppress
from legrad.method.explainer import LeGrad
from legrad.models.vision_model import VisionModel
from legrad.queries.distinct import residual


class Method(ABC):
    """Makes maps.

    Attributes:
        name: heading of its row.
    """

    name: str

    @abstractmethod
    def __call__(self, pixels: Tensor, texts: Tensor) -> Tensor:
        """Maps (B, h, w), the larger the more relevant.

        Args:
            pixels: (B, 3, height, width), uint8 or normalised.
            texts: (B, E), the unit direction of each image's own text.
        """


@dataclass
class Ours(Method):
    """LeGrad through the product, for the last ``layers`` blocks.

    Attributes:
        others: (K, E) unit texts that each text is made distinct from; None: texts as they are.
        baseline: (E,) unit text that names nothing; where its map is hot, that of a text is
            zeroed (`legrad.heatmaps.suppress`). None: maps as they are.
    """

    model: VisionModel
    layers: int
    others: Tensor | None = None
    baseline: Tensor | None = None
    name: str = field(init=False)

    def __post_init__(self) -> None:
        self.explainer = LeGrad(self.model, self.layers)
        distinct = "" if self.others is None else ", distinct"
        suppressed = "" if self.baseline is None else ", suppressed"
        layers = f"{self.layers} layer{'s' if self.layers > 1 else ''}"
        self.name = f"LeGrad, {layers}{distinct}{suppressed}"

    def __call__(self, pixels: Tensor, texts: Tensor) -> Tensor:
        """See `Method`."""
        own = torch.eye(len(texts), dtype=torch.bool)
        maps = self.explainer.explain(pixels, self._directions(texts), select=own).maps
        if self.baseline is None:
            return maps[own]
        hot = self.explainer.explain(pixels, self.baseline[None]).maps[:, 0]
        return torch.from_numpy(suppress(maps[own].numpy(), hot.numpy()))

    def _directions(self, texts: Tensor) -> Tensor:
        if self.others is None:
            return texts
        others = self.others.double().numpy()
        rows = [residual(row, others) for row in texts.double().numpy()]
        return torch.from_numpy(np.stack(rows)).to(texts)


@dataclass
class Rival(Method):
    """A method that reads the tower."""

    model: VisionModel

    def __post_init__(self) -> None:
        if self.model.tower.pooler is not None:
            raise ValueError(f"{self.name} is not defined for a tower that pools by attention")

    def grid(self, pixels: Tensor) -> tuple[int, int]:
        """(h, w) of the maps."""
        down, across = self.model.tower.patch_size
        return pixels.shape[2] // down, pixels.shape[3] // across

    def attentions(self, pixels: Tensor) -> tuple[list[Tensor], Tensor]:
        """Attention (B, H, T, T) of every block, in one graph with the unit features (B, E)."""
        tower, images = self.model.tower, self.model.normalise(pixels)
        with torch.enable_grad(), explicit_attention() as attentions:
            tokens = tower.tokens(images)
            for block in tower.blocks_at(self.grid(pixels)):
                tokens = block(tokens)
            features = self.model.finished(tower.embed(tokens))
        return attentions, features

    def gradients(self, pixels: Tensor, texts: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Attentions of every block, and the gradients of the score with respect to them."""
        attentions, features = self.attentions(pixels)
        gradients = torch.autograd.grad((features * texts).sum(), attentions)
        return [a.detach() for a in attentions], list(gradients)

    def laid_out(self, cells: Tensor, pixels: Tensor) -> Tensor:
        """(B, h w) -> (B, h, w)."""
        return cells.reshape(len(cells), *self.grid(pixels))

    def from_pooled(self, matrices: Tensor) -> Tensor:
        """The row of the pooled token in (..., T, T), with the patches as columns: (..., n)."""
        prefix = self.model.tower.prefix
        visual: Any = self.model.tower.visual
        averages = getattr(visual, "pool_type", "tok") == "avg"
        row = matrices[..., prefix:, :].mean(dim=-2) if averages else matrices[..., 0, :]
        return row[..., prefix:]


class RawAttention(Rival):
    """Attention of the last block."""

    name = "raw attention"

    def __call__(self, pixels: Tensor, texts: Tensor) -> Tensor:
        """See `Method`."""
        del texts
        last = self.attentions(pixels)[0][-1].detach()
        return self.laid_out(self.from_pooled(last.mean(dim=1)), pixels)


class Rollout(Rival):
    """Attention rollout."""

    name = "rollout"

    def __call__(self, pixels: Tensor, texts: Tensor) -> Tensor:
        """See `Method`."""
        del texts
        attentions = [a.detach() for a in self.attentions(pixels)[0]]
        flow = torch.eye(attentions[0].shape[-1]).to(attentions[0])
        for attention in attentions:
            flow = (attention.mean(dim=1) + torch.eye(len(flow[0])).to(flow)) / 2 @ flow
        return self.laid_out(self.from_pooled(flow), pixels)


class GradCam(Rival):
    """GradCAM on the last block's attention."""

    name = "GradCAM"

    def __call__(self, pixels: Tensor, texts: Tensor) -> Tensor:
        """See `Method`."""
        attentions, gradients = self.gradients(pixels, texts)
        weight = self.from_pooled(gradients[-1]).mean(dim=-1, keepdim=True)  # (B, H, 1)
        maps = (self.from_pooled(attentions[-1]) * weight).mean(dim=1).clamp(min=0)
        return self.laid_out(maps, pixels)


class Gae(Rival):
    """Generic attention explainability."""

    name = "CheferCAM (GAE)"

    def __call__(self, pixels: Tensor, texts: Tensor) -> Tensor:
        """See `Method`."""
        attentions, gradients = self.gradients(pixels, texts)
        relevance = torch.eye(attentions[0].shape[-1]).to(attentions[0])
        for attention, gradient in zip(attentions, gradients, strict=True):
            step = (attention * gradient).clamp(min=0).mean(dim=1)
            relevance = relevance + step @ relevance
        return self.laid_out(self.from_pooled(relevance), pixels)


class DenseSimilarity(Rival):
    """MaskCLIP's patch-text similarity."""

    name = "dense similarity"

    @torch.no_grad()
    def __call__(self, pixels: Tensor, texts: Tensor) -> Tensor:
        """See `Method`."""
        tower = self.model.tower
        *first, last = tower.blocks_at(self.grid(pixels))
        tokens = tower.tokens(self.model.normalise(pixels))
        for block in first:
            tokens = block(tokens)
        values = last.attend(tokens)[1].transpose(1, 2).flatten(2)  # (B, T, H d)
        patches = last.finish(tokens, values)[:, tower.prefix :]
        features = F.normalize(tower.head(patches), dim=-1)
        return self.laid_out((features @ texts[..., None])[..., 0], pixels)


@dataclass
class Random(Method):
    """Uniform noise."""

    grid: tuple[int, int]
    name = "random"

    def __post_init__(self) -> None:
        self._generator = torch.Generator().manual_seed(0)

    def __call__(self, pixels: Tensor, texts: Tensor) -> Tensor:
        """See `Method`."""
        del texts
        return torch.rand(len(pixels), *self.grid, generator=self._generator)


@dataclass
class Centre(Method):
    """A Gaussian at the centre, whose standard deviation is a quarter of each side."""

    grid: tuple[int, int]
    name = "centre prior"

    def __call__(self, pixels: Tensor, texts: Tensor) -> Tensor:
        """See `Method`."""
        del texts
        down, across = (((torch.arange(n) + 0.5) / n - 0.5) / 0.25 for n in self.grid)
        gaussian = torch.exp(-0.5 * (down[:, None] ** 2 + across**2))
        return gaussian.expand(len(pixels), -1, -1)


def methods(model: VisionModel, others: Tensor, baseline: Tensor) -> list[Method]:
    """All methods for a model; LeGrad for 1, 2, 4 and all layers, corrected in two ways and not.

    Args:
        model: its tower pools a token or averages.
        others: (K, E) unit texts that texts are made distinct from.
        baseline: (E,) unit text that names nothing.
    """
    blocks, grid = len(model.tower.blocks), model.grid
    layers = sorted({n for n in (1, 2, 4) if n < blocks} | {blocks})
    corrections = ((None, None), (others, None), (None, baseline))
    ours = [Ours(model, n, *correction) for correction in corrections for n in layers]
    rivals = [kind(model) for kind in (RawAttention, Rollout, GradCam, Gae, DenseSimilarity)]
    return [*ours, *rivals, Random(grid), Centre(grid)]


@contextmanager
def explicit_attention() -> Iterator[list[Tensor]]:
    """Inside, attention is computed as softmax(q k / sqrt d + mask) v; yields the matrices."""
    fused, matrices = F.scaled_dot_product_attention, []

    def explicit(q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        logits = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5
        matrix = torch.softmax(logits if attn_mask is None else logits + attn_mask, dim=-1)
        if not matrix.requires_grad:
            matrix.requires_grad_()
        matrices.append(matrix)
        return matrix @ v

    F.scaled_dot_product_attention = explicit  # type: ignore[assignment]
    try:
        yield matrices
    finally:
        F.scaled_dot_product_attention = fused
