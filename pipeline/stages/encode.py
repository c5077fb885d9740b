"""What a model replica found, as columns of the output."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from legrad.heatmaps.codec import encode_maps
from legrad.method.explainer import Explanation
from pipeline.schema import EMBEDDING, OWN_LABEL, map_column, peak_column, score_column


@dataclass(frozen=True)
class Encoded:
    """Encoded results of the n images that gave finite numbers.

    Attributes:
        cells: (n, Q, h, w) uint8.  peaks: (n, Q) float32.  scores: (n, Q) float32.
        selected: (n, Q) bool, which of these maps were asked for; the others are nothing.
        own: (n,) number of the image's own class query, -1 for none.
        features: (n, E) float32.
        finite: (usable images,) bool: which of the explained images these n are.
    """

    cells: NDArray[np.uint8]
    peaks: NDArray[np.float32]
    scores: NDArray[np.float32]
    selected: NDArray[np.bool_]
    own: NDArray[np.int64]
    features: NDArray[np.float32]
    finite: NDArray[np.bool_]

    @classmethod
    def of(cls, found: Explanation, own: NDArray[np.int64]) -> "Encoded":
        """Encode a batch; own: (B,) number of each image's own class query, -1 for none."""
        maps, scores = found.maps.float().cpu().numpy(), found.scores.float().cpu().numpy()
        selected = found.selected.cpu().numpy()
        sound = np.isfinite(maps).all(axis=(2, 3)) | ~selected
        finite = np.asarray(sound.all(axis=1) & np.isfinite(scores).all(axis=1))
        kept = selected[finite]
        cells, peaks = encode_maps(np.where(kept[..., None, None], maps[finite], np.float32(0)))
        features = found.image_features.float().cpu().numpy()[finite]
        return cls(cells, peaks, scores[finite], kept, own[finite], features, finite)

    @classmethod
    def nothing(cls, queries: int, grid: tuple[int, int], width: int) -> "Encoded":
        """Of no image."""
        empty = np.zeros((0, queries), dtype=np.float32)
        return cls(
            cells=np.zeros((0, queries, *grid), dtype=np.uint8),
            peaks=empty,
            scores=empty,
            selected=np.zeros((0, queries), dtype=bool),
            own=np.zeros(0, dtype=np.int64),
            features=np.zeros((0, width), dtype=np.float32),
            finite=np.zeros(0, dtype=bool),
        )

    def columns(
        self, names: Sequence[str], rows: NDArray[np.int64], schema: pa.Schema
    ) -> dict[str, pa.Array]:
        """Columns of a batch by name.

        Args:
            names: of the Q queries.
            rows: (batch,) which of the n images a row is, -1 for one without results (nulls).
            schema: the output's; says which maps it has.
        """
        mapped = set(schema.names)
        take = pa.array(rows, mask=rows < 0)
        columns = {EMBEDDING: self._embeddings().take(take)}
        for i, name in enumerate(names):
            columns[score_column(name)] = pa.array(self.scores[:, i]).take(take)
            if map_column(name) in mapped:
                columns |= self._maps(name, np.full(len(self.own), i), rows)
        if map_column(OWN_LABEL) in mapped:
            columns |= self._maps(OWN_LABEL, self.own, rows)
        return columns

    def _maps(
        self, name: str, queries: NDArray[np.int64], rows: NDArray[np.int64]
    ) -> dict[str, pa.Array]:
        """Map and peak columns that show one query (n,) of each image, null where not selected."""
        images = np.arange(len(queries))
        there = (queries >= 0) & self.selected[images, queries]
        cells = np.ascontiguousarray(self.cells[images, queries])
        size = int(np.prod(cells.shape[1:]))
        stored = pa.Array.from_buffers(pa.binary(size), len(cells), [None, pa.py_buffer(cells)])
        shown = rows >= 0
        shown[shown] = there[rows[shown]]
        take = pa.array(rows, mask=~shown)
        peaks = pa.array(self.peaks[images, queries])
        return {map_column(name): stored.take(take), peak_column(name): peaks.take(take)}

    def _embeddings(self) -> pa.Array:
        """list<float16> (n,)."""
        halves = self.features.astype(np.float16)
        offsets = np.arange(len(halves) + 1, dtype=np.int32) * halves.shape[1]
        return pa.ListArray.from_arrays(pa.array(offsets), pa.array(halves.reshape(-1)))
