"""Results of a model replica as columns of the output."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from legrad.heatmaps.codec import encode_maps
from legrad.method.explainer import Explanation
from pipeline.schema import (
    EMBEDDING,
    OWN_LABEL,
    PREDICTED_CLASS,
    map_column,
    peak_column,
    score_column,
)


@dataclass(frozen=True)
class EncodedBatch:
    """Encoded results of the n images of a batch for which the model gave finite numbers.

    Attributes:
        cells: (n, Q, h, w) uint8, maps as fractions of their peak.
        peaks: (n, Q) float32, maximum of each map.
        scores: (n, Q) float32, cosine similarities, or a classifier's logits.
        selected: (n, Q) bool, whether the map was asked for; the cells of others mean nothing.
        own_class: (n,) index of the query of the image's own class, -1 for none.
        features: (n, E) float32, image features.
        finite: (explained images,) bool, which of the explained images are among the n.
    """

    cells: NDArray[np.uint8]
    peaks: NDArray[np.float32]
    scores: NDArray[np.float32]
    selected: NDArray[np.bool_]
    own_class: NDArray[np.int64]
    features: NDArray[np.float32]
    finite: NDArray[np.bool_]

    @classmethod
    def of(cls, explanation: Explanation, own_class: NDArray[np.int64]) -> "EncodedBatch":
        """Encode a batch of B images.

        Args:
            explanation: the model's results.
            own_class: (B,) index of the query of the image's own class, -1 for none.
        """
        maps = explanation.maps.float().cpu().numpy()
        scores = explanation.scores.float().cpu().numpy()
        selected = explanation.selected.cpu().numpy()
        finite_maps = np.isfinite(maps).all(axis=(2, 3)) | ~selected
        finite = np.asarray(finite_maps.all(axis=1) & np.isfinite(scores).all(axis=1))
        kept = selected[finite]
        cells, peaks = encode_maps(np.where(kept[..., None, None], maps[finite], np.float32(0)))
        features = explanation.image_features.float().cpu().numpy()[finite]
        return cls(cells, peaks, scores[finite], kept, own_class[finite], features, finite)

    @classmethod
    def empty(cls, queries: int, grid: tuple[int, int], width: int) -> "EncodedBatch":
        """A batch without images.

        Args:
            queries: number of queries Q.
            grid: (h, w) of the maps.
            width: width E of the features.
        """
        no_numbers = np.zeros((0, queries), dtype=np.float32)
        return cls(
            cells=np.zeros((0, queries, *grid), dtype=np.uint8),
            peaks=no_numbers,
            scores=no_numbers,
            selected=np.zeros((0, queries), dtype=bool),
            own_class=np.zeros(0, dtype=np.int64),
            features=np.zeros((0, width), dtype=np.float32),
            finite=np.zeros(0, dtype=bool),
        )

    def columns(
        self, names: Sequence[str], image_of_row: NDArray[np.int64], schema: pa.Schema
    ) -> dict[str, pa.Array]:
        """Score, map, peak and embedding columns by name.

        Args:
            names: the Q query names.
            image_of_row: (rows of the batch,) which of the n images belongs to a row, -1 for a row
                without results, which gets nulls.
            schema: the output's schema, which says which queries have map columns.
        """
        map_columns = set(schema.names)
        take = pa.array(image_of_row, mask=image_of_row < 0)
        columns = {EMBEDDING: self._embeddings().take(take)}
        for i, name in enumerate(names):
            columns[score_column(name)] = pa.array(self.scores[:, i]).take(take)
            if map_column(name) in map_columns:
                query_of_image = np.full(len(self.own_class), i)
                columns |= self._maps(name, query_of_image, image_of_row)
        if map_column(OWN_LABEL) in map_columns:
            columns |= self._maps(OWN_LABEL, self.own_class, image_of_row)
        if map_column(PREDICTED_CLASS) in map_columns:
            columns |= self._maps(PREDICTED_CLASS, self.scores.argmax(axis=1), image_of_row)
        return columns

    def predicted(self, labels: Sequence[str], image_of_row: NDArray[np.int64]) -> pa.Array:
        """The label with the highest score for every row of the batch, null without results.

        Args:
            labels: the Q labels of the queries.
            image_of_row: as for `columns`.
        """
        best = pa.array(self.scores.argmax(axis=1))
        return pa.array(labels).take(best.take(pa.array(image_of_row, mask=image_of_row < 0)))

    def _maps(
        self, name: str, query_of_image: NDArray[np.int64], image_of_row: NDArray[np.int64]
    ) -> dict[str, pa.Array]:
        """Map and peak columns with one query (n,) per image, null where it was not selected."""
        images = np.arange(len(query_of_image))
        has_map = (query_of_image >= 0) & self.selected[images, query_of_image]
        cells = np.ascontiguousarray(self.cells[images, query_of_image])
        size = int(np.prod(cells.shape[1:]))
        maps = pa.Array.from_buffers(pa.binary(size), len(cells), [None, pa.py_buffer(cells)])
        filled = image_of_row >= 0
        filled[filled] = has_map[image_of_row[filled]]
        take = pa.array(image_of_row, mask=~filled)
        peaks = pa.array(self.peaks[images, query_of_image])
        cells_of_row = maps.take(take).cast(pa.binary())
        return {map_column(name): cells_of_row, peak_column(name): peaks.take(take)}

    def _embeddings(self) -> pa.Array:
        """list<float32> (n,), rounded to the 11 significant bits of float16.

        So there are few distinct values, and a dictionary stores each in about two bytes.
        """
        rounded = self.features.astype(np.float16).astype(np.float32)
        offsets = np.arange(len(rounded) + 1, dtype=np.int32) * rounded.shape[1]
        return pa.ListArray.from_arrays(pa.array(offsets), pa.array(rounded.reshape(-1)))


def count_maps(table: pa.Table) -> int:
    """Number of maps in rows of the output; a query without a map for an image counts nothing."""
    prefix = peak_column("")
    peaks = [name for name in table.column_names if name.startswith(prefix)]
    return sum(table.num_rows - table[name].null_count for name in peaks)
