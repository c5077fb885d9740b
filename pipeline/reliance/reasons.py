"""Why a pair is not flagged for reliance, in words; empty where it is."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.audit.inference import Array
from pipeline.config.audit_settings import Gates
from pipeline.reliance.edited import Deletion, Edited
from pipeline.reliance.margin import Change


def untestable(edited: Edited, deletion: Deletion, gone: NDArray[np.bool_], gates: Gates) -> str:
    """Why deletion says nothing.

    Args:
        edited: everything of the pair.
        deletion: of one kind.
        gone: (n,) images of it in which the cue went.
        gates: images needed.
    """
    least = gates.edits
    if edited.images < least:
        why = f"; {edited.errors[0]}" if edited.errors else ""
        return f"{edited.images} images with the cue could be edited, {least} needed{why}"
    if len(deletion.ids) < least:
        return (
            f"in {len(deletion.ids)} of {edited.images} images a region of the cue's shape "
            f"fits elsewhere, {least} needed (a border or a background has no elsewhere)"
        )
    if gone.sum() < least:
        return (
            f"after deletion of its hottest cells the cue's score falls below its threshold in "
            f"{gone.sum()} of {len(gone)} images, {least} needed"
        )
    return ""


def clip_reason(change: Change, proof: Change | None, gates: Gates) -> str:
    """Of claim B.

    Args:
        change: of the margin.
        proof: along the positive control; None where there is none.
        gates: what the lower bound must exceed.
    """
    least = gates.clip_effect
    if not np.isfinite(change.low):
        return "the margin is the same in all images"
    if change.low > least:
        return "" if change.agree else "the fills disagree about its sign"
    if proof is not None and not proof.low > least:
        return (
            f"not testable: deletion moves not even the text with the cue in it "
            f"({proof.effect:+.2f} sd)"
        )
    if change.high <= least:
        return f"the fall is {change.high:+.2f} sd at most, {least:g} needed"
    return f"the fall may be as low as {change.low:+.2f} sd, {least:g} needed"


def probe_reason(
    seen: Mapping[str, Any],
    bounds: tuple[float, float],
    by_fill: Array,
    gates: Gates,
    *,
    against: bool,
) -> str:
    """Of claim C'.

    Args:
        seen: the class's row of `judged.judge`.
        bounds: lower and upper, of the share of the evidence.
        by_fill: (F,) effect of each fill.
        gates: what bounds must exceed.
        against: whether insertion moves the probe the other way.
    """
    if not seen["accuracy_low"] > seen["chance"]:
        return (
            f"the probe recognises the class in {seen['accuracy']:.0%} of its images, which "
            f"may be chance ({seen['chance']:.0%})"
        )
    if not seen["auc_low"] > gates.probe_auc:
        return (
            f"the probe hardly tells it from {seen['rival']} (AUC may be as low as "
            f"{seen['auc_low']:.2f}, {gates.probe_auc:g} needed)"
        )
    low, high = bounds
    if not low > gates.probe_share:
        most = f"is {high:.0%} at most" if high <= gates.probe_share else f"may be only {low:.0%}"
        return (
            f"its share of the evidence against {seen['rival']} {most}, {gates.probe_share:.0%} "
            "needed"
        )
    if len(set(np.sign(by_fill))) > 1:
        return "the fills disagree about its sign"
    return "inserting the cue moves the probe the other way" if against else ""
