"""Which pairs are labelled, and which images are drawn for them."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from pipeline.audit.label_design import ELSEWHERE, ScoreStrata, elsewhere_labels
from pipeline.audit.label_groups import Design, LabelImages, group_code
from pipeline.audit.suspicion_scan import worth_a_look
from pipeline.auditor import Audit
from pipeline.errors import UsageError, unknown_name

MOST_PAIRS = 5
"""Pairs that are labelled where none is named: what a person can look at in some ten minutes."""
CLASSES_OF_CUE = 3
"""Classes that are labelled for a cue that is named without a class."""
Pair = tuple[str, str]


@dataclass(frozen=True)
class Membership:
    """One reason why an image was drawn.

    Attributes:
        group: class, or `ELSEWHERE`.
        stratum: number of the stratum within the group.
        probability: probability that the image was drawn.
    """

    group: str
    stratum: int
    probability: float


@dataclass(frozen=True)
class LabelTask:
    """An image that a person looks at for a cue.

    Attributes:
        image_id: id of the image.
        cue: name of the cue.
        memberships: groups that it was drawn in.
    """

    image_id: str
    cue: str
    memberships: tuple[Membership, ...]

    @property
    def rows(self) -> list[list[str]]:
        """Image, cue, group, stratum and probability as text, for each group."""
        return [
            [self.image_id, self.cue, m.group, str(m.stratum), f"{m.probability:.9g}"]
            for m in self.memberships
        ]


def choose_pairs(audit: Audit, pairs: Sequence[Pair], cues: Sequence[str]) -> list[Pair]:
    """The pairs to label: those that are named, or the most striking unverified ones.

    Args:
        pairs: (class, cue).
        cues: cues whose most striking classes are labelled.

    Raises:
        UsageError: there is no such class or cue, or nothing to label.
    """
    for cls, cue in pairs:
        _require(audit, cue, cls)
    for cue in cues:
        _require(audit, cue)
    if not audit.classes or len(audit.findings.population.classes) < 2:
        raise UsageError("label: labels say how a class differs from others, and there are no two")
    chosen = list(dict.fromkeys(pairs))
    if pairs and not cues:
        return chosen
    table = audit.rank(decoys=True)
    table = table[table["cue"].isin([*audit.cues, *audit.decoys])]  # exact cues need no labels
    if not cues:
        open_flags = table[table["association__flag"] & ~table["association__verified"]]
        candidates = [open_flags[~open_flags["decoy"]], worth_a_look(table), _striking(table)]
        return _pairs(pd.concat(candidates))[:MOST_PAIRS]
    for cue in cues:
        chosen += _pairs(_striking(table[table["cue"] == cue]))[:CLASSES_OF_CUE]
    return list(dict.fromkeys(chosen))


def _striking(table: pd.DataFrame) -> pd.DataFrame:
    """Flagged pairs first, then by suspicion, or by the score where there are none."""
    by = "suspicion__effect" if "suspicion__effect" in table else "score_auc"
    real = table[~table["decoy"]] if not table["decoy"].all() else table
    return real.sort_values(["association__flag", by], ascending=False)


def _pairs(table: pd.DataFrame) -> list[Pair]:
    rows = table[["class", "cue"]].itertuples(index=False, name=None)
    return list(dict.fromkeys((str(cls), str(cue)) for cls, cue in rows))


def _require(audit: Audit, cue: str, cls: str | None = None) -> None:
    cues = (*audit.cues, *audit.decoys)
    if cue not in cues:
        raise UsageError(f"label: {unknown_name('cue', cue, cues, 'this run')}")
    if cls is not None and cls not in audit.classes:
        raise UsageError(f"label: {unknown_name('class', cls, audit.classes, 'this audit')}")


def draw_tasks(
    audit: Audit, pairs: Sequence[Pair], labels: int, design: Design
) -> tuple[list[LabelTask], Design]:
    """Draw the images of each pair's class, and of each cue elsewhere.

    Args:
        pairs: (class, cue).
        labels: images of each class, and of elsewhere outside of each.
        design: what was drawn before.

    Returns:
        The tasks, cue by cue, in an order in which every beginning holds its part of every group;
        and the design after this draw.
    """
    population = audit.findings.population
    classes: dict[str, list[str]] = defaultdict(list)
    for cls, cue in pairs:
        classes[cue].append(cls)
    halved = frozenset(audit.settings.discovered)
    images = LabelImages.read(audit.results, population, list(classes), design.seed, halved)
    tasks: list[LabelTask] = []
    for cue, names in classes.items():
        everywhere = len(images.rows(cue, None))
        largest = max(len(images.rows(cue, group_code(population, name))) for name in names)
        counts = dict.fromkeys(names, labels)
        counts[ELSEWHERE] = elsewhere_labels(labels, largest / max(everywhere, 1))
        for group, count in counts.items():
            rows = images.rows(cue, group_code(population, group))
            strata = ScoreStrata.of(images.scores[cue][rows])
            design = design.drawing(cue, group, strata, min(count, len(rows)))
        tasks += _tasks_of_cue(audit, images, design, cue, counts)
    return tasks, design


def _tasks_of_cue(
    audit: Audit, images: LabelImages, design: Design, cue: str, counts: Mapping[str, int]
) -> list[LabelTask]:
    memberships: dict[int, list[Membership]] = defaultdict(list)
    turns: dict[int, float] = {}
    for group, count in counts.items():
        code = group_code(audit.findings.population, group)
        strata = design.groups[cue, group].strata
        queue = images.queue(cue, code, strata, count)
        for place, row in enumerate(queue.rows.tolist()):
            chance = float(queue.probability[place])
            memberships[row].append(Membership(group, int(queue.stratum[place]), chance))
            turn = (place + 0.5) / len(queue.rows)
            turns[row] = min(turn, turns.get(row, turn))
    order = sorted(turns, key=lambda row: (turns[row], int(images.keys[row])))
    ids = images.ids.take(np.array(order, np.int64)).to_pylist()
    return [
        LabelTask(str(image_id), cue, tuple(memberships[row]))
        for row, image_id in zip(order, ids, strict=True)
    ]
