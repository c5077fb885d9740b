"""Which pairs are tested for reliance, and on which images; decided from what is stored."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.dataset as ds
from numpy.typing import NDArray

from pipeline.audit.findings import Findings
from pipeline.audit.names import Names
from pipeline.audit.ranking import rank
from pipeline.audit.split import folds
from pipeline.config.audit_settings import RelianceConfig
from pipeline.reliance.task import PLACE, PairTask, place_of
from pipeline.results.results import Results
from pipeline.schema import Status, score_column

TOGETHER = 0.3
"""Correlation within the class from which another flagged cue goes together with one."""
_ORDER = 1 << 40


@dataclass(frozen=True)
class Listed:
    """A pair to test.

    Attributes:
        cls, cue: names.
        rival: the class that the probe tells from it least.
    """

    cls: str
    cue: str
    rival: str


def shortlist(found: Findings, rivals: NDArray[np.int64], config: RelianceConfig) -> list[Listed]:
    """The strongest flagged associations of classes that have a rival."""
    ranked = rank(found.frame, "association")
    ranked = ranked[ranked["association__flag"] & ~ranked["decoy"]]
    listed = []
    for cls, cue in zip(ranked["class"], ranked["cue"], strict=True):
        rival = int(rivals[found.population.index[cls]])
        if rival >= 0:
            listed.append(Listed(cls, cue, found.population.classes[rival]))
    return listed[: config.pairs]


def tasks(
    results: Results, found: Findings, listed: Sequence[Listed], config: RelianceConfig
) -> Iterator[PairTask]:
    """Images and targets of each pair: the first ones in an order that only ids decide."""
    lookup = Names(results, found)
    flagged = {(pair.cls, pair.cue) for pair in listed}
    for cls in dict.fromkeys(pair.cls for pair in listed):
        rows = _rows(results, found, cls)
        for pair in (pair for pair in listed if pair.cls == cls):
            having = rows[rows[pair.cue] > 0.5].head(config.images)
            others = _rows(results, found, pair.rival)
            without = others[others[pair.cue] <= 0.5].head(config.images)
            yield PairTask(
                cls=cls,
                cue=pair.cue,
                own=lookup.class_queries.get(cls),
                images=tuple(_places(having, found, pair.cue)),
                targets=tuple(_places(without, found, pair.cue)),
                partners=_partners(found, pair, flagged),
            )


def _partners(found: Findings, pair: Listed, flagged: set[tuple[str, str]]) -> tuple[str, ...]:
    """The flagged cue that goes with this one in the class most closely, if any does."""
    names = found.presence.histograms.cues
    code = found.population.index[pair.cls]
    beside = found.together.beside(names.index(pair.cue), code, names)
    for cue, phi in zip(beside["cue"], beside["phi_in_class"], strict=True):
        if phi > TOGETHER and (pair.cls, cue) in flagged:
            return (str(cue),)
    return ()


def _rows(results: Results, found: Findings, cls: str) -> pd.DataFrame:
    """A class's explained images in their order: where they lie, and presence of each cue."""
    presence = found.presence
    names = [presence.histograms.cues[place] for place in np.flatnonzero(presence.measured)]
    frame: pd.DataFrame = results.dataset.to_table(
        columns=[*PLACE, *(score_column(name) for name in names)],
        filter=(ds.field("label") == cls) & (ds.field("status") == str(Status.OK)),
    ).to_pandas()
    codes = np.full(len(frame), found.population.index[cls])
    for name in names:
        place = presence.histograms.cues.index(name)
        frame[name] = presence.of(place, codes, frame.pop(score_column(name)).to_numpy(float))
    order = np.argsort(folds(frame["image_id"].tolist(), _ORDER), kind="stable")
    return frame.iloc[order].reset_index(drop=True)


def _places(frame: pd.DataFrame, found: Findings, cue: str) -> Iterator[Mapping[str, Any]]:
    names = [name for name in found.presence.histograms.cues if name in frame and name != cue]
    plain = frame[list(PLACE)].astype(object).where(frame[list(PLACE)].notna(), None)
    there = frame[names].to_numpy(float) > 0.5 if names else np.zeros((len(frame), 0), bool)
    for row, having in zip(plain.to_dict(orient="records"), there, strict=True):
        values = {str(name): _number(value) for name, value in row.items()}
        yield place_of(values, [name for name, has in zip(names, having, strict=True) if has])


def _number(value: Any) -> Any:
    """Whole numbers as such: a column with nulls holds floats."""
    return int(value) if isinstance(value, float | np.floating | np.integer) else value
