"""What the engine found for a batch of images: maps, scores, and where they lie."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from PIL import Image

    from legrad.heatmaps import Scale
    from legrad.preprocess import Preprocess


@dataclass(frozen=True)
class Explanation:
    """Heatmaps of a batch of images for every query.

    Attributes:
        maps: (B, Q, h, w) float32 (float64 for float64 models), non-negative and raw: not
            normalised, not upsampled. Comparable within a query across images. NaN where no map
            was asked for; 0 in cells that show padding.
        scores: (B, Q), always complete: < unit image feature, direction >, the cosine for unit
            directions.
        image_features: (B, E) unit rows.
        selected: (B, Q) bool, which pairs have maps.
        layers: how many of the last blocks were explained.
        boxes: (B, 4) float64, the part of each original image that the grid covers: left, top,
            right, bottom in its pixels (beyond its edges, where it was padded); None where the
            originals' sizes were not given.
    """

    maps: Tensor
    scores: Tensor
    image_features: Tensor
    selected: Tensor
    layers: int
    boxes: Tensor | None = None

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
                the model looked; default: `boxes`, or the maps cover the whole images.
            names: of the B images; default their numbers.
            scale: what shares one colour scale: ``row``, ``column``, ``figure``, or ``map``: none.

        Raises:
            ValueError: not B images or names, or not Q queries.
        """
        from legrad.method.explanation_figure import draw

        return draw(self, images, queries, preprocess=preprocess, names=names, scale=scale)

    def _repr_png_(self) -> bytes:
        """The maps as a notebook shows them, the first few where there are many."""
        from legrad.method.explanation_figure import preview

        buffer = io.BytesIO()
        preview(self).save(buffer, "PNG")
        return buffer.getvalue()
