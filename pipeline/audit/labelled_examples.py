"""Learn thresholds from labelled examples, for cues whose scores do not fall into two states.

Examples are a table of the user's, or the answers of people to `legrad label`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
from numpy.typing import NDArray

from pipeline.audit.inference import Array
from pipeline.audit.scores import Readable
from pipeline.audit.split import folds
from pipeline.config.audit_settings import Gates
from pipeline.errors import UsageError
from pipeline.schema import score_column
from pipeline.storage.tables import read_table, require_values

_COLUMNS = ("image_id", "cue", "present")
_FOLDS = 5
_FEWEST = 10  # examples with the cue, and without it
FOR_EDITS = 0.7
"""Balanced accuracy from which a threshold can tell whether an edit removed a cue that people saw.
The association of a class with the cue does not depend on it."""
_YES = frozenset(["1", "1.0", "true", "yes", "t", "y"])
_NO = frozenset(["0", "0.0", "false", "no", "f", "n"])


@dataclass(frozen=True)
class LearnedThreshold:
    """Result of the labelled examples of one cue.

    Attributes:
        cue: its name.
        examples: number of examples with a score.
        threshold: score from which the cue is present; None if it does not separate the examples.
        balanced_accuracy: mean of sensitivity and specificity on held-out examples.
        reason: why there is no threshold; empty if there is one.
    """

    cue: str
    examples: int
    threshold: float | None
    balanced_accuracy: float
    reason: str = ""


def learn(results: Readable, cues: Sequence[str], uri: str, gates: Gates) -> list[LearnedThreshold]:
    """Learn a threshold for every cue of a table with ``image_id``, ``cue``, ``present``.

    Args:
        cues: cues that the table may name.

    Raises:
        UsageError: the table lacks a column or has an empty cell, names an unknown cue, or
            ``present`` is neither yes nor no.
    """
    table = read_table(uri, _COLUMNS)
    require_values(table, _COLUMNS, uri)
    learned = []
    for cue, rows in table.groupby("cue", sort=True):
        if cue not in cues:
            raise UsageError(
                f"{uri}: {cue!r} is no cue of this run, whose cues are {', '.join(cues)}"
            )
        present = _examples(rows, uri)
        learned.append(_learn(results, str(cue), present, gates.examples, gates.balanced_accuracy))
    return learned


@dataclass(frozen=True)
class Answered:
    """A cue that people labelled and whose score tells its images apart.

    Attributes:
        threshold: score from which the cue is likelier than not.
        present: image_id -> whether most people see the cue; images on which they are divided are
            left out.
    """

    threshold: float
    present: "pd.Series[bool]"


def learn_from_answers(
    results: Readable, answers: pd.DataFrame, gates: Gates
) -> dict[str, Answered]:
    """Cue -> its answers, for the cues of the run whose threshold has at least `FOR_EDITS`.

    Args:
        answers: what people answered, see `label_design.answers_by_image`.
    """
    learned = {}
    for cue, rows in answers.groupby("cue", sort=True):
        shares = rows.groupby("image_id")["present"].mean()
        present = shares[shares != 0.5] > 0.5
        if score_column(str(cue)) in results.dataset.schema.names:
            found = _learn(results, str(cue), present, gates.examples, FOR_EDITS)
            if found.threshold is not None:
                learned[str(cue)] = Answered(found.threshold, present)
    return learned


def _examples(rows: pd.DataFrame, uri: str) -> "pd.Series[bool]":
    """Whether the cue is present by image_id, from the user's table."""
    answers = rows["present"].astype(str).str.strip().str.lower()
    other = answers[~answers.isin(_YES | _NO)]
    if len(other):
        raise UsageError(f"{uri}: present is {other.iloc[0]!r}: expected true or false, 1 or 0")
    present = pd.Series(answers.isin(_YES).to_numpy(), index=rows["image_id"].astype(str))
    return present[~present.index.duplicated()]


def _learn(
    results: Readable, cue: str, present: "pd.Series[bool]", fewest: int, least: float
) -> LearnedThreshold:
    """Learn from whether the cue is present by image_id.

    Args:
        fewest: number of examples needed.
        least: balanced accuracy needed.
    """
    column = score_column(cue)
    wanted = ds.field("image_id").isin(pa.array(list(present.index), pa.string()))
    examples = results.dataset.to_table(columns=["image_id", column], filter=wanted).to_pandas()
    examples = examples[examples[column].notna()]
    truth = present.loc[examples["image_id"]].to_numpy(bool)
    scores = examples[column].to_numpy(float)
    rarer = min(truth.sum(), (~truth).sum())
    if len(scores) < fewest or rarer < _FEWEST:
        return LearnedThreshold(
            cue,
            len(scores),
            None,
            float("nan"),
            f"{len(scores)} labelled examples with scores, {rarer} of the rarer kind; "
            f"{fewest} and {_FEWEST} needed",
        )
    accuracy = _held_out_accuracy(scores, truth, folds(examples["image_id"].tolist(), _FOLDS))
    if accuracy < least:
        return LearnedThreshold(
            cue,
            len(scores),
            None,
            accuracy,
            f"balanced accuracy of its scores is {accuracy:.0%} on held-out examples, "
            f"{least:.0%} needed",
        )
    return LearnedThreshold(cue, len(scores), best_threshold(scores, truth), accuracy)


def best_threshold(scores: Array, truth: NDArray[np.bool_]) -> float:
    """Threshold with the largest sensitivity plus specificity (Youden), midway between two scores.

    scikit-learn's ROC curve offers the scores themselves as thresholds and not the middles.
    """
    order = np.argsort(scores, kind="stable")
    ranked, present = scores[order], truth[order]
    missed = np.concatenate([[0], present.cumsum()]) / max(present.sum(), 1)
    rejected = np.concatenate([[0], (~present).cumsum()]) / max((~present).sum(), 1)
    cut = int((rejected - missed).argmax())
    below = ranked[max(cut - 1, 0)]
    above = ranked[min(cut, len(ranked) - 1)]
    return float((below + above) / 2)


def _held_out_accuracy(scores: Array, truth: NDArray[np.bool_], fold: NDArray[np.int64]) -> float:
    """Balanced accuracy where each fold is classified by the threshold of the others."""
    predicted = np.zeros(len(scores), dtype=bool)
    for number in range(_FOLDS):
        out = fold == number
        predicted[out] = scores[out] >= best_threshold(scores[~out], truth[~out])
    return float((predicted[truth].mean() + (~predicted[~truth]).mean()) / 2)
