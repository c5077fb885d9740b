"""The user's own model: is it right less often where the cue is missing, or wrong where it is?"""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.audit.aggregate import Population, Readable, batches
from pipeline.audit.histogram_sums import Array
from pipeline.audit.presence import Presence
from pipeline.errors import UsageError
from pipeline.storage.tables import read_table

_Z = 1.959964
LEAST = 10
"""Images that a group needs for its accuracy to be given."""


def compare_predictions(
    results: Readable, known: Population, presence: Presence, uri: str
) -> pd.DataFrame:
    """Accuracy of each class with and without each measured cue.

    Args:
        uri: CSV or Parquet with ``image_id`` and ``prediction`` (a label); images that it does not
            name count nowhere.

    Returns:
        A row a (class, cue) with at least `LEAST` images in both groups: ``with_cue``,
        ``without_cue`` (images), ``accuracy_with``, ``accuracy_without``, ``gap`` (with minus
        without) and its 95 % bounds ``low``, ``high`` (Newcombe), ``worst_group`` (the lower
        accuracy), and ``taken_with``, ``taken_without``: share of the *other* classes' images with
        (without) the cue that are predicted to be of this class. Largest lower bound first.

    Raises:
        UsageError: no such table, or it names none of the images, or no cue is measured.
    """
    names = [presence.histograms.cues[place] for place in np.flatnonzero(presence.measured)]
    if not names:
        raise UsageError(
            "predictions: no cue's presence is measured, so images with and without one cannot be "
            "compared; legrad audit OUT --all says why for each"
        )
    table = read_table(uri, ["image_id", "prediction"])
    said = pd.Series(
        table["prediction"].astype(str).to_numpy(), index=table["image_id"].astype(str)
    )
    said = said[~said.index.duplicated(keep="last")]
    codes = np.array([known.index.get(label, -1) for label in said], dtype=np.int64)
    counts = _count(results, known, presence, said.index, codes)
    if not counts.sum():
        raise UsageError(
            f"{uri}: none of its image_ids is among the explained images; expected ids as in "
            "images/*.parquet"
        )
    return _frame(counts, known, names)


def _count(
    results: Readable,
    known: Population,
    presence: Presence,
    ids: pd.Index,
    predicted: NDArray[np.int64],
) -> Array:
    """(M, 2, K, K + 1) images by measured cue, presence, class and predicted class (last: none)."""
    names, classes = presence.histograms.cues, len(known.classes)
    places = np.flatnonzero(presence.measured)
    counts = np.zeros((len(places), 2, classes, classes + 1))
    for batch in batches(results, known, [names[p] for p in places], ["image_id"]):
        rows = ids.get_indexer(pd.Index(batch.table["image_id"].to_pylist()))
        named = rows >= 0
        codes = batch.codes[named]
        guess = predicted[rows[named]] % (classes + 1)  # -1 is the last column
        for row, place in enumerate(map(int, places)):
            scores = batch.scores(names[place])[named]
            having = presence.of(place, codes, scores) > 0.5
            cells = (having * classes + codes) * (classes + 1) + guess
            counted = np.bincount(cells, minlength=counts[row].size)
            counts[row] += counted.reshape(counts[row].shape)
    return counts


def _frame(counts: Array, known: Population, names: list[str]) -> pd.DataFrame:
    rows = []
    for row, cue in enumerate(names):
        without, having = counts[row]
        every = counts[row].sum(axis=(1, 2))
        for code in range(known.audited):
            n1, n0 = having[code].sum(), without[code].sum()
            if min(n1, n0) < LEAST:
                continue
            p1, p0 = having[code, code] / n1, without[code, code] / n0
            low, high = newcombe(p1, n1, p0, n0)
            taken = [
                (table[:, code].sum() - table[code, code]) / max(total - table[code].sum(), 1)
                for table, total in ((having, every[1]), (without, every[0]))
            ]
            label = known.classes[code]
            rows.append(
                [label, cue, int(n1), int(n0), p1, p0, p1 - p0, low, high, min(p1, p0), *taken]
            )
    columns = ["class", "cue", "with_cue", "without_cue", "accuracy_with", "accuracy_without"]
    columns += ["gap", "low", "high", "worst_group", "taken_with", "taken_without"]
    frame = pd.DataFrame(rows, columns=columns)
    return frame.sort_values("low", ascending=False, ignore_index=True)


def newcombe(p1: float, n1: float, p0: float, n0: float) -> tuple[float, float]:
    """95 % interval of p1 - p0 from two Wilson intervals (Newcombe 1998, method 10)."""
    l1, u1 = wilson(p1, n1)
    l0, u0 = wilson(p0, n0)
    gap = p1 - p0
    low = gap - np.sqrt((p1 - l1) ** 2 + (u0 - p0) ** 2)
    high = gap + np.sqrt((u1 - p1) ** 2 + (p0 - l0) ** 2)
    return float(low), float(high)


def wilson(p: float, n: float) -> tuple[float, float]:
    """95 % score interval of a share."""
    centre = (p + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z / (1 + _Z**2 / n) * np.sqrt(p * (1 - p) / n + _Z**2 / (4 * n**2))
    return float(centre - half), float(centre + half)
