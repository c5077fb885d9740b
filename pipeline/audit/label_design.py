"""Which images people label, in which order, with which probability; their answers as a table.

A cue is labelled in groups: a class, or elsewhere (all labelled images, which serves every class:
of those drawn, the ones outside a class stand for the rest of the data). A group is cut into strata
by the predictor's score within classes, and each stratum is shuffled by a hash of the image ids.
The strata's shuffled lists are merged into one queue by the rates below, so that every first part
of the queue is a stratified random sample whose inclusion probability in stratum k is n_k / N_k.
Therefore half of the work is a valid sample, more work later extends it, and several people can
each begin at the front. The highest scores are looked at three times as often as the lowest, which
is close to the optimal allocation (Neyman 1934) for a rare cue and costs little where the score
tells nothing; every image keeps a positive probability.

Images that somebody picked carry no probability. They may train a predictor, and never enter an
estimate.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from hashlib import blake2b

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.audit.inference import Array
from pipeline.errors import UsageError

COLUMNS = ("image_id", "cue", "group", "stratum", "probability", "answer", "who", "when")
ELSEWHERE = "(elsewhere)"
"""Group of images of any class."""
PICKED = "(picked)"
"""Group of images that a person chose: no probability, no part in any estimate."""
RATES = (3.0, 2.0, 1.0)
"""Relative sampling rates of the strata, highest scores first."""
PARTS = (0.1, 0.3)
"""Share of a group's images above each cut between strata."""


class Answer(StrEnum):
    """What a person says of an image."""

    PRESENT = "present"
    ABSENT = "absent"
    CANNOT_TELL = "cannot tell"


@dataclass(frozen=True)
class ScoreStrata:
    """How a group is cut into strata; stored, so that later draws continue the same design.

    Attributes:
        cuts: (S - 1,) scores between strata, descending; a score on a cut is in the upper stratum.
        sizes: (S,) images of the group in each.
    """

    cuts: tuple[float, ...]
    sizes: tuple[int, ...]

    @classmethod
    def of(cls, scores: Array) -> "ScoreStrata":
        """Cut a group's scores (n,); strata that would hold no image are empty."""
        ranked = np.sort(scores)[::-1]
        places = [max(int(np.ceil(part * len(ranked))) - 1, 0) for part in PARTS]
        cuts = tuple(float(ranked[place]) for place in places) if len(ranked) else ()
        empty = cls(cuts, (0,) * (len(cuts) + 1))
        sizes = np.bincount(empty.stratum(scores), minlength=len(cuts) + 1)
        return cls(cuts, tuple(map(int, sizes)))

    def stratum(self, scores: Array) -> NDArray[np.int64]:
        """(n,) stratum of each score, 0 the highest."""
        result: NDArray[np.int64] = (scores[:, None] < np.array(self.cuts)).sum(axis=1)
        return result


@dataclass(frozen=True)
class Queue:
    """Images in the order in which they are labelled.

    Attributes:
        rows: (n,) index of each image in the group.
        stratum: (n,).
        probability: (n,) of being in a sample of this length.
        fold: (n,) of cross-fitting; stays when the queue grows.
    """

    rows: NDArray[np.int64]
    stratum: NDArray[np.int64]
    probability: Array
    fold: NDArray[np.int64]


def shuffle_keys(image_ids: Sequence[str], seed: int) -> NDArray[np.uint64]:
    """(n,) pseudo-random number of each image, by which a group is put into random order."""
    key = seed.to_bytes(8, "little")
    digests = b"".join(
        blake2b(str(name).encode(), digest_size=8, key=key).digest() for name in image_ids
    )
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64)


def draw(
    shuffled: NDArray[np.int64], scores: Array, strata: ScoreStrata, labels: int, folds: int
) -> Queue:
    """The first ``labels`` images of a group's queue, fewer where the group is smaller.

    Args:
        shuffled: (n,) all images of the group in random order.
        scores: (n,) of the cue, each class's median taken out: see `Centring`.
        strata: the strata of this group, as `ScoreStrata.of` or as stored.
        labels: length of the queue; a longer one continues a shorter one.
        folds: number of folds of cross-fitting.
    """
    stratum = strata.stratum(scores)[shuffled]
    members = [shuffled[stratum == code][:labels] for code in range(len(strata.sizes))]
    counts = [len(rows) for rows in members]
    row = np.concatenate(members)
    code = np.repeat(np.arange(len(counts)), counts)
    rank = np.concatenate([np.arange(count) for count in counts])
    turn = (rank + 0.5) / (np.array(RATES)[code] * np.array(strata.sizes)[code])
    first = np.lexsort((code, turn))[:labels]
    drawn = np.bincount(code[first], minlength=len(strata.sizes))
    chance = drawn / np.maximum(strata.sizes, 1)
    return Queue(row[first], code[first], chance[code[first]], rank[first] % folds)


