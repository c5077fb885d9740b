"""Thresholds from labelled examples: for cues whose scores do not fall into two states."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
from numpy.typing import NDArray

from pipeline.audit.aggregate import Readable
from pipeline.audit.histogram_sums import Array
from pipeline.audit.split import folds
from pipeline.config.audit_settings import Gates
from pipeline.errors import UsageError
from pipeline.schema import score_column
from pipeline.storage.tables import read_table

_FOLDS = 5
_LEAST = 10  # of each kind
_YES = frozenset(["1", "1.0", "true", "yes", "t", "y"])
_NO = frozenset(["0", "0.0", "false", "no", "f", "n"])


@dataclass(frozen=True)
class Learned:
    """What examples of a cue came to.

    Attributes:
        cue: its name.
        examples: with a score and a label.
        threshold: score from which the cue is present; None where it does not tell.
        balanced_accuracy: mean of sensitivity and specificity, on examples held out.
        reason: why there is no threshold, in words.
    """

    cue: str
    examples: int
    threshold: float | None
    balanced_accuracy: float
    reason: str = ""


def learn(results: Readable, uri: str, gates: Gates) -> list[Learned]:
    """A threshold for every cue of a table with ``image_id``, ``cue``, ``present``.

    Raises:
        UsageError: the table lacks a column, names an unknown cue, or says neither yes nor no.
    """
    table = read_table(uri, ["image_id", "cue", "present"])
    return [
        _learn(results, str(cue), rows, gates, uri) for cue, rows in table.groupby("cue", sort=True)
    ]


def _learn(results: Readable, cue: str, rows: pd.DataFrame, gates: Gates, uri: str) -> Learned:
    column = score_column(cue)
    if column not in results.dataset.schema.names:
        raise UsageError(f"{uri}: cue {cue!r} is no query of this run")
    said = rows["present"].astype(str).str.strip().str.lower()
    strange = said[~said.isin(_YES | _NO)]
    if len(strange):
        raise UsageError(f"{uri}: present is {strange.iloc[0]!r}: expected true or false, 1 or 0")
    present = pd.Series(said.isin(_YES).to_numpy(), index=rows["image_id"].astype(str))
    wanted = ds.field("image_id").isin(pa.array(list(present.index), pa.string()))
    found = results.dataset.to_table(columns=["image_id", column], filter=wanted).to_pandas()
    found = found[found[column].notna()]
    truth = present[~present.index.duplicated()].loc[found["image_id"]].to_numpy(bool)
    scores = found[column].to_numpy(float)
    few = min(truth.sum(), (~truth).sum())
    if len(scores) < gates.examples or few < _LEAST:
        return Learned(
            cue,
            len(scores),
            None,
            float("nan"),
            f"{len(scores)} labelled examples with scores, {few} of the rarer kind; "
            f"{gates.examples} and {_LEAST} needed",
        )
    accuracy = _held_out(scores, truth, folds(found["image_id"].tolist(), _FOLDS))
    if accuracy < gates.balanced_accuracy:
        return Learned(
            cue,
            len(scores),
            None,
            accuracy,
            f"its scores tell with from without in {accuracy:.0%} of examples held out, "
            f"{gates.balanced_accuracy:.0%} needed",
        )
    return Learned(cue, len(scores), best_threshold(scores, truth), accuracy)


def best_threshold(scores: Array, truth: NDArray[np.bool_]) -> float:
    """The cut with the largest sum of sensitivity and specificity (Youden), between two scores."""
    order = np.argsort(scores, kind="stable")
    ranked, right = scores[order], truth[order]
    missed = np.concatenate([[0], right.cumsum()]) / max(right.sum(), 1)
    spared = np.concatenate([[0], (~right).cumsum()]) / max((~right).sum(), 1)
    place = int((spared - missed).argmax())
    below = ranked[max(place - 1, 0)]
    above = ranked[min(place, len(ranked) - 1)]
    return float((below + above) / 2)


def _held_out(scores: Array, truth: NDArray[np.bool_], fold: NDArray[np.int64]) -> float:
    said = np.zeros(len(scores), dtype=bool)
    for number in range(_FOLDS):
        out = fold == number
        said[out] = scores[out] >= best_threshold(scores[~out], truth[~out])
    return float((said[truth].mean() + (~said[~truth]).mean()) / 2)
