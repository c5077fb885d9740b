"""Read the labels and scores of a run, batch by batch, and the sizes of its classes.

Memory does not grow with the number of images; only the counts by label do grow with the labels.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from numpy.typing import NDArray

from pipeline.audit.class_members import (
    Members,
    codes_of,
    gives_sets,
    is_labelled,
    label_columns,
    label_pairs,
    members_of_sets,
)
from pipeline.audit.inference import Array
from pipeline.results.streamed import in_batches
from pipeline.schema import EMBEDDING, Status, score_column

BATCH_ROWS = 65_536
OTHER = "(other labels)"
"""The class of all labels beyond the most frequent ones, and of images with an empty set of labels.
Others are compared with it, and it is not audited itself."""


class Readable(Protocol):
    """The part of `Results` that is needed to read scores."""

    @property
    def dataset(self) -> ds.Dataset:
        """Rows with ``label``, ``labels``, ``status`` and ``score__<query>``."""


@dataclass(frozen=True)
class Population:
    """The classes of a run and the number of images of each. A class's *code* is its index.

    Attributes:
        classes: (K,) labels, most frequent first; the last one may be `OTHER`.
        sizes: (K,) explained images.
        statuses: number of rows by status.
        unlabelled: number of explained rows without a label, which count in no class.
        images: number of explained images with labels, where images have sets of labels and so
            may be in several classes; None where each has one label.
    """

    classes: tuple[str, ...]
    sizes: NDArray[np.int64]
    statuses: Counter[str]
    unlabelled: int
    images: int | None = None

    @property
    def has_sets(self) -> bool:
        """Whether images have sets of labels."""
        return self.images is not None

    @property
    def total(self) -> int:
        """Number of explained images with labels."""
        return int(self.sizes.sum()) if self.images is None else self.images

    @cached_property
    def index(self) -> dict[str, int]:
        """Label -> code."""
        return {label: code for code, label in enumerate(self.classes)}

    @property
    def audited(self) -> int:
        """Number of classes that are audited: all but `OTHER`."""
        return len(self.classes) - (OTHER in self.classes[-1:])

    def members(self, table: pa.Table) -> tuple[Members, NDArray[np.int64]]:
        """The classes of the labelled images of a table, and (n,) the one class to fit each with.

        That is the only class of an image, or the rarest one: it says most about the image. So
        every image has one probability of presence, whichever of its classes is looked at.
        """
        other = self.index.get(OTHER, -1)
        if self.has_sets:
            return members_of_sets(table, self.index, other)
        codes = codes_of(table["label"].combine_chunks(), self.index, other)
        return Members(np.arange(len(codes)), codes), codes


@dataclass(frozen=True)
class Batch:
    """The explained rows with a label of one batch.

    Attributes:
        table: n rows.
        codes: (n,) class of each row, with which its presence is computed; the rarest one where
            images have sets of labels.
        members: all classes of each row.
    """

    table: pa.Table
    codes: NDArray[np.int64]
    members: Members

    def scores(self, query: str) -> Array:
        """(n,) scores of one query."""
        result: Array = self.table[score_column(query)].to_numpy().astype(np.float64)
        return result


def embeddings(table: pa.Table) -> NDArray[np.float32]:
    """(n, E) the embedding column of a table, which has no nulls."""
    column = table[EMBEDDING].combine_chunks()
    array = column.chunk(0) if isinstance(column, pa.ChunkedArray) else column
    flat: NDArray[np.float32] = array.flatten().to_numpy(zero_copy_only=False).astype(np.float32)
    return flat.reshape(len(array), -1)


def count_population(results: Readable, max_classes: int) -> Population:
    """Count labels and statuses; labels beyond the ``max_classes`` most frequent are `OTHER`."""
    statuses: Counter[str] = Counter()
    labels: Counter[str] = Counter()
    unlabelled = images = 0
    has_sets = False
    for table in _tables(results, [*label_columns(results), "status"]):
        statuses.update({str(s): n for s, n in _counts(table["status"]).items()})
        explained = table.filter(pc.equal(table["status"], str(Status.OK)))
        labels.update(_counts(label_pairs(explained)[1]))
        labelled = pc.sum(is_labelled(explained)).as_py() or 0
        images, unlabelled = images + labelled, unlabelled + explained.num_rows - labelled
        has_sets = has_sets or gives_sets(table)
    ordered = sorted(labels.items(), key=lambda item: (-item[1], item[0]))
    named, rest = ordered[:max_classes], ordered[max_classes:]
    classes = [str(label) for label, _ in named] + ([OTHER] if rest else [])
    sizes = [count for _, count in named] + ([sum(n for _, n in rest)] if rest else [])
    population = Population(tuple(classes), np.array(sizes, dtype=np.int64), statuses, unlabelled)
    return _with_sets(results, population, images) if has_sets else population


def _with_sets(results: Readable, population: Population, images: int) -> Population:
    """The population of images with sets of labels; `OTHER` has those without an audited label."""
    named = population.audited
    classes = (*population.classes[:named], OTHER)
    sizes = np.append(population.sizes[:named], 0)
    population = replace(population, classes=classes, sizes=sizes, images=images)
    others = sum(int((batch.codes == named).sum()) for batch in batches(results, population, []))
    if not others:
        return replace(population, classes=classes[:-1], sizes=sizes[:-1])
    return replace(population, sizes=np.append(sizes[:-1], others))


def _counts(column: pa.ChunkedArray | pa.Array) -> dict[str, int]:
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    counted = array.value_counts()
    return {row["values"]: row["counts"] for row in counted.to_pylist()}


def batches(
    results: Readable,
    population: Population,
    queries: Sequence[str],
    columns: Sequence[str] = (),
    rows: int = BATCH_ROWS,
) -> Iterator[Batch]:
    """Explained rows with a label.

    Args:
        queries: names of the queries whose scores are read.
        columns: other columns to read.
        rows: largest number of rows of a batch.
    """
    wanted = [*label_columns(results), "status", *columns, *map(score_column, queries)]
    for table in _tables(results, list(dict.fromkeys(wanted)), rows):
        explained = table.filter(
            pc.and_(pc.equal(table["status"], str(Status.OK)), is_labelled(table))
        )
        if explained.num_rows:
            members, codes = population.members(explained)
            yield Batch(explained, codes, members)


def _tables(results: Readable, columns: list[str], rows: int = BATCH_ROWS) -> Iterator[pa.Table]:
    for batch in in_batches(results.dataset, columns, rows):
        if batch.num_rows:
            yield pa.Table.from_batches([batch])
