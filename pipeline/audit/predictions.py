"""The user's own model: its accuracy on images with and without each cue.

Images without the cue on which the model is wrong more often, or images of other classes that it
takes for a class because they have the cue, show what the model does with the cue.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.audit.inference import Array, gap_interval
from pipeline.audit.presence import Presence
from pipeline.audit.scores import Population, Readable, batches
from pipeline.errors import UsageError
from pipeline.storage.tables import read_table, require_values

FEWEST = 10
"""Images that a group needs for its accuracy to be given."""
_COLUMNS = ("image_id", "prediction")


def compare_predictions(
    results: Readable, population: Population, presence: Presence, uri: str
) -> pd.DataFrame:
    """Accuracy of each class on its images with and without each measured cue.

    Args:
        uri: CSV or Parquet with ``image_id`` and ``prediction`` (a label). Images that it does not
            list are left out.

    Returns:
        One row per (class, cue) with at least `FEWEST` images in both groups: ``with_cue``,
        ``without_cue`` (images), ``accuracy_with``, ``accuracy_without``, ``gap`` (with minus
        without) and its 95 % bounds ``low``, ``high`` (Newcombe), ``worst_group`` (the lower
        accuracy), and ``taken_with``, ``taken_without``: share of the *other* classes' images with
        (without) the cue that are predicted to be of this class. Largest lower bound first.

    Raises:
        UsageError: there is no such table, a cell of it is empty, it lists none of the images, or
            no cue is measured.
    """
    if not presence.measured.any():
        raise UsageError(
            "predictions: no cue's presence is measured, so images with and without one cannot be "
            "compared; legrad audit OUT --all says why for each"
        )
    table = read_table(uri, _COLUMNS)
    require_values(table, _COLUMNS, uri)
    predicted = pd.Series(
        table["prediction"].astype(str).to_numpy(), index=table["image_id"].astype(str)
    )
    predicted = predicted[~predicted.index.duplicated(keep="last")]
    try:
        return accuracy_by_cue(results, population, presence, predicted)
    except LookupError:
        raise UsageError(
            f"{uri}: none of its image_ids is among the explained images; expected ids as in "
            "images/*.parquet"
        ) from None


def accuracy_by_cue(
    results: Readable, population: Population, presence: Presence, predicted: pd.Series
) -> pd.DataFrame:
    """The table of `compare_predictions`.

    Args:
        predicted: predicted label by image_id.

    Raises:
        LookupError: none of the images is among the explained ones.
    """
    cues = [presence.histograms.cues[cue] for cue in np.flatnonzero(presence.measured)]
    codes = np.array([population.index.get(label, -1) for label in predicted], dtype=np.int64)
    counts = _count(results, population, presence, predicted.index, codes)
    if not counts.sum():
        raise LookupError("no image has a prediction")
    return _frame(counts, population, cues)


def _count(
    results: Readable,
    population: Population,
    presence: Presence,
    ids: pd.Index,
    predicted: NDArray[np.int64],
) -> Array:
    """(M, 2, K, K + 1) images by measured cue, presence, class and predicted class (last: none)."""
    cues, classes = np.flatnonzero(presence.measured), len(population.classes)
    names = [presence.histograms.cues[cue] for cue in cues]
    counts = np.zeros((len(cues), 2, classes, classes + 1))
    for batch in batches(results, population, names, ["image_id"]):
        rows = ids.get_indexer(pd.Index(batch.table["image_id"].to_pylist()))
        listed = rows >= 0
        codes = batch.codes[listed]
        guess = predicted[rows[listed]] % (classes + 1)  # -1 is the last column
        for row, (cue, name) in enumerate(zip(map(int, cues), names, strict=True)):
            present = presence.of(cue, codes, batch.scores(name)[listed]) > 0.5
            cells = (present * classes + codes) * (classes + 1) + guess
            counted = np.bincount(cells, minlength=counts[row].size)
            counts[row] += counted.reshape(counts[row].shape)
    return counts


def _frame(counts: Array, population: Population, cues: Sequence[str]) -> pd.DataFrame:
    """The table from counts (M, 2, K, K + 1)."""
    images = counts.sum(axis=3)
    right = np.einsum("mpkk->mpk", counts[..., :-1])
    taken = counts[..., :-1].sum(axis=2) - right
    others = images.sum(axis=2, keepdims=True) - images
    taken_share = taken / np.maximum(others, 1)
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
