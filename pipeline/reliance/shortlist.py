"""Chooses from stored results the pairs to test for reliance and their images; the costs."""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import compress
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from legrad.queries.query import Query, Role
from pipeline.audit.class_members import label_pairs, rows_with_label
from pipeline.audit.findings import Findings
from pipeline.audit.names import Names
from pipeline.audit.ranking import rank
from pipeline.audit.split import folds
from pipeline.config.audit_settings import RelianceConfig
from pipeline.errors import counted
from pipeline.results.results import Results
from pipeline.schema import FETCH_COLUMNS, score_column

IMAGE_COLUMNS = ("image_id", *FETCH_COLUMNS, "width", "height")
"""Columns by which an image is fetched again."""
TOGETHER = 0.3
"""Correlation of presence in the class from which another flagged cue counts as a partner."""
LABELS = "labels"
"""Key under which a task's image has all its labels, where images have sets of labels."""
_HASH_VALUES = 1 << 40


@dataclass(frozen=True)
class Listed:
    """A pair to test.

    Attributes:
        cls, cue: names.
        rival: the class that is hardest for the probe to tell from this one.
    """

    cls: str
    cue: str
    rival: str


@dataclass(frozen=True)
class PairTask:
    """The properties of a pair that decide its edits.

    The names of the fields are part of the digest that names the file of edits.

    Attributes:
        cls: label of the class.
        cue: name of the cue's query.
        own: name of the class's query; None if it has none.
        images: images of the class with the cue: `IMAGE_COLUMNS`; ``others``, the names of the
            other cues that the image has; and `LABELS`.
        targets: the same for images of the rival class without the cue, and not of this class.
        partners: cues that co-occur with this one in the class.
    """

    cls: str
    cue: str
    own: str | None
    images: tuple[Mapping[str, Any], ...]
    targets: tuple[Mapping[str, Any], ...]
    partners: tuple[str, ...]

    def to_json(self) -> str:
        """As JSON, to send it to a worker."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "PairTask":
        """Inverse of `to_json`."""
        values = json.loads(text)
        for name in ("images", "targets", "partners"):
            values[name] = tuple(values[name])
        return cls(**values)

    def digest(self, about: Mapping[str, Any]) -> str:
        """Digest (24 hexadecimal digits) of the task and of ``about``, which names its file."""
        text = json.dumps(dict(about), sort_keys=True) + self.to_json()
        return hashlib.sha256(text.encode()).hexdigest()[:24]

    @property
    def other_labels(self) -> dict[str, frozenset[str]]:
        """image_id -> labels other than the class, for the images that have some."""
        labels = {row["image_id"]: frozenset(row.get(LABELS, ())) for row in self.images}
        return {image: of - {self.cls} for image, of in labels.items() if of - {self.cls}}

    @property
    def edits(self) -> int:
        """Largest number of images to embed."""
        joint = 4 if self.partners else 0
        return len(self.images) * (9 + joint) + len(self.targets) * 3


NO_PAIR = PairTask("", "", None, (), (), ())
"""Its digest names the files that belong to no pair."""


def shortlist(
    findings: Findings, rivals: NDArray[np.int64], config: RelianceConfig
) -> list[Listed]:
    """The strongest flagged associations of classes that have a rival.

    A cue whose presence in single images is not known has no images to edit and is left out.

    Args:
        rivals: (K,) code of each class's rival, -1 for none.
    """
    ranked = rank(findings.frame, "association")
    presence = findings.presence
    measured = [presence.histograms.cues[cue] for cue in np.flatnonzero(presence.measured)]
    ranked = ranked[ranked["association__flag"] & ~ranked["decoy"] & ranked["cue"].isin(measured)]
    listed = []
    for cls, cue in zip(ranked["class"], ranked["cue"], strict=True):
        rival = int(rivals[findings.population.index[cls]])
        if rival >= 0:
            listed.append(Listed(cls, cue, findings.population.classes[rival]))
    return listed[: config.pairs]


def tasks(
    results: Results, findings: Findings, listed: Sequence[Listed], config: RelianceConfig
) -> Iterator[PairTask]:
    """The task of each pair, class by class. Reads the rows of every class and rival once.

    The images are those that qualify and whose ids have the lowest hashes. Where only people's
    answers tell of a cue, images with it are those in which people see it.
    """
    names = Names(results, findings)
    flagged = {(pair.cls, pair.cue) for pair in listed}
    wanted: dict[str, dict[tuple[str, str | None], None]] = defaultdict(dict)
    for pair in listed:
        wanted[pair.cls][pair.cue, None] = None
        wanted[pair.rival][pair.cue, pair.cls] = None
    images: dict[tuple[str, str, str | None], tuple[Mapping[str, Any], ...]] = {}
    for label, choices in wanted.items():
        rows = _rows(results, findings, label)
        for cue, target_of in choices:
            chosen = rows[(rows[cue] > 0.5) == (target_of is None)]
            if cue in findings.answered:
                seen = findings.answered[cue].present.reindex(chosen["image_id"])
                kept = seen.eq(True) if target_of is None else ~seen.eq(True)
                chosen = chosen[kept.to_numpy()]
            if LABELS in rows and target_of is not None:
                chosen = chosen[[target_of not in labels for labels in chosen[LABELS]]]
            chosen = chosen.head(config.images)
            images[label, cue, target_of] = tuple(_images(chosen, findings, cue))
    for cls in dict.fromkeys(pair.cls for pair in listed):
        for pair in (pair for pair in listed if pair.cls == cls):
            yield PairTask(
                cls=cls,
                cue=pair.cue,
                own=names.class_queries.get(cls),
                images=images[cls, pair.cue, None],
                targets=images[pair.rival, pair.cue, cls],
                partners=_partners(findings, pair, flagged),
            )


def _partners(findings: Findings, pair: Listed, flagged: set[tuple[str, str]]) -> tuple[str, ...]:
    """The flagged cue that co-occurs most with this one in the class, if there is any."""
    names = findings.presence.histograms.cues
    code = findings.population.index[pair.cls]
    beside = findings.together.beside(names.index(pair.cue), code, names)
    for cue, phi in zip(beside["cue"], beside["phi_in_class"], strict=True):
        if phi > TOGETHER and (pair.cls, cue) in flagged:
            return (str(cue),)
    return ()


def _rows(results: Results, findings: Findings, cls: str) -> pd.DataFrame:
    """Explained images of a class, ordered by hash: `IMAGE_COLUMNS`, and presence of each cue.

    Where images have sets of labels, the column `LABELS` holds them.
    """
    presence = findings.presence
    cues = [int(cue) for cue in np.flatnonzero(presence.measured)]
    names = [presence.histograms.cues[cue] for cue in cues]
    population = findings.population
    columns = [*IMAGE_COLUMNS, *map(score_column, names)]
    of_sets = ["label", "labels"] if population.has_sets else []
    table = rows_with_label(results, cls, {name: name for name in [*columns, *of_sets]})
    codes = np.full(len(table), population.index[cls])
    frame: pd.DataFrame = table.select(columns).to_pandas()
    if population.has_sets:
        codes = population.members(table)[1]
        rows, labels = label_pairs(table)
        frame[LABELS] = pd.Series(labels.to_pylist(), dtype=object).groupby(rows).agg(list)
    for cue, name in zip(cues, names, strict=True):
        scores = frame.pop(score_column(name)).to_numpy(float)
        frame[name] = presence.of(cue, codes, scores)
    order = np.argsort(folds(frame["image_id"].tolist(), _HASH_VALUES), kind="stable")
    return frame.iloc[order].reset_index(drop=True)


def _images(frame: pd.DataFrame, findings: Findings, cue: str) -> Iterator[dict[str, Any]]:
    """The images of a task, see `PairTask.images`."""
    names = [name for name in findings.presence.histograms.cues if name in frame and name != cue]
    columns = list(IMAGE_COLUMNS)
    plain = frame[columns].astype(object).where(frame[columns].notna(), None)
    present = frame[names].to_numpy(float) > 0.5 if names else np.zeros((len(frame), 0), bool)
    sets = frame[LABELS] if LABELS in frame else [None] * len(frame)
    for row, has, labels in zip(plain.to_dict(orient="records"), present, sets, strict=True):
        values = {str(name): _as_integer(value) for name, value in row.items()}
        image = task_image(values, list(compress(names, has)))
        yield image if labels is None else image | {LABELS: sorted(labels)}


def task_image(row: Mapping[str, Any], others: Sequence[str] = ()) -> dict[str, Any]:
    """The part of a row of the results that a task keeps, with the other cues of the image."""
    return {name: row[name] for name in IMAGE_COLUMNS} | {"others": sorted(others)}


def _as_integer(value: Any) -> Any:
    """Numbers as integers, because a column with nulls comes as floats; others as they are."""
    return int(value) if isinstance(value, float | np.floating | np.integer) else value


def control_queries(results: Results, findings: Findings, listed: Sequence[Listed]) -> list[Query]:
    """Queries ``control_<number>`` that name the class with the cue, for pairs that have texts."""
    by_name = {query.name: query for query in results.queries}
    names, controls = Names(results, findings), []
    for number, pair in enumerate(listed):
        of_class, cue = by_name.get(names.class_queries.get(pair.cls, "")), by_name[pair.cue]
        if of_class is not None and of_class.prompts and cue.prompts:
            text = f"{of_class.prompts[0]} with {cue.prompts[0]}"
            name = f"control_{number}"
            control = Query.model_validate({"name": name, "role": Role.BASELINE, "prompts": [text]})
            controls.append(control.model_copy(update={"templates": of_class.templates}))
    return controls


@dataclass(frozen=True)
class EditCosts:
    """What testing the pairs costs.

    Attributes:
        pairs: number of pairs.
        done: number of pairs whose edits are stored already.
        images: number of images to fetch again for the other pairs.
        edits: largest number of edited images to embed.
    """

    pairs: int
    done: int
    images: int
    edits: int

    def __str__(self) -> str:
        if not self.pairs:
            return "no pair is flagged for association, so there is nothing to test"
        pairs = counted(self.pairs, "pair")
        if self.done == self.pairs:
            return f"{pairs}, all edited already: only arithmetic is left"
        return (
            f"{pairs}, {self.done} edited already; {counted(self.images, 'image')} to fetch again "
            f"and to explain, at most {counted(self.edits, 'edited image')} to embed (one forward "
            "pass each)"
        )


def costs(missing: Sequence[PairTask], pairs: int) -> EditCosts:
    """Costs of the pairs whose edits are missing, out of all ``pairs``."""
    images = sum(len(task.images) + len(task.targets) for task in missing)
    return EditCosts(pairs, pairs - len(missing), images, sum(task.edits for task in missing))
