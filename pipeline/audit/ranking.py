"""The table of all pairs of class and cue: flags, reasons, rates by the decoys, order, comparison.

Every claim has columns of its own, and no claims are combined into one score: ``__effect``,
``__low``, ``__high`` (95 %), ``__q``, ``__flag``, and ``__reason`` where the pair is not flagged.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import beta, norm

from pipeline.audit import basis
from pipeline.audit.association import Association
from pipeline.audit.inference import Z95, Array
from pipeline.audit.presence import CueStatus, Presence
from pipeline.audit.scores import Population
from pipeline.config.audit_settings import Gates
from pipeline.errors import UsageError

CLAIMS = ("association", "clip_reliance", "probe_reliance", "model_reliance")
FIELDS = ("effect", "low", "high", "q", "flag", "reason")
ALIGNED = "class-aligned, unconfirmed"
NOT_ASKED = "not measured: only association was asked for; use --depth reliance"
NO_CLASSIFIER = "not measured: no classifier was given; use --classifier OUT"
NO_HEAT = "not testable: a property of the whole image has no heat and cannot be deleted"
NOT_LISTED = (
    "not tested: reliance tests only the strongest pairs flagged for association (reliance.pairs)"
)
_COMPARED = (
    "share",
    "share_elsewhere",
    "association__effect",
    "association__low",
    "association__high",
    "association__flag",
)
"""Columns that the comparison of two audits shows."""


@dataclass(frozen=True)
class DecoyCheck:
    """How the decoys, cues that the data do not have, fared in the same tests.

    Attributes:
        pairs, cues: number of decoys, as pairs with a class and as cues.
        measured: decoy cues whose presence counted as measured.
        flagged_pairs, flagged_cues: decoys that passed all gates.
        upper: upper 95 % bound of the share of decoy cues that are flagged (Clopper-Pearson; by
            cue, because the pairs of one cue depend on each other).
        floor: the smallest error rate that this number of decoys can show for this number of
            findings.
    """

    pairs: int
    cues: int
    measured: int
    flagged_pairs: int
    flagged_cues: int
    upper: float
    floor: float


def build(
    population: Population,
    presence: Presence,
    association: Association,
    decoys: Sequence[str],
    gates: Gates,
    labelled: pd.DataFrame,
) -> pd.DataFrame:
    """One row per pair, unsorted: classes within cues.

    Args:
        association: arrays (C, K), in which labelled pairs are tested by their labels.
        labelled: one row per labelled pair, see `LabelEstimates`.
    """
    cues, count = presence.histograms.cues, population.audited
    classes = np.array(population.classes[:count], dtype=object)
    kept = (slice(None), slice(0, count))
    status = np.array([str(s) for s in presence.status], dtype=object)[:, None]
    aligned = association.aligned[kept]
    frame = pd.DataFrame(
        {
            "class": np.tile(classes, len(cues)),
            "cue": np.repeat(np.array(cues, dtype=object), count),
            "decoy": np.repeat(np.isin(cues, list(decoys)), count),
            "presence": np.where(aligned, ALIGNED, np.broadcast_to(status, aligned.shape)).ravel(),
            "images": association.images[kept].astype(int).ravel(),
            "with_cue": association.with_cue[kept].ravel(),
            "share": association.share[kept].ravel(),
            "share_elsewhere": association.share_elsewhere[kept].ravel(),
            "lift": association.lift[kept].ravel(),
            "score_auc": association.auc[kept].ravel(),
            "association__effect": association.effect[kept].ravel(),
            "association__low": association.low[kept].ravel(),
            "association__high": association.high[kept].ravel(),
            "association__q": association.q[kept].ravel(),
        }
    )
    reasons = _reasons(population, presence, association, gates, labelled)[kept].ravel()
    frame = basis.with_basis(with_reasons(frame, reasons), presence, labelled)
    for claim in CLAIMS[1:]:
        reason = NO_CLASSIFIER if claim == "model_reliance" else NOT_ASKED
        empty = {"flag": False, "reason": reason}
        for field in FIELDS:
            frame[f"{claim}__{field}"] = pd.Series(empty.get(field, np.nan), index=frame.index)
    return frame


def with_reasons(frame: pd.DataFrame, reasons: NDArray[np.object_]) -> pd.DataFrame:
    """The frame with association flagged where the reason is empty, and rates by the decoys."""
    frame = frame.copy()
    frame["association__flag"] = reasons == ""
    frame["association__reason"] = reasons
    frame["association__fdr"] = empirical_fdr(
        frame["association__low"].fillna(0).to_numpy(),
        frame["association__flag"].to_numpy(bool),
        frame["decoy"].to_numpy(bool),
    )
    return frame


def with_reliance(
    frame: pd.DataFrame, tested: pd.DataFrame, claims: Sequence[str] = CLAIMS[1:3]
) -> pd.DataFrame:
    """The frame with the claims of reliance of the pairs that were tested.

    Args:
        frame: all pairs.
        tested: one row per tested pair: class, cue, and the columns ``<claim>__*``.
        claims: the claims that were tested.
    """
    dropped = [name for name in frame if str(name).startswith(tuple(claims))]
    merged = frame.drop(columns=dropped).merge(tested, on=["class", "cue"], how="left")
    for claim in claims:
        reason, flag = f"{claim}__reason", f"{claim}__flag"
        missing = merged[reason].isna() if reason in merged else np.ones(len(merged), bool)
        for field in FIELDS:
            if f"{claim}__{field}" not in merged:
                merged[f"{claim}__{field}"] = np.nan
        merged[reason] = merged[reason].astype(object).mask(missing, NOT_LISTED)
        merged[flag] = merged[flag].map(lambda value: value is True).astype(bool)
    return merged


def with_exact(frame: pd.DataFrame, exact: pd.DataFrame) -> pd.DataFrame:
    """The frame with rows for exact cues, for which nothing but association is tested.

    Args:
        frame: all pairs of cues that a model scores.
        exact: see `pipeline.audit.exact_cues.find_exact`.
    """
    if exact.empty:
        return frame
    added = exact.assign(decoy=False, presence="exact", labels=0, labels_elsewhere=0)
    added["association__verified"] = True
    for claim in CLAIMS[1:]:
        added[f"{claim}__flag"] = False
        added[f"{claim}__reason"] = NO_HEAT
    return pd.concat([frame, added], ignore_index=True)


def _reasons(
    population: Population,
    presence: Presence,
    association: Association,
    gates: Gates,
    labelled: pd.DataFrame,
) -> NDArray[np.object_]:
    """(C, K) why a pair is not flagged. Later ones are more basic and replace earlier ones."""
    by_labels = basis.is_labelled(labelled, presence.histograms.cues, population)
    with np.errstate(invalid="ignore"):
        weak = ~(association.low > gates.odds_ratio)
        few = ~(association.with_cue >= gates.images)
        chance = ~(association.q < gates.q)
    reasons = np.full(association.low.shape, "", dtype=object)
    reasons[chance] = f"may be chance: q is not below {gates.q:g}"
    for c, k in zip(*np.nonzero(weak & association.tested), strict=True):
        low = association.low[c, k]
        reasons[c, k] = f"odds ratio may be as low as {low:.2g}, {gates.odds_ratio:g} needed"
    for c, k in zip(*np.nonzero(few & association.tested), strict=True):
        count = association.with_cue[c, k]
        reasons[c, k] = f"{count:.0f} images with the cue, {gates.images} needed"
    reasons[by_labels & ~association.tested] = (
        f"too few labels: {gates.labels} of the class and {gates.labels} elsewhere needed"
    )
    reasons[presence.unconfirmed & ~by_labels] = (
        f"{ALIGNED}: every image of the class scores as if it had the cue, which the class itself "
        "may cause"
    )
    for c in np.flatnonzero(~presence.measured):
        reasons[c, ~by_labels[c]] = f"not measurable: {presence.reason[c]}"
        reasons[c, association.aligned[c]] = (
            f"{ALIGNED}: scores are higher in the class, but show no two states within it"
        )
    if len(population.classes) < 2:
        reasons[:] = "only one class: nothing to compare with"
    small = (association.elsewhere < gates.class_images) & (len(population.classes) > 1)
    reasons[small] = f"fewer than {gates.class_images} images of other classes"
    for k in np.flatnonzero(np.array(population.sizes) < gates.class_images):
        reasons[:, k] = f"the class has {population.sizes[k]} images, {gates.class_images} needed"
    return reasons


def rank(frame: pd.DataFrame, by: str) -> pd.DataFrame:
    """Pairs flagged for the claim first, then by the claim's lower bound, the strongest first.

    Raises:
        UsageError: ``by`` is not one of `CLAIMS`.
    """
    if by not in CLAIMS:
        raise UsageError(f"rank by {by!r}: expected one of {', '.join(CLAIMS)}")
    keys: Mapping[str, bool] = {
        f"{by}__flag": False,
        f"{by}__low": False,
        "class": True,
        "cue": True,
    }
    ranked = frame.sort_values(list(keys), ascending=list(keys.values()), na_position="last")
    return ranked.reset_index(drop=True)


def empirical_fdr(low: Array, flag: NDArray[np.bool_], decoy: NDArray[np.bool_]) -> Array:
    """False discovery rate at each finding: ``(1 + decoys >= t) / R(t) * n_real / n_decoy``.

    Args:
        low: (n,) lower bound t by which findings are ranked.
        flag: (n,) pairs that passed all gates.
        decoy: (n,) pairs of decoys.

    Returns:
        (n,) made monotone (a stronger finding's rate is never above a weaker one's), at most 1. NaN
        for pairs that are not flagged, for decoys, and if there are no decoys.
    """
    rate = np.full(len(low), np.nan)
    real, false = ~decoy & flag, decoy & flag
    if not decoy.any() or not real.any():
        return rate
    order = np.flatnonzero(real)[np.argsort(-low[real], kind="stable")]
    above = np.array([(low[false] >= low[row]).sum() for row in order])
    rates = (1 + above) / np.arange(1, len(order) + 1) * (~decoy).sum() / decoy.sum()
    rate[order] = np.minimum(np.minimum.accumulate(rates[::-1])[::-1], 1.0)
    return rate


def check_decoys(frame: pd.DataFrame) -> DecoyCheck:
    """Count how the decoys fared; ``frame`` has one row per pair."""
    flag, decoy = (frame[name].to_numpy(bool) for name in ("association__flag", "decoy"))
    cue = frame["cue"].to_numpy(object)
    known = [str(CueStatus.MEASURED), str(CueStatus.THRESHOLD)]
    measured = frame["presence"].isin(known).to_numpy(bool)
    cues, flagged = set(cue[decoy]), set(cue[decoy & flag])
    pairs, findings = int(decoy.sum()), int((flag & ~decoy).sum())
    full = len(flagged) >= len(cues)
    upper = 1.0 if full else float(beta.ppf(0.975, len(flagged) + 1, len(cues) - len(flagged)))
    floor = (~decoy).sum() / (pairs * max(1, findings)) if pairs else 1.0
    return DecoyCheck(
        pairs=pairs,
        cues=len(cues),
        measured=len(set(cue[decoy & measured])),
        flagged_pairs=int((decoy & flag).sum()),
        flagged_cues=len(flagged),
        upper=upper,
        floor=min(1.0, float(floor)),
    )


def changes(before: pd.DataFrame, after: pd.DataFrame) -> pd.DataFrame:
    """Pairs of two audits side by side, with columns ``_before`` and ``_after``.

    Returns:
        ``change``: ``new``, ``gone``, ``kept`` (flagged before and after), ``class or cue is new``,
        ``class or cue is gone``, or empty; ``ratio``: odds ratio after / before; ``p``: p-value of
        no change, from the two intervals, as if the two data sets shared no image. Pairs whose
        flag changed come first, then the smallest p.
    """
    columns = ["class", "cue", *_COMPARED]
    both = before[columns].merge(
        after[columns],
        on=["class", "cue"],
        how="outer",
        suffixes=("_before", "_after"),
        indicator="where",
    )
    was, now = (  # a missing pair is not flagged
        both[f"association__flag_{when}"].eq(True).to_numpy(bool) for when in ("before", "after")
    )
    both["change"] = np.select(
        [
            (both["where"] == "right_only").to_numpy(),
            (both["where"] == "left_only").to_numpy(),
            now & ~was,
            was & ~now,
            was & now,
        ],
        ["class or cue is new", "class or cue is gone", "new", "gone", "kept"],
        default="",
    )
    effect, low, high = (
        {when: np.log(both[f"association__{name}_{when}"]) for when in ("before", "after")}
        for name in ("effect", "low", "high")
    )
    errors = [(high[when] - low[when]) / (2 * Z95) for when in ("before", "after")]
    gap = effect["after"] - effect["before"]
    both["ratio"] = np.exp(gap)
    both["p"] = 2 * norm.sf(np.abs(gap / np.hypot(*errors)))
    both["moved"] = was != now
    ordered = both.sort_values(["moved", "p"], ascending=[False, True], na_position="last")
    return ordered.drop(columns=["where", "moved"]).reset_index(drop=True)
