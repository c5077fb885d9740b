"""One pass after the other over the columns of a run, batch by batch: counts, ranges, histograms.

Nothing here grows with the number of images, but for the labels' own dictionary.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from numpy.typing import NDArray

from pipeline.audit.split import confirming
from pipeline.schema import Status, score_column

BATCH_ROWS = 65_536
OTHER = "(other labels)"
"""The class of all labels beyond the most frequent ones; it is compared with, not audited."""


class Readable(Protocol):
    """What the audit needs of `Results` to read scores."""

    @property
    def dataset(self) -> ds.Dataset:
        """Rows with ``label``, ``status`` and ``score__<query>``."""


@dataclass(frozen=True)
class Population:
    """What the rows are.

    Attributes:
        classes: labels, most frequent first; the last one may be `OTHER`.
        sizes: explained images of each.
        statuses: rows by status.
        unlabelled: explained rows without a label; they count in no class.
    """

    classes: tuple[str, ...]
    sizes: NDArray[np.int64]
    statuses: Counter[str]
    unlabelled: int

    @cached_property
    def index(self) -> dict[str, int]:
        """Label -> place in ``classes``."""
        return {label: place for place, label in enumerate(self.classes)}

    @property
    def audited(self) -> int:
        """How many classes are labels of their own."""
        return len(self.classes) - (OTHER in self.classes[-1:])

    def codes(self, labels: pa.ChunkedArray | pa.Array) -> NDArray[np.int64]:
        """(n,) place of each label in ``classes``; -1 for none."""
        array = labels.combine_chunks() if isinstance(labels, pa.ChunkedArray) else labels
        encoded = array.dictionary_encode()
        other = self.index.get(OTHER, -1)
        values = encoded.dictionary.to_pylist()
        places = np.array([*(self.index.get(value, other) for value in values), -1])
        result: NDArray[np.int64] = places[
            encoded.indices.fill_null(len(values)).to_numpy(zero_copy_only=False)
        ]
        return result


@dataclass(frozen=True)
class Batch:
    """Explained, labelled rows of a batch.

    Attributes:
        table: their columns.
        codes: (n,) class of each.
    """

    table: pa.Table
    codes: NDArray[np.int64]

    def scores(self, query: str) -> NDArray[np.float64]:
        """(n,) of one query."""
        result: NDArray[np.float64] = self.table[score_column(query)].to_numpy().astype(np.float64)
        return result


def population(results: Readable, max_classes: int) -> Population:
    """Count labels and statuses."""
    statuses: Counter[str] = Counter()
    labels: Counter[str | None] = Counter()
    for table in _tables(results, ["label", "status"]):
        statuses.update({str(s): n for s, n in _counts(table["status"]).items()})
        labels.update(_counts(table.filter(pc.equal(table["status"], str(Status.OK)))["label"]))
    unlabelled = labels.pop(None, 0)
    ordered = sorted(labels.items(), key=lambda item: (-item[1], str(item[0])))
    named, rest = ordered[:max_classes], ordered[max_classes:]
    classes = [str(label) for label, _ in named] + ([OTHER] if rest else [])
    sizes = [count for _, count in named] + ([sum(n for _, n in rest)] if rest else [])
    return Population(tuple(classes), np.array(sizes, dtype=np.int64), statuses, unlabelled)


def _counts(column: pa.ChunkedArray) -> dict[str | None, int]:
    counted = column.combine_chunks().value_counts()
    return {row["values"]: row["counts"] for row in counted.to_pylist()}


def batches(
    results: Readable,
    known: Population,
    queries: Sequence[str],
    columns: Sequence[str] = (),
) -> Iterator[Batch]:
    """Explained rows with a label; ``queries`` are those whose scores are read."""
    wanted = ["label", "status", *columns, *(score_column(query) for query in queries)]
    for table in _tables(results, list(dict.fromkeys(wanted))):
        fine = table.filter(
            pc.and_(pc.equal(table["status"], str(Status.OK)), pc.is_valid(table["label"]))
        )
        if fine.num_rows:
            yield Batch(fine, known.codes(fine["label"]))


def _tables(results: Readable, columns: list[str]) -> Iterator[pa.Table]:
    for batch in results.dataset.to_batches(columns=columns, batch_size=BATCH_ROWS):
        if batch.num_rows:
            yield pa.Table.from_batches([batch])


@dataclass(frozen=True)
class Histograms:
    """Scores of C cues by class.

    Attributes:
        cues: their names.
        edges: (C, 2) lowest and highest score; all bins of a cue are as wide.
        counts: (C, K, B) images by class and bin.
    """

    cues: tuple[str, ...]
    edges: NDArray[np.float64]
    counts: NDArray[np.float32]

    @property
    def width(self) -> NDArray[np.float64]:
        """(C,) of a bin."""
        result: NDArray[np.float64] = (self.edges[:, 1] - self.edges[:, 0]) / self.counts.shape[2]
        return result

    @property
    def centres(self) -> NDArray[np.float64]:
        """(C, B) score in the middle of each bin."""
        return self.edges[:, :1] + (np.arange(self.counts.shape[2]) + 0.5) * self.width[:, None]

    def bins(self, cue: int, scores: NDArray[np.float64]) -> NDArray[np.int64]:
        """(n,) bin of each score."""
        low, high = self.edges[cue]
        count = self.counts.shape[2]
        scaled = (scores - low) * (count / (high - low)) + 1e-9  # a score on an edge is above it
        result: NDArray[np.int64] = scaled.astype(np.int64).clip(0, count - 1)
        return result


def histograms(
    results: Readable,
    known: Population,
    cues: Sequence[str],
    bins: int,
    thresholds: Mapping[str, float] | None = None,
    halved: frozenset[str] = frozenset(),
) -> Histograms:
    """Two passes over the scores: their ranges, then their counts.

    Args:
        thresholds: by cue, scores that shall lie between two bins and not within one.
        halved: cues of which only the confirming half of the images counts.
    """
    edges = np.tile([np.inf, -np.inf], (len(cues), 1))
    for batch in batches(results, known, cues):
        for place, cue in enumerate(cues):
            scores = batch.scores(cue)
            edges[place] = min(edges[place, 0], scores.min()), max(edges[place, 1], scores.max())
    flat = ~(edges[:, 1] > edges[:, 0])  # constant, or no images: any width does
    edges[flat] = np.where(np.isfinite(edges[flat]), edges[flat], 0.0) + np.array([-0.5, 0.5])
    for cue, threshold in (thresholds or {}).items():
        place = list(cues).index(cue)
        edges[place] = _aligned(edges[place], threshold, bins)
    classes = len(known.classes)
    found = Histograms(tuple(cues), edges, np.zeros((len(cues), classes, bins), np.float32))
    extra = ["image_id"] if halved else []
    for batch in batches(results, known, cues, extra):
        half = confirming(batch.table["image_id"].to_pylist()) if halved else None
        for place, cue in enumerate(cues):
            rows = half if half is not None and cue in halved else slice(None)
            cells = batch.codes[rows] * bins + found.bins(place, batch.scores(cue)[rows])
            counted = np.bincount(cells, minlength=classes * bins)
            found.counts[place] += counted.reshape(classes, bins)
    return found


def _aligned(edges: NDArray[np.float64], threshold: float, bins: int) -> NDArray[np.float64]:
    """Edges, moved by less than a bin so that one of the bins begins at the threshold."""
    low, high = min(edges[0], threshold), max(edges[1], threshold)
    width = (high - low) / (bins - 1.5)
    start = threshold - np.ceil((threshold - low) / width) * width
    return np.array([start, start + bins * width])
