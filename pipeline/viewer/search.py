"""The images of a run: ids, labels and statuses in memory, filters, and their order by scores."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.audit.class_members import label_columns, label_pairs
from pipeline.errors import unknown_name
from pipeline.results import Results, sql
from pipeline.results.rows import ID
from pipeline.schema import Status, score_column
from pipeline.viewer.embeddings import Vector

_KEPT = 16
"""Conditions whose images are kept in memory."""


@dataclass(frozen=True)
class Filters:
    """Which images are wanted; an empty text stands for any.

    Attributes:
        label: one of an image's labels.
        status: its status.
        where: an SQL condition on the columns of the results.
    """

    label: str = ""
    status: str = ""
    where: str = ""


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
    """

    results: Results
    ids: pa.Array
    label_rows: NDArray[np.int64]
    labels: pa.DictionaryArray
    statuses: pa.DictionaryArray
    _scores: dict[str, Vector] = field(default_factory=dict)
    _where: OrderedDict[str, NDArray[np.bool_]] = field(default_factory=OrderedDict)

    @classmethod
    def read(cls, results: Results) -> "ImageIndex":
        """Read ids, labels and statuses."""
        columns = [ID, "status", *label_columns(results)]
        table = results.rows.table(columns).combine_chunks()
        ids, statuses = (table[name].combine_chunks() for name in columns[:2])
        rows, labels = label_pairs(table)
        return cls(results, ids, rows, labels.dictionary_encode(), statuses.dictionary_encode())

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
        if len(rows) and (last - first).max() <= 1:  # much faster for many rows
            labels = self.labels.take(pa.array(first, mask=first == last))
            return [name or "" for name in labels.to_pylist()]
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

    def explained(self) -> NDArray[np.bool_]:
        """(n,) whether an image has scores and an embedding."""
        return _equals(self.statuses, str(Status.OK))

    def passing(self, filters: Filters) -> NDArray[np.bool_]:
        """(n,) whether an image passes some filters.

        Raises:
            UsageError: the condition does not fit the columns.
        """
        wanted = _equals(self.statuses, filters.status)
        if filters.label:
            labelled = np.zeros(len(wanted), bool)
            labelled[self.label_rows[_equals(self.labels, filters.label)]] = True
            wanted &= labelled
        if filters.where:
            if filters.where not in self._where:
                self._where[filters.where] = sql.rows_where(self.results.rows, filters.where)
                while len(self._where) > _KEPT:
                    self._where.popitem(last=False)
            wanted &= self._where[filters.where]
        return wanted

    def ranked(
        self, scores: Vector | None, filters: Filters, first: int, *, lowest: bool = False
    ) -> Ranking:
        """The first images that pass the filters, highest scores first, equal ones by image_id.

        Args:
            scores: (n,); None for the order of the files.
            filters: which images.
            first: largest number of images.
            lowest: whether the lowest scores come first.

        Raises:
            UsageError: the condition does not fit the columns.
        """
        wanted = self.passing(filters)
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


def _equals(column: pa.DictionaryArray, value: str) -> NDArray[np.bool_]:
    """(n,) where a column has a value; everywhere for an empty one."""
    if not value:
        return np.ones(len(column), bool)
    code = pc.index(column.dictionary, value).as_py()
    codes = column.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    result: NDArray[np.bool_] = (codes == code) & (codes >= 0)
    return result
