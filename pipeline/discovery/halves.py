"""One half of a run's images, to be read as the whole is, with scores of words as columns."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.audit.scores import Readable, embeddings
from pipeline.audit.split import confirming
from pipeline.results.streamed import in_batches
from pipeline.schema import EMBEDDING, score_column


@dataclass(frozen=True)
class HalfScores:
    """The images on which words are found, or those on which they are confirmed.

    It stands in for a run's dataset wherever the audit reads scores (see `Readable`), so that a
    word passes through the same tests as a query whose scores are stored.

    Attributes:
        results: results of the whole run.
        confirming: which half, see `pipeline.audit.split`.
        directions: word -> (E,) direction; its score is the product with an image's embedding.
    """

    results: Readable
    confirming: bool
    directions: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)

    @property
    def dataset(self) -> "HalfScores":
        """The half, in place of a pyarrow dataset."""
        return self

    @property
    def schema(self) -> pa.Schema:
        """Columns of the run and of the words."""
        fields = [pa.field(score_column(name), pa.float32()) for name in self.directions]
        return pa.schema([*self.results.dataset.schema, *fields])

    def to_batches(
        self, columns: Sequence[str], batch_size: int | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Some columns of the half, in batches of at most ``batch_size`` rows."""
        names = {score_column(name): name for name in self.directions}
        chosen = [name for name in columns if name in names]
        stored = [name for name in columns if name not in names]
        read = dict.fromkeys([*stored, "image_id", "status", *([EMBEDDING] if chosen else [])])
        matrix = np.stack([self.directions[names[name]] for name in chosen]).T if chosen else None
        for batch in in_batches(self.results.dataset, list(read), batch_size):
            table = pa.Table.from_batches([batch])
            table = table.filter(confirming(table["image_id"].to_pylist()) == self.confirming)
            if matrix is not None:
                table = _with_scores(table, chosen, matrix)
            yield from table.select(list(columns)).combine_chunks().to_batches()


def _with_scores(table: pa.Table, columns: Sequence[str], matrix: NDArray[np.float32]) -> pa.Table:
    """The table with scores by each column (E, C) of a matrix; null without an embedding."""
    valid = table[EMBEDDING].is_valid().combine_chunks().to_numpy(zero_copy_only=False)
    scores = np.zeros((len(table), len(columns)), np.float32)
    if valid.any():
        scores[valid] = embeddings(table.filter(valid)) @ matrix
    for number, name in enumerate(columns):
        table = table.append_column(name, pa.array(scores[:, number], mask=~valid))
    return table
