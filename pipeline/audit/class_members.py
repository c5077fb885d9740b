"""Which images are in which class: by one label each, or by the sets of labels that images have."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from numpy.typing import NDArray

from pipeline.schema import Status


class HasDataset(Protocol):
    """The part of `Results` that is needed to read labels."""

    @property
    def dataset(self) -> ds.Dataset:
        """Rows with ``label`` and, since labels may be sets, ``labels``."""


@dataclass(frozen=True)
class Members:
    """The m pairs of an image and a class that it is in, by image.

    Attributes:
        rows: (m,) row number of the image in its table.
        codes: (m,) code of the class.
    """

    rows: NDArray[np.int64]
    codes: NDArray[np.int64]

    def of_class(self, code: int, images: int) -> NDArray[np.bool_]:
        """(n,) whether each of n images is in a class."""
        inside = np.zeros(images, bool)
        inside[self.rows[self.codes == code]] = True
        return inside


def label_columns(results: HasDataset) -> list[str]:
    """The columns that hold labels; results of earlier versions have no sets."""
    return [name for name in ("label", "labels") if name in results.dataset.schema.names]


def is_labelled(table: pa.Table) -> pa.ChunkedArray:
    """Whether each row has a label or a set of labels, which may be empty."""
    labelled = pc.is_valid(table["label"])
    return pc.or_(labelled, pc.is_valid(table["labels"])) if gives_sets(table) else labelled


def label_pairs(table: pa.Table) -> tuple[NDArray[np.int64], pa.Array]:
    """Row numbers (m,), ascending, and labels (m,) of all labels in a table.

    A row with a set has its labels; any other row has the label in ``label``, or none.
    """
    single = table["label"].combine_chunks()
    if not gives_sets(table):
        rows = np.flatnonzero(single.is_valid().to_numpy(zero_copy_only=False))
        return rows, single.drop_null()
    sets = table["labels"].combine_chunks()
    alone = np.flatnonzero(
        pc.and_(single.is_valid(), sets.is_null()).to_numpy(zero_copy_only=False)
    )
    parents = pc.list_parent_indices(sets).to_numpy().astype(np.int64)
    rows = np.concatenate([alone, parents])
    labels = pa.concat_arrays([single.take(pa.array(alone)), pc.list_flatten(sets)])
    order = np.argsort(rows, kind="stable")
    return rows[order], labels.take(pa.array(order))


def codes_of(labels: pa.Array, index: Mapping[str, int], other: int) -> NDArray[np.int64]:
    """(n,) code of each label; ``other`` for a label without one, -1 for null."""
    encoded = labels.dictionary_encode()
    values = encoded.dictionary.to_pylist()
    codes = np.array([*(index.get(value, other) for value in values), -1])
    result: NDArray[np.int64] = codes[
        encoded.indices.fill_null(len(values)).to_numpy(zero_copy_only=False)
    ]
    return result


def members_of_sets(
    table: pa.Table, index: Mapping[str, int], other: int
) -> tuple[Members, NDArray[np.int64]]:
    """The classes of images with sets of labels, and (n,) the rarest class of each.

    An image without an audited label is in the class ``other``, and in no other class.

    Args:
        table: n rows.
        index: label -> code; the rarer a class, the larger its code.
        other: code of the class of images without an audited label; -1 if there is none.
    """
    rows, labels = label_pairs(table)
    codes = codes_of(labels, index, -1)
    audited = (codes >= 0) & (codes != other)
    rows, codes = rows[audited], codes[audited]
    rarest = np.full(table.num_rows, -1, np.int64)
    np.maximum.at(rarest, rows, codes)
    without = np.flatnonzero(rarest < 0)
    rarest[without] = other
    if other >= 0 and len(without):
        rows = np.concatenate([rows, without])
        codes = np.concatenate([codes, np.full(len(without), other)])
        order = np.argsort(rows, kind="stable")
        rows, codes = rows[order], codes[order]
    return Members(rows, codes), rarest


def rows_with_label(results: HasDataset, label: str, columns: Mapping[str, str]) -> pa.Table:
    """Some columns of the explained images that have a label, alone or in a set.

    Args:
        columns: name in the result -> column of the results.
    """
    explained = ds.field("status") == str(Status.OK)
    of_label = ds.field("label") == label
    wanted: dict[str, Any] = {name: ds.field(column) for name, column in columns.items()}
    if "labels" not in results.dataset.schema.names:
        return results.dataset.to_table(columns=wanted, filter=of_label & explained)
    labelled = {"label": ds.field("label"), "labels": ds.field("labels")}
    parts = []
    candidates = explained & (of_label | ds.field("labels").is_valid())
    for batch in results.dataset.to_batches(columns=wanted | labelled, filter=candidates):
        table = pa.Table.from_batches([batch])
        rows, labels = label_pairs(table)
        inside = pc.equal(labels, label).to_numpy(zero_copy_only=False)
        parts.append(table.take(pa.array(np.unique(rows[inside]))))
    return pa.concat_tables(parts)


def gives_sets(table: pa.Table) -> bool:
    """Whether a row of a table has a set of labels."""
    return "labels" in table.column_names and table["labels"].null_count < table.num_rows
