"""LeGrad(model).explain(pixels, text_features) -> Explanation: one forward pass, every query."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from legrad.gradient import FoldedBlock, Trace, fold, head_gradient, relevance, trace
from legrad.models import VisionLanguageModel

if TYPE_CHECKING:
    from PIL import Image

    from legrad.heatmaps import Scale
    from legrad.preprocess import Preprocess

DEFAULT_CHUNK_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Explanation:
    """Heatmaps of a batch of images for every query.

    Attributes:
        maps: (B, Q, h, w) float32 (float64 for float64 models), non-negative and raw: not
            normalised, not upsampled. Comparable within a query across images.
        scores: (B, Q) cosine of image and query (dot product, for directions that are not unit).
        image_features: (B, E) unit rows.
        layers: how many of the last blocks were explained.
    """

    maps: Tensor
    scores: Tensor
    image_features: Tensor
    layers: int

    def figure(
        self,
        images: "Sequence[Image.Image] | None" = None,
        queries: Sequence[str] | None = None,
        *,
        preprocess: "Preprocess | None" = None,
        names: Sequence[str] | None = None,
        scale: "Scale" = "row",
    ) -> "Image.Image":
        """Draw an image a row and a query a column, with scores; see `legrad.heatmaps`.

        Args:
            images: the B images that were explained, upright; None draws the maps alone.
            queries: the Q texts; default their numbers.
            preprocess: what made the pixels (``model.preprocess``), so that the heat lies where
                the model looked; default: the maps cover the whole images.
            names: of the B images; default their numbers.
            scale: what shares one colour scale: ``row``, ``column``, ``figure``, or ``map``: none.

        Raises:
            ValueError: not B images or names, or not Q queries.
        """
        from legrad.heatmaps.explanation import draw

        return draw(self, images, queries, preprocess=preprocess, names=names, scale=scale)

    def _repr_png_(self) -> bytes:
        """The maps as a notebook shows them, the first few where there are many."""
        from legrad.heatmaps.explanation import preview

        buffer = io.BytesIO()
        preview(self).save(buffer, "PNG")
        return buffer.getvalue()


class LeGrad:
    """Explains a vision-language model; holds its constant matrices, changes nothing in it.

    The matrices are multiplied out once, here: make a new LeGrad after the weights have changed.

    Args:
        model: from `load_model` or `from_open_clip`.
        layers: how many of the last blocks to explain, 1 to all; None takes the model's default
            (2, as in the published code; for the mini model what its card says).
        chunk_bytes: bound in bytes on the intermediate arrays of the (image, query) pairs that are
            worked on at once. At least one pair is.

    Raises:
        ValueError: ``layers`` is out of range.
        UnsupportedModelError: an activation without a derivative here.
    """

    def __init__(
        self,
        model: VisionLanguageModel,
        layers: int | None = None,
        *,
        chunk_bytes: int = DEFAULT_CHUNK_BYTES,
    ) -> None:
        self.model = model
        self.tower = model.tower
        self.layers = model.default_layers if layers is None else layers
        if not 1 <= self.layers <= len(self.tower.blocks):
            raise ValueError(
                f"layers={self.layers}: expected 1 to {len(self.tower.blocks)}, the number of "
                f"blocks in the vision tower of {model.name!r}"
            )
        self.chunk_bytes = chunk_bytes
        with torch.no_grad():
            self._folded = [fold(block) for block in self.tower.blocks[-self.layers :]]

    @torch.no_grad()
    def explain(self, pixels: Tensor, text_features: Tensor) -> Explanation:
        """Explain every image for every query with one forward pass an image.

        Args:
            pixels: (B, 3, height, width), any size that is a multiple of the patch: uint8, which
                is normalised here on the model's device, or already normalised floats.
            text_features: (Q, E) unit rows of `VisionLanguageModel.encode_text`, or any
                directions in the embedding space.

        Raises:
            ValueError: wrong rank, channels, size or embedding width.
        """
        images = self._normalised(pixels)
        directions = self._directions(text_features)
        with self.model.autocast():
            tokens = self.tower.tokens(images)
            for block in self.tower.blocks[: -self.layers]:
                tokens = block.module(tokens)
            total = tokens.new_zeros(())
            for block, folded in zip(self.tower.blocks[-self.layers :], self._folded, strict=True):
                seen = trace(block, folded, tokens)
                tokens = seen.tokens
                total = total + self._block_relevance(folded, seen, directions)
            features = self.tower.embed(tokens)
        features = F.normalize(features.to(directions.dtype), dim=-1)
        patch_h, patch_w = self.tower.patch_size
        grid = (images.shape[2] // patch_h, images.shape[3] // patch_w)
        maps = total[:, :, 1:].reshape(len(images), len(directions), *grid)
        return Explanation(maps, features @ directions.T, features, self.layers)

    def _block_relevance(self, folded: FoldedBlock, seen: Trace, directions: Tensor) -> Tensor:
        """(B, Q, T) of one block, in chunks of (image, query) pairs that fit the bound."""
        with torch.autocast(seen.tokens.device.type, enabled=False):
            tokens = seen.tokens.to(directions.dtype)
            norm, proj = self.tower.norm, self.tower.projection
            g_z = head_gradient(tokens, norm, proj, directions)  # (B, Q, D)
        pairs = self._pairs_per_chunk(seen)
        queries = max(1, min(len(directions), pairs))
        images = max(1, pairs // queries)
        rows = []
        for i in range(0, len(tokens), images):
            part = _slice(seen, i, i + images)
            chunks = g_z[i : i + images].split(queries, dim=1)
            rows.append(torch.cat([relevance(folded, part, chunk) for chunk in chunks], dim=1))
        return torch.cat(rows)

    def _pairs_per_chunk(self, seen: Trace) -> int:
        count, hidden = seen.slope.shape[1:]
        heads, width = seen.values.shape[1], seen.tokens.shape[2]
        floats = count * (hidden + 2 * width + heads * count)
        return max(1, self.chunk_bytes // (floats * seen.slope.element_size()))

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

    def _directions(self, text_features: Tensor) -> Tensor:
        width = self.tower.projection.shape[1]
        if text_features.ndim != 2 or text_features.shape[1] != width or not len(text_features):
            raise ValueError(
                f"text_features: expected (Q, {width}) for {self.model.name!r} and Q > 0, "
                f"found {tuple(text_features.shape)}"
            )
        return text_features.to(self.model.device, self.model.dtype)


def _slice(seen: Trace, start: int, stop: int) -> Trace:
    return Trace(
        tokens=seen.tokens[start:stop],
        values=seen.values[start:stop],
        slope=seen.slope[start:stop],
        tilt=seen.tilt[start:stop],
        carried=seen.carried[start:stop],
    )
