"""The user's own model: its accuracy on images with and without each cue.

A model that uses the cue errs more often on images of the class without it, and takes images of
other classes that have it for the class.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.audit.class_members import Members, codes_of
from pipeline.audit.inference import Array, gap_interval
from pipeline.audit.presence import Presence
from pipeline.audit.scores import Population, Readable, batches
from pipeline.errors import UsageError
from pipeline.schema import LABEL_SEPARATOR
from pipeline.storage.location import open_location
from pipeline.storage.tables import parse_columns, require_values

FEWEST = 10
"""Images that a group needs for its accuracy to be given."""
_COLUMNS = ("image_id", "prediction")


def compare_predictions(
    results: Readable, population: Population, presence: Presence, uri: str
) -> pd.DataFrame:
    """Accuracy of each class on its images with and without each measured cue.

    Args:
        uri: CSV or Parquet with ``image_id`` and ``prediction``: a label, or where images have sets
            of labels, a list, several with ``|`` between them, or none. Images that it does not
            list are left out.

    Returns:
        One row per (class, cue) with at least `FEWEST` images in both groups: ``with_cue``,
        ``without_cue`` (images), ``accuracy_with``, ``accuracy_without``, ``gap`` (with minus
        without) and its 95 % bounds ``low``, ``high`` (Newcombe), ``worst_group`` (the lower
        accuracy), and ``taken_with``, ``taken_without``: share of the images *without* the class's
        label and with (without) the cue that are predicted to be of this class. Largest lower bound
        first. Of images with sets of labels, the accuracy of a class is its recall.

    Raises:
        UsageError: there is no such table, a cell of it is empty, it lists none of the images,
            none of its predictions is a class, or no cue is measured.
    """
    if not presence.measured.any():
        raise UsageError(
            "predictions: no cue's presence is measured, so images with and without one cannot be "
            "compared; legrad audit OUT --all says why for each"
        )
    table = _read(uri)
    require_values(table, _COLUMNS[:1] if population.has_sets else _COLUMNS, uri)
    predicted = pd.Series(
        table["prediction"].astype(str).to_numpy(), index=table["image_id"].astype(str)
    )
    predicted = predicted[~predicted.index.duplicated(keep="last")]
    _require_classes(predicted, population, uri)
    try:
        return accuracy_by_cue(results, population, presence, predicted)
    except LookupError:
        raise UsageError(
            f"{uri}: none of its image_ids is among the explained images; expected ids as in "
            "images/*.parquet"
        ) from None


def _require_classes(predicted: pd.Series, population: Population, uri: str) -> None:
    """Refuse predictions of which none is a class: numbers of classes, or other capitals.

    Raises:
        UsageError: none is.
    """
    several = population.has_sets
    named = predicted.str.split(LABEL_SEPARATOR, regex=False).explode() if several else predicted
    if len(named) and not named.isin(population.classes).any():
        raise UsageError(
            f"{uri}: none of the predictions is a label of the data: found "
            f"{str(named.iloc[0])!r}, expected labels such as {population.classes[0]!r}"
        )


def _read(uri: str) -> pd.DataFrame:
    """The table of predictions as text; the labels of a list are joined."""
    table = parse_columns(open_location(uri).read(), uri, _COLUMNS)
    if pa.types.is_list(table.schema.field("prediction").type):
        joined = pc.binary_join(table["prediction"], pa.scalar(LABEL_SEPARATOR, pa.large_string()))
        table = table.set_column(table.schema.get_field_index("prediction"), "prediction", joined)
    frame: pd.DataFrame = table.to_pandas()
    return frame.fillna("").astype(str)


def accuracy_by_cue(
    results: Readable, population: Population, presence: Presence, predicted: pd.Series
) -> pd.DataFrame:
    """The table of `compare_predictions`.

    Args:
        predicted: predicted label by image_id; several have ``|`` between them where images have
            sets of labels.

    Raises:
        LookupError: none of the images is among the explained ones.
    """
    cues = [presence.histograms.cues[cue] for cue in np.flatnonzero(presence.measured)]
    several = predicted.str.split(LABEL_SEPARATOR, regex=False)
    labels = several if population.has_sets else predicted.map(lambda label: [label])
    counts = _count(results, population, presence, labels)
    if not counts.total.sum():
        raise LookupError("no image has a prediction")
    return _frame(counts, population, cues)


@dataclass(frozen=True)
class _Counts:
    """Numbers of images that have a prediction, by M cues, without (0) and with (1) the cue.

    Attributes:
        total: (M, 2) all of them.
        images: (M, 2, K) in each class.
        right: (M, 2, K) in the class and predicted to be.
        called: (M, 2, K) predicted to be in the class.
    """

    total: Array
    images: Array
    right: Array
    called: Array

    @property
    def by_class(self) -> tuple[Array, Array, Array]:
        """``images``, ``right`` and ``called``."""
        return self.images, self.right, self.called


def _count(
    results: Readable, population: Population, presence: Presence, predicted: pd.Series
) -> _Counts:
    """Count the images whose predicted labels are known."""
    cues, classes = np.flatnonzero(presence.measured), len(population.classes)
    names = [presence.histograms.cues[cue] for cue in cues]
    by_class = (len(cues), 2, classes)
    counts = _Counts(np.zeros(by_class[:2]), *(np.zeros(by_class) for _ in range(3)))
    lists = pa.array(predicted, pa.list_(pa.string()))
    for batch in batches(results, population, names, ["image_id"]):
        found = predicted.index.get_indexer(pd.Index(batch.table["image_id"].to_pylist()))
        listed = found >= 0
        called = _members(lists.take(pa.array(found, mask=~listed)), population)
        known = listed[batch.members.rows]
        truth = Members(batch.members.rows[known], batch.members.codes[known])
        hits = np.isin(called.rows * classes + called.codes, truth.rows * classes + truth.codes)
        right = Members(called.rows[hits], called.codes[hits])
        for row, (cue, name) in enumerate(zip(map(int, cues), names, strict=True)):
            present = presence.of(cue, batch.codes, batch.scores(name)) > 0.5
            counts.total[row] += np.bincount(present[listed], minlength=2)
            for count, of in zip(counts.by_class, (truth, right, called), strict=True):
                cells = present[of.rows] * classes + of.codes
                count[row] += np.bincount(cells, minlength=2 * classes).reshape(2, classes)
    return counts


def _members(labels: pa.ListArray, population: Population) -> Members:
    """The classes in n lists of labels; labels that are no class, and nulls, are left out."""
    codes = codes_of(pc.list_flatten(labels), population.index, -1)
    rows = pc.list_parent_indices(labels).to_numpy().astype(np.int64)
    known = np.unique(np.stack([rows, codes])[:, codes >= 0], axis=1)  # a label may be repeated
    return Members(known[0], known[1])


def _frame(counts: _Counts, population: Population, cues: Sequence[str]) -> pd.DataFrame:
    """The table from the counts."""
    images, right = counts.images, counts.right
    others = counts.total[:, :, None] - images
    taken_share = (counts.called - right) / np.maximum(others, 1)
    enough = images.min(axis=1) >= FEWEST
    enough[:, population.audited :] = False
    rows, codes = np.nonzero(enough)
    (n0, n1), (r0, r1), (t0, t1) = (
        (values[rows, 0, codes], values[rows, 1, codes]) for values in (images, right, taken_share)
    )
    low, high = gap_interval(r1, n1, r0, n0) if len(rows) else (np.zeros(0), np.zeros(0))
    p1, p0 = r1 / n1, r0 / n0
    frame = pd.DataFrame(
        {
            "class": np.array(population.classes, dtype=object)[codes],
            "cue": np.array(cues, dtype=object)[rows],
            "with_cue": n1.astype(int),
            "without_cue": n0.astype(int),
            "accuracy_with": p1,
            "accuracy_without": p0,
            "gap": p1 - p0,
            "low": low,
            "high": high,
            "worst_group": np.minimum(p1, p0),
            "taken_with": t1,
            "taken_without": t0,
        }
    )
    return frame.sort_values("low", ascending=False, ignore_index=True)
