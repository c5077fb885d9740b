"""LeGrad(model).explain(pixels, directions) -> Explanation: one forward pass for all queries."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from legrad.method.chunks import default_bytes
from legrad.method.explanation import Explanation
from legrad.method.relevance import BlockRelevance, PoolerRelevance, Relevance, Request
from legrad.models.classifier import Classifier, ClassNames
from legrad.models.vision_model import VisionModel
from legrad.towers import Block

__all__ = ["Explanation", "LeGrad"]

Select = Tensor | Callable[[Tensor], Tensor]
Sizes = Sequence[tuple[int, int]]


@dataclass(frozen=True)
class _Queries:
    """Directions (Q, E), and what is added to their scores (Q,): a classifier's biases."""

    directions: Tensor
    bias: Tensor | None = None

    def scores(self, features: Tensor) -> Tensor:
        """(B, Q) from features (B, E)."""
        scores = features @ self.directions.T
        return scores if self.bias is None else scores + self.bias


class LeGrad:
    """Explains a vision-language model or a classifier without changing it.

    Products of its weights are computed once, here: make a new LeGrad after the weights changed.

    Args:
        model: a model from `load_model`, `from_open_clip`, `load_classifier` or `from_timm`.
        layers: how many of the last blocks to explain, 1 to all; None takes the model's default
            (2, as in the published code; for the mini model, what its card says).
        chunk_bytes: bound in bytes on the arrays of the (image, query) pairs that are worked on at
            once; at least one pair always is. None: 64 MiB on a CPU, 1 GiB on a GPU.
        compiled: run the work per pair through `torch.compile`, which makes the first call slow.

    Raises:
        ValueError: ``layers`` is out of range.
        UnsupportedModelError: no derivative is implemented for an activation of the tower.
    """

    def __init__(
        self,
        model: VisionModel,
        layers: int | None = None,
        *,
        chunk_bytes: int | None = None,
        compiled: bool = False,
    ) -> None:
        self.model = model
        self.tower = model.tower
        self.layers = model.default_layers if layers is None else layers
        if not 1 <= self.layers <= len(self.tower.blocks):
            raise ValueError(
                f"layers={self.layers}: expected 1 to {len(self.tower.blocks)}, the number of "
                f"blocks in the vision tower of {model.name!r}"
            )
        self.chunk_bytes = default_bytes(model.device) if chunk_bytes is None else chunk_bytes
        with torch.no_grad():
            self._relevance = self._relevance_of_tower(compiled)

    def _relevance_of_tower(self, compiled: bool) -> Relevance:
        model, pooler = self.model, self.tower.pooler
        if pooler is not None:
            return PoolerRelevance(pooler, model.exact_dtype, self.chunk_bytes)
        return BlockRelevance(
            self.tower, self.layers, model.compute_dtype, self.chunk_bytes, compiled=compiled
        )

    @torch.no_grad()
    def explain(
        self,
        pixels: Tensor,
        directions: Tensor | None = None,
        *,
        classes: ClassNames | None = None,
        select: Select | None = None,
        sizes: Sizes | None = None,
    ) -> Explanation:
        """Explain every image for every query, with one forward pass per image.

        Args:
            pixels: (B, 3, height, width), any size that is a multiple of the patch: uint8, which
                is normalised here on the model's device, or already normalised floats.
            directions: (Q, E), vectors of any length in the embedding space: unit text features,
                mean features of images, differences of these, weights of a linear probe. The score
                is the dot product with the unit image feature; maps and scores are linear in the
                length. For a classifier, whose features are not normalised: differences of rows of
                its linear layer, or other vectors. None: explain ``classes``.
            classes: names or indices of a classifier's classes, whose scores are their logits;
                default all.
            select: which pairs get a map: (B, Q) bool, or a function from scores (B, Q) to that,
                which costs a second run of the explained blocks. None: all.
            sizes: (width, height) of the original images, upright, for `Explanation.boxes`;
                required if the model's preprocessing pads, so that cells of padding become 0.

        Raises:
            ValueError: an argument has a wrong shape, or sizes are missing.
        """
        images, queries = self._normalised(pixels), self._queries(directions, classes)
        grid = self._grid(images)
        shown, boxes = self._shown_cells(grid, sizes, len(images))
        blocks = self.tower.blocks_at(grid)
        first, explained = blocks[: -self.layers], blocks[-self.layers :]
        with self.model.autocast():
            tokens = self.tower.tokens(images)
            for block in first:
                tokens = block(tokens)
        selected = self._selected(select, explained, tokens, queries)
        request = Request(queries.directions, selected, self.model.autocast)
        tokens, relevances = self._relevance.run(explained, tokens, request)
        maps = relevances.view(*relevances.shape[:2], *grid)
        if shown is not None:
            maps.masked_fill_(~shown[:, None], 0)
        if selected is None:
            selected = torch.ones(maps.shape[:2], dtype=torch.bool, device=maps.device)
        else:
            maps.masked_fill_(~selected[..., None, None], torch.nan)
        features = self._features(tokens)
        return Explanation(maps, queries.scores(features), features, selected, self.layers, boxes)

    def _features(self, tokens: Tensor) -> Tensor:
        """(B, E) features of the tokens after the last block; unit rows, unless of a classifier."""
        with self.model.autocast():
            embedded = self.tower.embed(tokens)
        return self.model.finished(embedded.to(self.model.exact_dtype))

    def _selected(
        self, select: Select | None, explained: Sequence[Block], tokens: Tensor, queries: _Queries
    ) -> Tensor | None:
        """Which pairs to explain: (B, Q) bool, None for all."""
        if select is None:
            return None
        if not isinstance(select, Tensor):
            with self.model.autocast():
                last = tokens
                for block in explained:
                    last = block(last)
            select = select(queries.scores(self._features(last)))
        shape = (len(tokens), len(queries.directions))
        if select.dtype != torch.bool or tuple(select.shape) != shape:
            raise ValueError(
                f"select: expected bool {shape} (images, queries), found {select.dtype} "
                f"{tuple(select.shape)}"
            )
        return select.to(tokens.device)

    def _shown_cells(
        self, grid: tuple[int, int], sizes: Sizes | None, count: int
    ) -> tuple[Tensor | None, Tensor | None]:
        """Cells (B, h, w) that show image and not padding, None for all; and boxes (B, 4)."""
        preprocess, device = self.model.preprocess, self.model.device
        padded = preprocess.mode == "pad"
        if sizes is None:
            if padded:
                raise ValueError(
                    "the model's preprocessing pads: pass sizes=[(width, height), ...] of the "
                    "original images, so that padding is left out of the maps"
                )
            return None, None
        if len(sizes) != count:
            raise ValueError(f"sizes: expected one for each of {count} images, found {len(sizes)}")
        boxes = torch.tensor([preprocess.box(*size) for size in sizes], dtype=torch.float64)
        if not padded:
            return None, boxes
        shown = torch.zeros(count, *grid, dtype=torch.bool)
        for cells, size in zip(shown, sizes, strict=True):
            cells[preprocess.cells(*size, grid)] = True
        return shown.to(device, non_blocking=True), boxes

    def _grid(self, images: Tensor) -> tuple[int, int]:
        patch_h, patch_w = self.tower.patch_size
        grid = images.shape[2] // patch_h, images.shape[3] // patch_w
        self.tower.check_grid(grid)
        return grid

    def _normalised(self, pixels: Tensor) -> Tensor:
        if pixels.ndim != 4 or pixels.shape[1] != 3 or not len(pixels):
            raise ValueError(
                f"pixels: expected (B, 3, height, width) and B > 0, found {tuple(pixels.shape)}"
            )
        patch = self.tower.patch_size
        if any(side % p or not side for side, p in zip(pixels.shape[2:], patch, strict=True)):
            raise ValueError(
                f"pixels are {pixels.shape[2]} x {pixels.shape[3]}: expected multiples of the "
                f"patch, {patch[0]} x {patch[1]} pixels"
            )
        return self.model.normalise(pixels)

    def _queries(self, directions: Tensor | None, classes: ClassNames | None) -> _Queries:
        if directions is None and isinstance(self.model, Classifier):
            return _Queries(*self.model.vectors(classes))
        if directions is None or classes is not None:
            raise ValueError(
                f"{self.model.name!r} is explained for directions, or for classes if it is a "
                "classifier: expected exactly one of the two"
            )
        width = self.tower.embed_dim
        if directions.ndim != 2 or directions.shape[1] != width or not len(directions):
            raise ValueError(
                f"directions: expected (Q, {width}) for {self.model.name!r} and Q > 0, "
                f"found {tuple(directions.shape)}"
            )
        return _Queries(self.model.moved(directions).to(self.model.exact_dtype))
