"""One row a pair of class and cue; every claim is a column group of its own, nothing is summed up.

A claim's columns: ``__effect``, ``__low``, ``__high`` (95 %), ``__q``, ``__flag``, and ``__reason``
where it is not flagged.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.audit import decoys
from pipeline.audit.aggregate import Population
from pipeline.audit.association import Association
from pipeline.audit.presence import Presence
from pipeline.config.audit_settings import Gates
from pipeline.errors import UsageError

CLAIMS = ("association", "clip_reliance", "probe_reliance")
FIELDS = ("effect", "low", "high", "q", "flag", "reason")
ALIGNED = "class-aligned, unconfirmed"
NOT_ASKED = "not measured: association was asked for; depth reliance deletes the cue and looks"
NOT_LISTED = "not tested: only pairs that are flagged for association are, the strongest first"


def build(
    known: Population,
    presence: Presence,
    found: Association,
    fakes: Sequence[str],
    gates: Gates,
) -> pd.DataFrame:
    """The frame of all pairs, unsorted, classes within cues."""
    cues, count = presence.histograms.cues, known.audited
    names = np.array(known.classes[:count], dtype=object)
    kept = (slice(None), slice(0, count))
    status = np.array([str(s) for s in presence.status], dtype=object)[:, None]
    aligned = found.aligned[kept]
    frame = pd.DataFrame(
        {
            "class": np.tile(names, len(cues)),
            "cue": np.repeat(np.array(cues, dtype=object), count),
            "decoy": np.repeat(np.isin(cues, list(fakes)), count),
            "presence": np.where(aligned, ALIGNED, np.broadcast_to(status, aligned.shape)).ravel(),
            "images": found.images[kept].astype(int).ravel(),
            "with_cue": found.with_cue[kept].ravel(),
            "share": found.share[kept].ravel(),
            "share_elsewhere": found.share_elsewhere[kept].ravel(),
            "lift": found.lift[kept].ravel(),
            "score_auc": found.auc[kept].ravel(),
            "association__effect": found.effect[kept].ravel(),
            "association__low": found.low[kept].ravel(),
            "association__high": found.high[kept].ravel(),
            "association__q": found.q[kept].ravel(),
        }
    )
    reasons = _reasons(known, presence, found, gates)[kept].ravel()
    return _completed(with_reasons(frame, reasons))


def with_reasons(frame: pd.DataFrame, reasons: NDArray[np.object_]) -> pd.DataFrame:
    """Flag the associations without a reason against them, and rate them by the decoys."""
    frame = frame.copy()
    frame["association__flag"] = reasons == ""
    frame["association__reason"] = reasons
    frame["association__fdr"] = decoys.empirical_fdr(
        frame["association__low"].fillna(0).to_numpy(),
        frame["association__flag"].to_numpy(bool),
        frame["decoy"].to_numpy(bool),
    )
    return frame


def _completed(frame: pd.DataFrame) -> pd.DataFrame:
    """Columns of the claims that this depth does not ask for."""
    empty = {"flag": False, "reason": NOT_ASKED}
    for claim in CLAIMS[1:]:
        for field in FIELDS:
            frame[f"{claim}__{field}"] = pd.Series(empty.get(field, np.nan), index=frame.index)
    return frame


def with_reliance(frame: pd.DataFrame, tested: pd.DataFrame) -> pd.DataFrame:
    """The columns of the claims of reliance, for the pairs that were tested.

    Args:
        frame: of all pairs.
        tested: class, cue, and ``<claim>__*`` columns, a row a pair.
    """
    dropped = [name for name in frame if str(name).startswith(CLAIMS[1:])]
    merged = frame.drop(columns=dropped).merge(tested, on=["class", "cue"], how="left")
    for claim in CLAIMS[1:]:
        reason, flag = f"{claim}__reason", f"{claim}__flag"
        missing = merged[reason].isna() if reason in merged else np.ones(len(merged), bool)
        for field in FIELDS:
            if f"{claim}__{field}" not in merged:
                merged[f"{claim}__{field}"] = np.nan
        merged[reason] = merged[reason].astype(object).mask(missing, NOT_LISTED)
        merged[flag] = merged[flag].map(lambda value: value is True).astype(bool)
    return merged


def _reasons(
    known: Population, presence: Presence, found: Association, gates: Gates
) -> NDArray[np.object_]:
    """(C, K) why not; the later ones are the more basic and cover the others."""
    with np.errstate(invalid="ignore"):
        weak = ~(found.low > gates.odds_ratio)
        few = ~(found.with_cue >= gates.images)
        chance = ~(found.q < gates.q)
    reasons = np.full(found.low.shape, "", dtype=object)
    reasons[chance] = f"may be chance: q is not below {gates.q:g}"
    for c, k in zip(*np.nonzero(weak & found.tested), strict=True):
        low = found.low[c, k]
        reasons[c, k] = f"odds ratio may be as low as {low:.2g}, {gates.odds_ratio:g} needed"
    for c, k in zip(*np.nonzero(few & found.tested), strict=True):
        reasons[c, k] = f"{found.with_cue[c, k]:.0f} images with the cue, {gates.images} needed"
    reasons[presence.unconfirmed] = (
        f"{ALIGNED}: every image of the class scores as if with the cue; the class itself may"
    )
    for c in np.flatnonzero(~presence.measured):
        reasons[c] = f"not measurable: {presence.reason[c]}"
        reasons[c, found.aligned[c]] = (
            f"{ALIGNED}: scores are higher in the class, but show no two states within it"
        )
    if len(known.classes) < 2:
        reasons[:] = "only one class: nothing to compare with"
    small = (found.elsewhere < gates.class_images) & (len(known.classes) > 1)
    reasons[small] = f"fewer than {gates.class_images} images of other classes"
    for k in np.flatnonzero(np.array(known.sizes) < gates.class_images):
        reasons[:, k] = f"the class has {known.sizes[k]} images, {gates.class_images} needed"
    return reasons


def rank(frame: pd.DataFrame, by: str) -> pd.DataFrame:
    """Strongest lower bound first; flags of the claim before the rest.

    Raises:
        UsageError: ``by`` is no claim.
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
