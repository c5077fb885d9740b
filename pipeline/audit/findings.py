"""What the scores of a run say: the steps from counts to flags, and the scores of one pair."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from pipeline.audit import association, basis, cooccurrence, presence, ranking, scores
from pipeline.audit.association import Association
from pipeline.audit.class_members import rows_with_label
from pipeline.audit.class_view import ClassView, view_classes
from pipeline.audit.cooccurrence import Cooccurrence
from pipeline.audit.histograms import count_histograms
from pipeline.audit.inference import Array
from pipeline.audit.label_design import answers_by_image
from pipeline.audit.label_estimates import COLUMNS, LabelEstimates, estimate_from_labels
from pipeline.audit.label_groups import Labels
from pipeline.audit.labelled_examples import Answered, learn_from_answers
from pipeline.audit.presence import Presence
from pipeline.audit.ranking import DecoyCheck
from pipeline.audit.scores import Population, Readable
from pipeline.audit.strata import Strata, count_strata, mantel_haenszel
from pipeline.config.audit_settings import AuditConfig
from pipeline.errors import UsageError
from pipeline.schema import score_column

ORDERS = ("score", "presence", "class_score", "image_id")
_SHOWN_BINS = 64


@dataclass(frozen=True)
class Findings:
    """The association claim of a run and what it was derived from.

    Attributes:
        population: classes and their sizes.
        presence: presence of every cue, by the class that each image is fitted with.
        view: presence of every cue by class.
        together: which cues occur together.
        association: every cue against every class.
        frame: one row per pair, see the module `ranking`.
        decoys: how the decoys fared.
        labelled: what people's labels say; None without labels.
        answered: cues that only people's answers tell of, and whose scores tell their images apart.
    """

    population: Population
    presence: Presence
    view: ClassView
    together: Cooccurrence
    association: Association
    frame: pd.DataFrame
    decoys: DecoyCheck
    labelled: LabelEstimates | None = None
    answered: Mapping[str, Answered] = field(default_factory=dict)

    @property
    def for_edits(self) -> "Findings":
        """These findings, with a threshold that says which images have each answered cue.

        Images are chosen by it, and it says whether an edit removed the cue. The association does
        not depend on it.
        """
        thresholds = {cue: answered.threshold for cue, answered in self.answered.items()}
        return replace(self, presence=presence.with_thresholds(self.presence, thresholds))


def find(
    results: Readable,
    cues: Sequence[str],
    decoys: Sequence[str],
    settings: AuditConfig,
    labels: Labels | None = None,
) -> Findings:
    """Test the association of every class with every cue.

    Args:
        cues: names of the queries that are cues.
        decoys: names of the queries that are decoys.
        labels: people's answers, which decide the pairs that they are about.
    """
    gates = settings.gates
    population = scores.count_population(results, settings.max_classes)
    halved = frozenset(settings.discovered)
    answered = {}
    if labels is not None:
        _require_cues(labels, [*cues, *decoys])
        answered = learn_from_answers(results, answers_by_image(labels.answers), gates)
    thresholds = {cue: known.threshold for cue, known in answered.items()} | settings.thresholds
    histograms = count_histograms(
        results, population, [*cues, *decoys], settings.bins, thresholds, halved
    )
    present = presence.measure(histograms, gates, settings.thresholds)
    together = cooccurrence.count_together(results, population, present)
    echoes = cooccurrence.echoes(together, present, gates)
    if echoes:
        present = presence.without(present, echoes)
    view = view_classes(results, population, present, halved)
    tested = association.associate(view, gates, settings.bootstrap, settings.seed)
    labelled, pairs = None, pd.DataFrame(columns=COLUMNS)
    if labels is not None:
        labelled = estimate_from_labels(results, population, labels, halved)
        about = (histograms.cues, population, gates)
        pairs = basis.decided_by_labels(tested, labelled.frame, *about)
        tested = basis.with_labels(tested, pairs, *about)
    frame = ranking.build(population, view.presence, tested, decoys, gates, pairs)
    if labelled is not None:
        frame = basis.with_answers(frame, labelled.frame)
    names, measured = histograms.cues, present.measured
    if settings.stratum is not None:
        flagged = frame.loc[frame["association__flag"].to_numpy(bool), "cue"].unique()
        cues = [cue for cue in flagged if measured[names.index(cue)]]
        strata = count_strata(results, population, present, settings.stratum, cues, halved)
        frame = _stratified(frame, strata, population, gates.odds_ratio)
    decoy_check = ranking.check_decoys(frame)
    answered = {cue: known for cue, known in answered.items() if not measured[names.index(cue)]}
    return Findings(
        population, present, view, together, tested, frame, decoy_check, labelled, answered
    )


def _require_cues(labels: Labels, cues: Sequence[str]) -> None:
    strange = [cue for cue in labels.answers["cue"].unique() if cue not in cues]
    if strange:
        raise UsageError(
            f"{', '.join(labels.files)}: {strange[0]!r} is no cue of this run, whose cues are "
            f"{', '.join(cues)}"
        )


def _stratified(
    frame: pd.DataFrame, strata: Strata, population: Population, least: float
) -> pd.DataFrame:
    """Add columns ``within_<column>__*``, and remove flags that do not hold within the strata.

    Pairs of a cue that only labels measure keep their flags, and have no values in these columns.

    Args:
        least: what the lower bound of the odds ratio within the strata must exceed.
    """
    is_counted = frame["association__flag"].to_numpy(bool) & frame["cue"].isin(strata.cues)
    flagged = frame.index[is_counted]
    pairs = [
        (str(frame.at[i, "cue"]), population.index[str(frame.at[i, "class"])]) for i in flagged
    ]
    pooled = mantel_haenszel(strata, pairs).set_index(flagged)
    frame = frame.join(pooled.add_prefix(f"within_{strata.column}__"))
    reasons = frame["association__reason"].to_numpy(object).copy()
    for row, low in zip(flagged, pooled["low"].to_numpy(float), strict=True):
        if np.isnan(low):
            reasons[row] = f"no value of {strata.column} has both the class and others"
        elif low <= least:
            reasons[row] = (
                f"within {strata.column} the odds ratio may be as low as {low:.2g}, "
                f"{least:g} needed"
            )
    return ranking.with_reasons(frame, reasons)


@dataclass(frozen=True)
class PairScores:
    """The scores of one cue in one class, compared with the other classes.

    Attributes:
        densities: columns score, in_class, elsewhere (densities over the score).
        threshold: score from which presence is likelier than absence in this class; NaN where
            presence is not measured.
        beside: the other cues, see `Cooccurrence.beside`.
    """

    densities: pd.DataFrame
    threshold: float
    beside: pd.DataFrame


@dataclass(frozen=True)
class Pair(PairScores):
    """Everything about a class and a cue.

    Attributes:
        finding: its row of the ranking with all claims.
        verdict: what people decided about it: verdict, note, who, when; empty if nobody did.
    """

    finding: pd.Series
    verdict: dict[str, str]


def pair_scores(findings: Findings, cue: int, code: int) -> PairScores:
    """Scores of a cue, by index, in a class, by code."""
    present = findings.view.presence
    measured = bool(present.measured[cue])
    return PairScores(
        densities=_compared(findings, cue, code),
        threshold=float(present.threshold[cue, code]) if measured else float("nan"),
        beside=findings.together.beside(cue, code, present.histograms.cues),
    )


def densities(findings: Findings, cue: int) -> pd.DataFrame:
    """Score densities of a cue in every class.

    Returns:
        One row per (class, bin): ``class``, ``score`` (middle of the bin), ``density`` (integrates
        to 1 over the score), ``with_cue`` (the part of the density that has the cue; NaN where
        presence is not measured), ``threshold``.
    """
    present = findings.view.presence
    histograms = present.histograms
    counts = histograms.counts[cue].astype(np.float64)
    with_cue = counts * present.posterior[cue]
    factor = max(1, counts.shape[1] // _SHOWN_BINS)
    edges = np.arange(0, counts.shape[1], factor)
    width = float(histograms.width[cue]) * factor
    total = np.maximum(counts.sum(axis=1, keepdims=True), 1)
    density = np.add.reduceat(counts, edges, axis=1) / total / width
    part = np.add.reduceat(with_cue, edges, axis=1) / total / width
    middle = float(histograms.edges[cue, 0]) + (np.arange(len(edges)) + 0.5) * width
    measured = bool(present.measured[cue])
    classes = np.array(findings.population.classes, dtype=object)
    thresholds = present.threshold[cue] if measured else np.full(len(classes), np.nan)
    return pd.DataFrame(
        {
            "class": np.repeat(classes, len(edges)),
            "score": np.tile(middle, len(classes)),
            "density": density.ravel(),
            "with_cue": part.ravel() if measured else np.nan,
            "threshold": np.repeat(thresholds, len(edges)),
        }
    )


def _compared(findings: Findings, cue: int, code: int) -> pd.DataFrame:
    """Columns score, in_class, elsewhere: densities of a class and of all the others."""
    by_class = densities(findings, cue)
    population = findings.population
    sizes = pd.Series(dict(zip(population.classes, population.sizes, strict=True)))
    label = population.classes[code]
    inside = by_class["class"] == label
    frame = by_class.loc[inside, ["score", "density"]].rename(columns={"density": "in_class"})
    everyone = findings.view.everyone
    if everyone is not None:
        counts = everyone.counts[cue] - findings.view.presence.histograms.counts[cue, code]
        frame["elsewhere"] = _density(findings, cue, counts)
        return frame.reset_index(drop=True)
    weighted = by_class["density"] * by_class["class"].map(sizes)
    outside = weighted[~inside].groupby(by_class["score"]).sum() / max(sizes.drop(label).sum(), 1)
    frame["elsewhere"] = outside.reindex(frame["score"]).fillna(0.0).to_numpy()
    return frame.reset_index(drop=True)


def _density(findings: Findings, cue: int, counts: Array) -> Array:
    """Density over the shown scores of images counted by bin."""
    factor = max(1, len(counts) // _SHOWN_BINS)
    width = float(findings.presence.histograms.width[cue]) * factor
    shown = np.add.reduceat(counts, np.arange(0, len(counts), factor))
    result: Array = shown / max(counts.sum(), 1) / width
    return result


def images(
    results: Readable, findings: Findings, cue: int, code: int, class_query: str | None
) -> pd.DataFrame:
    """The explained images of a class: score, presence, class_score, shard, key, by image_id.

    Args:
        cue: index of the cue.
        code: code of the class.
        class_query: name of the query of the class, if it has one.
    """
    name, label = findings.presence.histograms.cues[cue], findings.population.classes[code]
    columns = {"image_id": "image_id", "shard": "shard", "key": "key", "score": score_column(name)}
    columns |= {"class_score": score_column(class_query)} if class_query else {}
    if findings.population.has_sets:
        columns |= {"label": "label", "labels": "labels"}
    table = rows_with_label(results, label, columns)
    codes = np.full(len(table), code)
    if findings.population.has_sets:
        codes = findings.population.members(table)[1]
    frame: pd.DataFrame = table.to_pandas()
    values = frame["score"].to_numpy(float)
    measured = bool(findings.presence.measured[cue])
    frame["presence"] = findings.presence.of(cue, codes, values) if measured else np.nan
    if class_query is None:
        frame["class_score"] = np.nan
    order = ["score", "presence", "class_score", "shard", "key"]
    return frame.set_index("image_id")[order]


def ordered(
    frame: pd.DataFrame, present: bool | None, sort: str, limit: int | None
) -> pd.DataFrame:
    """The rows of `images` with or without the cue, by one of `ORDERS`, highest first.

    Raises:
        UsageError: ``sort`` is not one of `ORDERS`.
    """
    if sort not in ORDERS:
        raise UsageError(f"sort by {sort!r}: expected one of {', '.join(ORDERS)}")
    if present is not None:
        frame = frame[(frame["presence"] > 0.5) == present]
    if sort == "image_id":
        frame = frame.sort_index()
    else:
        frame = frame.sort_values([sort, "image_id"], ascending=[False, True])
    return frame.head(limit) if limit is not None else frame
