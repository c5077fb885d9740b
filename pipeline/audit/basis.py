"""What an association rests on, and how people's labels replace what two states say.

Two states of a score say that the images are of two kinds, not that the kinds are with and without
the cue. So an association is verified only if somebody looked (labels), or if presence is a
property of the file itself (exact).
"""

from collections.abc import Sequence
from dataclasses import replace
from enum import StrEnum

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.audit.association import Association
from pipeline.audit.inference import adjusted
from pipeline.audit.presence import CueStatus, Presence
from pipeline.audit.scores import Population
from pipeline.config.audit_settings import Gates


class Basis(StrEnum):
    """What says which images have the cue."""

    LABELS = "labels"
    """People who looked at a random sample of the images."""
    TWO_STATES = "two states"
    """Two states of the cue's score within classes; nobody has looked."""
    THRESHOLD = "threshold"
    """A threshold that the user set or that was learned from labelled examples."""
    EXACT = "exact"
    """A measured property of the image file."""


VERIFIED = (Basis.LABELS, Basis.EXACT)
"""Bases of verified associations."""
_OF_STATUS = {CueStatus.MEASURED: Basis.TWO_STATES, CueStatus.THRESHOLD: Basis.THRESHOLD}
_LABEL_COLUMNS = (
    "difference",
    "difference_low",
    "difference_high",
    "labels",
    "labels_elsewhere",
)


def decided_by_labels(
    association: Association,
    labelled: pd.DataFrame,
    cues: Sequence[str],
    population: Population,
    gates: Gates,
) -> pd.DataFrame:
    """The labelled pairs whose labels are enough for a test, or that nothing else can test.

    Of any other pair, half-finished labels must not take away what the scores say.

    Args:
        labelled: one row per labelled pair, see `LabelEstimates`.
        cues: names of the C cues.
        gates: labels that a test needs in the class and elsewhere.
    """
    enough = labelled[["labels", "labels_elsewhere"]].min(axis=1) >= gates.labels
    by_scores = [
        bool(association.tested[list(cues).index(cue), population.index[cls]])
        for cls, cue in zip(labelled["class"], labelled["cue"], strict=True)
    ]
    decided: pd.DataFrame = labelled[enough.to_numpy(bool) | ~np.array(by_scores, bool)]
    return decided


def with_labels(
    association: Association,
    labelled: pd.DataFrame,
    cues: Sequence[str],
    population: Population,
    gates: Gates,
) -> Association:
    """The association with some pairs tested by their labels, and q over all tested pairs.

    Args:
        labelled: these pairs, see `decided_by_labels`.
        cues: names of the C cues.
        gates: labels that a test needs in the class and elsewhere.
    """
    names = ("with_cue", "elsewhere_with", "effect", "low", "high", "p", "tested", "aligned")
    arrays = {name: getattr(association, name).copy() for name in names}
    for row in labelled.to_dict(orient="records"):
        pair = list(cues).index(str(row["cue"])), population.index[str(row["class"])]
        enough = min(row["labels"], row["labels_elsewhere"]) >= gates.labels
        arrays["with_cue"][pair] = row["share"] * association.images[pair]
        arrays["elsewhere_with"][pair] = row["share_elsewhere"] * association.elsewhere[pair]
        for name in ("effect", "low", "high"):
            arrays[name][pair] = row[name]
        arrays["p"][pair] = row["p"] if enough else np.nan
        arrays["tested"][pair] = enough
        arrays["aligned"][pair] = False
    return replace(association, **arrays, q=adjusted(arrays["p"]))


def is_labelled(
    labelled: pd.DataFrame, cues: Sequence[str], population: Population
) -> NDArray[np.bool_]:
    """(C, K) pairs that a table of labelled pairs has."""
    mask = np.zeros((len(cues), len(population.classes)), dtype=bool)
    for cls, cue in zip(labelled["class"], labelled["cue"], strict=True):
        mask[list(cues).index(cue), population.index[cls]] = True
    return mask


def with_answers(frame: pd.DataFrame, labelled: pd.DataFrame) -> pd.DataFrame:
    """The table of all pairs with the numbers of answers of all labelled pairs."""
    names = ["labels", "labels_elsewhere"]
    counts = frame[["class", "cue"]].merge(labelled[["class", "cue", *names]], how="left")
    return frame.assign(**{name: counts[name].fillna(0).astype(int).to_numpy() for name in names})


def with_basis(frame: pd.DataFrame, presence: Presence, labelled: pd.DataFrame) -> pd.DataFrame:
    """The table of all pairs with what each association rests on, and what labels add.

    Returns:
        Further columns: ``association__basis`` (empty where presence is not measured),
        ``association__verified``, ``association__difference`` of the shares with its 95 % interval
        ``__difference_low`` and ``__difference_high`` (by labels only), and the numbers of answers
        ``labels`` and ``labels_elsewhere``.
    """
    of_cue = {
        cue: str(_OF_STATUS.get(status, ""))
        for cue, status in zip(presence.histograms.cues, presence.status, strict=True)
    }
    keys = ["class", "cue"]
    frame = frame.merge(labelled[[*keys, *_LABEL_COLUMNS]], on=keys, how="left")
    by_labels = frame["labels"].notna()
    known = frame["association__effect"].notna()
    basis = frame["cue"].map(of_cue).where(known, "")
    frame["association__basis"] = basis.mask(by_labels, str(Basis.LABELS)).astype(object)
    frame["association__verified"] = frame["association__basis"].isin(VERIFIED)
    for name in ("labels", "labels_elsewhere"):
        frame[name] = frame[name].astype(float).fillna(0).astype(int)
    difference = frame["share"] - frame["share_elsewhere"]
    frame["difference"] = frame["difference"].astype(float).fillna(difference)
    return frame.rename(columns={n: f"association__{n}" for n in _LABEL_COLUMNS[:3]})
