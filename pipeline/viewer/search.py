"""Rank the images of a run by a text, a stored query or other images, from stored embeddings."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray

from pipeline.audit.class_members import label_columns, label_pairs
from pipeline.errors import UsageError, unknown_name
from pipeline.results import Results
from pipeline.schema import EMBEDDING, Status, score_column

_BATCH = 65_536
_BLOCK = 2048
"""Rows that torch converts to float32 at a time, five times as fast as numpy: they stay in the
processor's cache."""
Vector = NDArray[np.float32]


@dataclass(frozen=True)
class Filters:
    """Which images are wanted; an empty text stands for any."""

    label: str = ""
    status: str = ""


@dataclass(frozen=True)
class Ranking:
    """Images in order.

    Attributes:
        rows: (n,) index of each image.
        scores: (n,) of the search; NaN where there is none.
        total: images that pass the filters and have a score, if scores are asked for.
    """

    rows: NDArray[np.int64]
    scores: Vector
    total: int


@dataclass(frozen=True)
class ImageIndex:
    """What is kept in memory of the n images of a run.

    Attributes:
        results: the run.
        ids: (n,) image ids.
        label_rows: (m,) row of each label, ascending; an image may have several labels.
        labels: (m,) as a dictionary array.
        statuses: (n,) as a dictionary array.
        vectors: (n, E) float16 unit embeddings, 0 where there is none; None if none are stored.
    """

    results: Results
    ids: pa.Array
    label_rows: NDArray[np.int64]
    labels: pa.DictionaryArray
    statuses: pa.DictionaryArray
    vectors: NDArray[np.float16] | None
    _scores: dict[str, Vector] = field(default_factory=dict)

    @classmethod
    def read(cls, results: Results) -> "ImageIndex":
        """Read ids, labels, statuses and embeddings in one pass."""
        stored = EMBEDDING in results.rows.schema.names
        small = ["image_id", "status", *label_columns(results)]
        columns = [*small, *([EMBEDDING] if stored else [])]
        tables, vectors, start = [], None, 0
        for table in results.rows.batches(columns, None, _BATCH):
            if stored:
                block = _vectors(table[EMBEDDING])
                if vectors is None and block.shape[1]:
                    vectors = np.zeros((len(results), block.shape[1]), np.float16)
                if vectors is not None and block.shape[1]:
                    vectors[start : start + len(block)] = block
                start += table.num_rows
            tables.append(table.select(small))
        whole = pa.concat_tables(tables).combine_chunks()
        ids, statuses = (whole[name].combine_chunks() for name in small[:2])
        rows, labels = label_pairs(whole)
        encoded = labels.dictionary_encode(), statuses.dictionary_encode()
        return cls(results, ids, rows, *encoded, vectors)

    @property
    def label_names(self) -> list[str]:
        """Labels that occur, sorted."""
        return sorted(name for name in self.labels.dictionary.to_pylist() if name)

    @property
    def status_names(self) -> list[str]:
        """Statuses that occur, sorted."""
        return sorted(self.statuses.dictionary.to_pylist())

    def labels_of(self, rows: NDArray[np.int64]) -> list[str]:
        """The labels of images as text, empty where there is none."""
        first, last = (np.searchsorted(self.label_rows, rows, side) for side in ("left", "right"))
        return [
            ", ".join(self.labels[start:stop].to_pylist())
            for start, stop in zip(first.tolist(), last.tolist(), strict=True)
        ]

    def find(self, image_ids: Sequence[str]) -> NDArray[np.int64]:
        """(m,) rows of images.

        Raises:
            UnknownNameError: there is no such image.
        """
        rows = [pc.index(self.ids, name).as_py() for name in image_ids]
        if -1 in rows:
            raise unknown_name("image", image_ids[rows.index(-1)], [], self.results.uri)
        return np.array(rows, np.int64)

    def query_scores(self, query: str) -> Vector:
        """(n,) stored scores of a query; NaN where there is none.

        Raises:
            UnknownNameError: there is no such query.
        """
        if query not in self._scores:
            names = [q.name for q in self.results.queries]
            if query not in names:
                raise unknown_name("query", query, names, self.results.uri)
            column = self.results.rows.table([score_column(query)])[score_column(query)]
            self._scores[query] = column.to_numpy().astype(np.float32)
        return self._scores[query]

    def similarity(self, direction: Vector) -> Vector:
        """(n,) cosines of a unit vector (E,) with all images; NaN where there is no embedding.

        Raises:
            UsageError: the run stored no embeddings.
        """
        vectors, wanted = torch.from_numpy(self._required()), torch.from_numpy(direction)
        cosines = torch.empty(len(vectors))
        for start in range(0, len(vectors), _BLOCK):
            block = vectors[start : start + _BLOCK].float()
            torch.mv(block, wanted, out=cosines[start : start + _BLOCK])
        result: Vector = cosines.numpy()
        result[~self._explained()] = np.nan
        return result

    def mean_direction(self, image_ids: Sequence[str]) -> Vector:
        """(E,) unit vector between some images.

        Raises:
            UsageError: the run stored no embeddings, or none of these images has one.
        """
        mean = self._required()[self.find(image_ids)].astype(np.float32).mean(axis=0)
        length = float(np.linalg.norm(mean))
        if not length:
            raise UsageError("none of these images was explained, so nothing is like them")
        direction: Vector = (mean / length).astype(np.float32)
        return direction

    def ranked(
        self, scores: Vector | None, filters: Filters, first: int, *, lowest: bool = False
    ) -> Ranking:
        """The first images that pass the filters, highest scores first, equal ones by image_id.

        Args:
            scores: (n,); None for the order of the files.
            filters: which images.
            first: largest number of images.
            lowest: whether the lowest scores come first.
        """
        wanted = _equals(self.statuses, filters.status)
        if filters.label:
            labelled = np.zeros(len(wanted), bool)
            labelled[self.label_rows[_equals(self.labels, filters.label)]] = True
            wanted &= labelled
        if scores is None:
            rows = np.flatnonzero(wanted)
            return Ranking(rows[:first], np.full(min(first, len(rows)), np.nan), len(rows))
        rows = np.flatnonzero(wanted & ~np.isnan(scores))
        total, values = len(rows), scores[rows] if lowest else -scores[rows]
        if first < total:  # all that equal the last one stay, so that ids decide between them
            least = np.partition(values, first - 1)[first - 1]
            rows, values = rows[values <= least], values[values <= least]
        names = self.ids.take(pa.array(rows)).to_numpy(zero_copy_only=False).astype(str)
        rows = rows[np.lexsort((names, values))[:first]]
        return Ranking(rows, scores[rows], total)

    def _required(self) -> NDArray[np.float16]:
        if self.vectors is None:
            raise UsageError("the run stored no embeddings (store.embeddings: false)")
        return self.vectors

    def _explained(self) -> NDArray[np.bool_]:
        return _equals(self.statuses, str(Status.OK))


def _equals(column: pa.DictionaryArray, value: str) -> NDArray[np.bool_]:
    """(n,) where a column has a value; everywhere for an empty one."""
    if not value:
        return np.ones(len(column), bool)
    code = pc.index(column.dictionary, value).as_py()
    codes = column.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    result: NDArray[np.bool_] = (codes == code) & (codes >= 0)
    return result


def _vectors(column: pa.ChunkedArray) -> NDArray[np.float16]:
    """(n, E) of a list column, 0 where it is null; E is 0 if all are."""
    array = column.combine_chunks()
    array = array.chunk(0) if isinstance(array, pa.ChunkedArray) else array
    valid = array.is_valid().to_numpy(zero_copy_only=False)
    flat = array.flatten().to_numpy(zero_copy_only=False)
    width = len(flat) // max(int(valid.sum()), 1)
    result = np.zeros((len(array), width), np.float16)
    if width:
        result[valid] = flat.reshape(-1, width)
    return result