@dataclass(frozen=True)
class Centring:
    """How scores become scores within classes.

    The object of a class raises or lowers every score of the class, which says nothing of the cue.

    Attributes:
        medians: (K,) median score of each class; 0 for a class without images.
        width: 1.4826 times the median absolute deviation from them; 1 where that is 0.
    """

    medians: Array
    width: float

    @classmethod
    def of(cls, scores: Array, codes: NDArray[np.int64]) -> "Centring":
        """Fit to scores (n,) of images of the classes ``codes`` (n,)."""
        medians = np.zeros(int(codes.max()) + 1 if len(codes) else 0)
        order = np.argsort(codes, kind="stable")
        present, starts = np.unique(codes[order], return_index=True)
        for code, rows in zip(present, np.split(order, starts[1:]), strict=len(codes) > 0):
            medians[code] = np.median(scores[rows])
        width = 1.4826 * float(np.median(np.abs(scores - medians[codes]))) if len(codes) else 0.0
        return cls(medians, width if width > 0 else 1.0)

    def centre(self, scores: Array, codes: NDArray[np.int64]) -> Array:
        """(n,) scores minus their class's median, in units of the width."""
        result: Array = (scores - self.medians[codes]) / self.width
        return result


def elsewhere_labels(labels: int, largest_class: float) -> int:
    """Labels of the group elsewhere of which ``labels`` lie outside a class with that share."""
    return int(np.ceil(labels / max(1 - largest_class, 0.1)))


def merge_labels(frames: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """One table of several people's; a person's later answer replaces an earlier one.

    Raises:
        UsageError: a column is missing or an answer is none of the three.
    """
    tables = []
    for frame in frames:
        missing = [name for name in COLUMNS if name not in frame.columns]
        if missing:
            raise UsageError(
                f"labels: no column {missing[0]!r}; expected {', '.join(COLUMNS)}, found "
                f"{', '.join(map(str, frame.columns)) or 'none'}"
            )
        table = frame[list(COLUMNS)].copy()
        table["answer"] = table["answer"].fillna("").astype(str).str.strip().str.lower()
        strange = sorted(set(table["answer"]) - {*Answer, ""})
        if strange:
            raise UsageError(
                f"labels: answer {strange[0]!r}; expected {', '.join(Answer)}, or nothing where an "
                "image was not looked at"
            )
        table["probability"] = pd.to_numeric(table["probability"], errors="coerce")
        tables.append(table[table["answer"] != ""])
    merged = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=COLUMNS)
    for name in ("image_id", "cue", "group", "who", "when"):
        merged[name] = merged[name].fillna("").astype(str)
    merged = merged.sort_values("when", kind="stable")
    return merged.drop_duplicates(["image_id", "cue", "group", "who"], keep="last").sort_index()


def answers_by_image(labels: pd.DataFrame) -> pd.DataFrame:
    """A row an image, cue and group: ``present`` is the share of people who say so.

    Where people disagree the mean enters the estimate, which then is of what people say on average.
    Images that nobody can tell are left out; ``people`` counts the answers.
    """
    telling = labels[labels["answer"] != Answer.CANNOT_TELL]
    values = telling.assign(present=(telling["answer"] == Answer.PRESENT).astype(float))
    grouped = values.groupby(["cue", "group", "image_id"], sort=False)
    return grouped.agg(present=("present", "mean"), people=("present", "size")).reset_index()


def agreement(labels: pd.DataFrame) -> pd.DataFrame:
    """How well people agree on the images that two of them labelled.

    Returns:
        A row a cue and pair of people: ``images`` that both could tell, ``agree`` (share of the
        same answer) and ``kappa`` (Cohen 1960; NaN where all answers are the same).
    """
    from sklearn.metrics import cohen_kappa_score

    rows = []
    telling = labels[labels["answer"] != Answer.CANNOT_TELL]
    for cue, answers in telling.groupby("cue", sort=True):
        each = answers.drop_duplicates(["image_id", "who"], keep="last")
        table = each.pivot(index="image_id", columns="who", values="answer")
        people = sorted(table.columns)
        for place, one in enumerate(people):
            for other in people[place + 1 :]:
                both = table[[one, other]].dropna()
                if both.empty:
                    continue
                same = len(pd.unique(both.to_numpy().ravel())) == 1
                kappa = float("nan") if same else cohen_kappa_score(both[one], both[other])
                agree = float((both[one] == both[other]).mean())
                rows.append([cue, one, other, len(both), agree, float(kappa)])
    return pd.DataFrame(rows, columns=["cue", "who", "other", "images", "agree", "kappa"])
