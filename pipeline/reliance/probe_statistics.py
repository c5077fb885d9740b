"""Sufficient statistics of a linear probe, in one pass over the stored embeddings.

Images fall into groups by a hash of their id. Every statistic is a sum by group, so that leaving
groups out (cross-fitting) and drawing groups again (bootstrap) are sums of sums: no image is read
twice, whatever their number.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.audit.inference import Array
from pipeline.audit.presence import Presence
from pipeline.audit.scores import Batch, Population, Readable, batches
from pipeline.audit.split import folds
from pipeline.errors import UsageError
from pipeline.schema import EMBEDDING

GROUPS = 40
FOLDS = 5
"""A group is of the fold ``group % FOLDS``."""


@dataclass(frozen=True)
class ProbeSums:
    """Sums over the images of G groups: K classes, embeddings of width E, C cues.

    Attributes:
        cues: names of the cues that are counted.
        images: (G, K).
        sums: (G, K, E) of the embeddings.
        products: (G, E, E) of their outer products.
        present: (G, C, K) expected images with the cue.
    """

    cues: tuple[str, ...]
    images: Array
    sums: NDArray[np.float32]
    products: Array
    present: Array

    @property
    def width(self) -> int:
        """E."""
        return int(self.sums.shape[2])

    @cached_property
    def fold(self) -> NDArray[np.int64]:
        """(G,) of each group."""
        return np.arange(GROUPS) % FOLDS


def groups(image_ids: Sequence[str]) -> NDArray[np.int64]:
    """(n,) group of each image, by its id and nothing else."""
    return folds(image_ids, GROUPS)


def collect(
    results: Readable, known: Population, presence: Presence, cues: Sequence[str]
) -> ProbeSums:
    """Read embeddings, labels and the scores of some cues once.

    Raises:
        UsageError: the run kept no embeddings.
    """
    if EMBEDDING not in results.dataset.schema.names:
        raise UsageError(
            "reliance needs the images' embeddings, and this run kept none (store.embeddings: "
            "false). Make a run with them, into another output"
        )
    classes = len(known.classes)
    found: ProbeSums | None = None
    for batch in batches(results, known, cues, ["image_id", EMBEDDING]):
        vectors = embeddings(batch.table)
        if found is None:
            width = vectors.shape[1]
            found = ProbeSums(
                tuple(cues),
                np.zeros((GROUPS, classes)),
                np.zeros((GROUPS, classes, width), np.float32),
                np.zeros((GROUPS, width, width)),
                np.zeros((GROUPS, len(cues), classes)),
            )
        _add(found, batch, vectors, presence)
    if found is None:
        raise UsageError("reliance: no explained image has a label, so no probe can be trained")
    return found


def embeddings(table: pa.Table) -> NDArray[np.float32]:
    """(n, E) float32 of a table's embedding column, which has no nulls."""
    column = table[EMBEDDING].combine_chunks()
    array = column.chunk(0) if isinstance(column, pa.ChunkedArray) else column
    flat: NDArray[np.float32] = array.flatten().to_numpy(zero_copy_only=False).astype(np.float32)
    return flat.reshape(len(array), -1)


def _add(found: ProbeSums, batch: Batch, vectors: NDArray[np.float32], presence: Presence) -> None:
    group = groups(batch.table["image_id"].to_pylist())
    names = presence.histograms.cues
    having = [presence.of(names.index(cue), batch.codes, batch.scores(cue)) for cue in found.cues]
    for number in np.unique(group):
        rows = np.flatnonzero(group == number)
        mine, codes = vectors[rows], batch.codes[rows]
        found.images[number] += np.bincount(codes, minlength=found.images.shape[1])
        np.add.at(found.sums[number], codes, mine)
        found.products[number] += (mine.T @ mine).astype(np.float64)
        for place, values in enumerate(having):
            counted = np.bincount(codes, values[rows], minlength=found.images.shape[1])
            found.present[number, place] += counted
