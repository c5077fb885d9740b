"""The maps and scores of a batch of images, and figures of them."""

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from legrad.heatmaps.figure import FigureRow, Scale, grid_figure
from legrad.heatmaps.text import signed
from legrad.preprocess import Box, Preprocess

_PREVIEW_ROWS, _PREVIEW_COLUMNS, _PREVIEW_CELL = 6, 6, 160


@dataclass(frozen=True)
class Explanation:
    """Heatmaps of a batch of images for every query.

    Attributes:
        maps: (B, Q, h, w) float32 (float64 for float64 models), non-negative and raw: neither
            normalised nor upsampled. Comparable within a query across images. NaN for pairs
            that were not selected; 0 in cells that show padding.
        scores: (B, Q), always complete: < unit image feature, direction >, the cosine for unit
            directions; for the classes of a classifier their logits.
        image_features: (B, E) unit rows; for a classifier what its linear layer gets.
        selected: (B, Q) bool, which pairs have maps.
        layers: how many of the last blocks were explained.
        boxes: (B, 4) float64, the part of each original image that the grid covers: left, top,
            right, bottom in its pixels (beyond its edges, where it was padded); None if the
            sizes of the originals are unknown.
    """

    maps: Tensor
    scores: Tensor
    image_features: Tensor
    selected: Tensor
    layers: int
    boxes: Tensor | None = None

    @classmethod
    def joined(cls, parts: Sequence["Explanation"]) -> "Explanation":
        """The explanation of all images of several batches, for the same queries and layers."""
        boxes = [part.boxes for part in parts if part.boxes is not None]
        return cls(
            maps=torch.cat([part.maps for part in parts]),
            scores=torch.cat([part.scores for part in parts]),
            image_features=torch.cat([part.image_features for part in parts]),
            selected=torch.cat([part.selected for part in parts]),
            layers=parts[0].layers,
            boxes=torch.cat(boxes) if len(boxes) == len(parts) else None,
        )

    def figure(
        self,
        images: Sequence[Image.Image] | None = None,
        queries: Sequence[str] | None = None,
        *,
        preprocess: Preprocess | None = None,
        names: Sequence[str] | None = None,
        scale: Scale = "row",
    ) -> Image.Image:
        """Draw one row per image and one column per query, with scores; see `legrad.heatmaps`.

        Args:
            images: the B images that were explained, upright; None draws the maps alone.
            queries: the Q column headings, such as the texts; default: the queries' numbers.
            preprocess: the preprocessing of the pixels (``model.preprocess``); the heat is drawn on
                the part of each image that the model saw; default: `boxes`, or else the maps
                cover the whole images.
            names: names of the B images; default: their numbers.
            scale: which maps share a colour scale: those of a ``row``, of a ``column``, of the
                whole ``figure``; ``map`` scales each on its own.

        Raises:
            ValueError: the number of images, names or queries is not B, B or Q.
        """
        count, columns = self.maps.shape[:2]
        self._check_length("images", images, count)
        self._check_length("names", names, count)
        self._check_length("queries", queries, columns)
        names = names or [f"image {i}" for i in range(count)]
        maps, scores = _drawable(self.maps), self.scores.float().cpu().numpy()
        boxes = self._boxes_in(images, preprocess)
        rows = [
            FigureRow(
                heatmaps=list(maps[i]),
                image=None if images is None else images[i].convert("RGB"),
                label=names[i],
                captions=[signed(score) for score in scores[i]],
                note=names[i] if images is None else "",
                box=boxes[i],
            )
            for i in range(count)
        ]
        return grid_figure(rows, queries or _query_numbers(columns), scale=scale)

    @staticmethod
    def _check_length(name: str, values: Sequence[object] | None, expected: int) -> None:
        if values is not None and len(values) != expected:
            raise ValueError(f"{name}: expected {expected}, found {len(values)}")

    def _boxes_in(
        self, images: Sequence[Image.Image] | None, preprocess: Preprocess | None
    ) -> list[Box | None]:
        """The part of each image that its maps cover; None: all of it."""
        if preprocess and images:
            return [preprocess.box(*image.size) for image in images]
        if self.boxes is not None:
            return [(box[0], box[1], box[2], box[3]) for box in self.boxes.tolist()]
        return [None] * len(self.maps)

    def _repr_png_(self) -> bytes:
        """PNG that a notebook shows: the maps, or the first few if there are many."""
        buffer = io.BytesIO()
        self._preview().save(buffer, "PNG")
        return buffer.getvalue()

    def _preview(self) -> Image.Image:
        """A small figure of the first maps, each query on its own scale; its title counts them."""
        count, columns = self.maps.shape[:2]
        maps = _drawable(self.maps[:_PREVIEW_ROWS, :_PREVIEW_COLUMNS])
        scores = self.scores[:_PREVIEW_ROWS, :_PREVIEW_COLUMNS].tolist()
        rows = [
            FigureRow(list(heat), captions=[signed(score) for score in line], note=f"image {i}")
            for i, (heat, line) in enumerate(zip(maps, scores, strict=True))
        ]
        headings = _query_numbers(maps.shape[1])
        incomplete = len(rows) < count or len(headings) < columns
        counts = f"{len(rows)} of {count} images, {len(headings)} of {columns} queries"
        title = counts if incomplete else ""
        return grid_figure(rows, headings, title=title, scale="column", cell=_PREVIEW_CELL)


def _query_numbers(count: int) -> list[str]:
    return [f"query {i}" for i in range(count)]


def _drawable(maps: Tensor) -> NDArray[np.float32]:
    """Maps as float32 arrays; pairs without a map are drawn without heat."""
    drawn: NDArray[np.float32] = maps.float().nan_to_num(0).cpu().numpy()
    return drawn
