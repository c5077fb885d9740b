"""From scores to findings, in order: population, presence, echoes, association, flags."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from pipeline.audit import aggregate, cooccurrence, decoys, presence, ranking, strata
from pipeline.audit.aggregate import Population, Readable
from pipeline.audit.association import Association, associate
from pipeline.audit.cooccurrence import Cooccurrence
from pipeline.audit.decoys import DecoyCheck
from pipeline.audit.presence import Presence
from pipeline.config.audit_settings import AuditConfig


@dataclass(frozen=True)
class Findings:
    """What the scores of a run say.

    Attributes:
        known: classes and counts.
        presence: of every cue.
        together: which cues come together.
        association: every cue against every class.
        frame: a row a pair, see `ranking`.
        decoys: what became of the decoys.
    """

    known: Population
    presence: Presence
    together: Cooccurrence
    association: Association
    frame: pd.DataFrame
    decoys: DecoyCheck


def find(
    results: Readable, cues: Sequence[str], fakes: Sequence[str], settings: AuditConfig
) -> Findings:
    """Run all of claim A.

    Args:
        cues: queries that are cues.
        fakes: those that are decoys.
    """
    known = aggregate.population(results, settings.max_classes)
    histograms = aggregate.histograms(
        results,
        known,
        [*cues, *fakes],
        settings.bins,
        settings.thresholds,
        frozenset(settings.discovered),
    )
    gates = settings.gates
    found = presence.measure(histograms, gates, settings.thresholds)
    together = cooccurrence.count_together(results, known, found)
    echoes = cooccurrence.echoes(together, found, gates)
    if echoes:
        found = presence.without(found, echoes)
    association = associate(found, gates, settings.bootstrap, settings.seed)
    frame = ranking.build(known, found, association, fakes, gates)
    if settings.stratum is not None:
        counted = strata.count_strata(results, known, found, settings.stratum)
        frame = _stratified(frame, counted, known, settings)
    return Findings(known, found, together, association, frame, _check(frame))


def _stratified(
    frame: pd.DataFrame, counted: strata.Strata, known: Population, settings: AuditConfig
) -> pd.DataFrame:
    """Columns ``within_<column>__*``; what does not hold within the strata is no finding."""
    prefix, gate = f"within_{counted.column}", settings.gates.odds_ratio
    flagged = frame.index[frame["association__flag"].to_numpy(bool)]
    pairs = [(str(frame.at[i, "cue"]), known.index[str(frame.at[i, "class"])]) for i in flagged]
    pooled = strata.mantel_haenszel(counted, pairs).set_index(flagged)
    frame = frame.join(pooled.add_prefix(f"{prefix}__"))
    reasons = frame["association__reason"].to_numpy(object).copy()
    lows = pooled["low"].to_numpy(float)
    for place, low in zip(flagged, lows, strict=True):
        if np.isnan(low):
            reasons[place] = f"no value of {counted.column} has both the class and others"
        elif low <= gate:
            reasons[place] = (
                f"within {counted.column} the odds ratio may be as low as {low:.2g}, "
                f"{gate:g} needed"
            )
    return ranking.with_reasons(frame, reasons)


def _check(frame: pd.DataFrame) -> DecoyCheck:
    measured = frame["presence"].isin(["measured", "by threshold"]).to_numpy(bool)
    return decoys.check(
        frame["association__flag"].to_numpy(bool),
        frame["decoy"].to_numpy(bool),
        frame["cue"].to_numpy(object),
        measured,
    )
