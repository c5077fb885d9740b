"""Each answer's place in the design: its image, group, stratum and fold.

Only the beginning of a group's queue up to the first image without any answer is a random sample.
Other labelled images count as picked: they may train the predictor and are in no estimate. An image
that was drawn in two groups keeps one fold, so that no predictor has seen the answers that it is
used for.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.audit.inference import Array
from pipeline.audit.label_design import ELSEWHERE, PICKED, ScoreStrata, answers_by_image
from pipeline.audit.label_groups import LabelImages, Labels, group_code
from pipeline.audit.scores import Population
from pipeline.errors import UsageError

NOT_DRAWN = -1
"""Fold of a picked image."""
_NO_STRATA = ScoreStrata((), (0,))


@dataclass(frozen=True)
class CueAnswers:
    """The m answers on a cue.

    Attributes:
        groups: names, each a class or `ELSEWHERE`, which is always there.
        strata: strata of each group; empty for a group of which nothing was drawn.
        rows: (m,) row number of the image.
        group: (m,) index of the group.
        present: (m,) share of people who say that the cue is present.
        stratum: (m,) stratum within the group.
        fold: (m,) fold; `NOT_DRAWN` for picked images.
        unused: answers behind the first drawn image that has none; they count as picked, since
            whoever skips images may choose them.
    """

    groups: tuple[str, ...]
    strata: tuple[ScoreStrata, ...]
    rows: NDArray[np.int64]
    group: NDArray[np.int64]
    present: Array
    stratum: NDArray[np.int64]
    fold: NDArray[np.int64]
    unused: int

    @property
    def elsewhere(self) -> int:
        """Index of the group elsewhere."""
        return self.groups.index(ELSEWHERE)

    def chosen(self, group: int) -> NDArray[np.bool_]:
        """(m,) answers of a group that may enter an estimate."""
        result: NDArray[np.bool_] = (self.group == group) & (self.fold != NOT_DRAWN)
        return result


def telling_answers(images: LabelImages, labels: Labels) -> pd.DataFrame:
    """Answers by image, cue and group with the row number of the image.

    Raises:
        UsageError: an image is not of this run.
    """
    answers = answers_by_image(labels.answers)
    rows = images.find(answers["image_id"].tolist())
    if (rows < 0).any():
        unknown = answers["image_id"].to_numpy(object)[rows < 0][0]
        raise UsageError(
            f"{', '.join(labels.files)}: {unknown!r} is not an explained image of this run; "
            "expected labels that `legrad label` drew from it"
        )
    return answers.assign(row=rows)


def answers_on_cue(
    population: Population, images: LabelImages, labels: Labels, cue: str, answers: pd.DataFrame
) -> CueAnswers:
    """Find each answer's place in the design.

    Args:
        answers: rows of `telling_answers` on the cue.

    Raises:
        UsageError: a group is no class of the run, or has another size than when it was drawn.
    """
    names = [name for name in dict.fromkeys(answers["group"]) if name != PICKED]
    groups = tuple(dict.fromkeys([*names, ELSEWHERE]))
    drawn = [labels.design.groups.get((cue, name)) for name in groups]
    parts, unused = [], 0
    for number, (name, group) in enumerate(zip(groups, drawn, strict=True)):
        mine = answers[answers["group"] == name].assign(number=number, stratum=0, fold=NOT_DRAWN)
        if group is not None:
            code = group_code(population, name)
            _require_size(name, sum(group.strata.sizes), len(images.rows(cue, code)))
            queue = images.queue(cue, code, group.strata, group.drawn)
            place = np.full(len(images.codes), -1, np.int64)
            place[queue.rows] = np.arange(len(queue.rows))
            position = place[mine["row"].to_numpy(np.int64)]
            first_gap = _first_unanswered(images, labels.answers, place, cue, name)
            usable = (position >= 0) & (position < first_gap)
            mine["stratum"] = np.where(usable, queue.stratum[position], 0)
            mine["fold"] = np.where(usable, queue.fold[position], NOT_DRAWN)
            unused += int((position >= first_gap).sum())
        else:
            group_code(population, name)
        parts.append(mine)
    parts.append(_picked(population, images, groups, answers[answers["group"] == PICKED]))
    frame = pd.concat(parts, ignore_index=True)
    fold = frame.groupby("row")["fold"].transform("max")
    frame = frame[(frame["fold"] != NOT_DRAWN) | (fold == NOT_DRAWN)]
    return CueAnswers(
        groups=groups,
        strata=tuple(_NO_STRATA if group is None else group.strata for group in drawn),
        rows=frame["row"].to_numpy(np.int64),
        group=frame["number"].to_numpy(np.int64),
        present=frame["present"].to_numpy(np.float64),
        stratum=frame["stratum"].to_numpy(np.int64),
        fold=fold[frame.index].to_numpy(np.int64),
        unused=unused,
    )


def _require_size(group: str, drawn: int, images: int) -> None:
    if drawn != images:
        raise UsageError(
            f"labels: {group!r} had {drawn:,} images when they were drawn and has {images:,} now; "
            "the answers no longer fit, draw again with `legrad label`"
        )


def _first_unanswered(
    images: LabelImages, answers: pd.DataFrame, place: NDArray[np.int64], cue: str, group: str
) -> int:
    """Length of the beginning of a group's queue in which every image has an answer of any kind."""
    seen = answers[(answers["cue"] == cue) & (answers["group"] == group)]["image_id"].unique()
    reached = place[images.find(seen.tolist())]
    answered = np.zeros(int(place.max()) + 2, dtype=bool)
    answered[reached[reached >= 0]] = True
    return int(answered.argmin())


def _picked(
    population: Population, images: LabelImages, groups: tuple[str, ...], answers: pd.DataFrame
) -> pd.DataFrame:
    """Answers on picked images, in the group of a labelled class of theirs, or elsewhere."""
    rows = answers["row"].to_numpy(np.int64)
    own = np.full(len(rows), groups.index(ELSEWHERE))
    for number, name in enumerate(groups):
        code = group_code(population, name)
        if code is not None:
            own[images.of_class(code)[rows]] = number
    return answers.assign(number=own, stratum=0, fold=NOT_DRAWN)
