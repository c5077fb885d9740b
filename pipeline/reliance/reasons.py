"""The reason why a pair is not flagged for reliance, in words; empty if it is flagged."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.audit.inference import Array
from pipeline.config.audit_settings import Gates
from pipeline.reliance.edits import Deletion, PairEdits
from pipeline.reliance.effects import MarginChange


def untestable(
    edits: PairEdits, deletion: Deletion, removed: NDArray[np.bool_], gates: Gates
) -> str:
    """Why a pair cannot be tested by a deletion.

    Args:
        edits: all edits of the pair.
        deletion: the deletion that the test uses.
        removed: (n,) whether the cue was really removed from the image.
        gates: number of images needed.
    """
    least = gates.edits
    if edits.images < least:
        why = f"; {edits.errors[0]}" if edits.errors else ""
        return f"{edits.images} images with the cue could be edited, {least} needed{why}"
    if len(deletion.ids) < least:
        return (
            f"in {len(deletion.ids)} of {edits.images} images a region of the cue's shape "
            f"fits elsewhere, {least} needed (a border or a background leaves no place for it)"
        )
    if removed.sum() < least:
        return (
            f"after deletion of its hottest cells the cue's score falls below its threshold in "
            f"{removed.sum()} of {len(removed)} images, {least} needed"
        )
    return ""


def clip_reason(change: MarginChange, control: MarginChange | None, gates: Gates) -> str:
    """Why a pair is not flagged for ``clip_reliance``.

    Args:
        change: fall of the margin.
        control: fall along the positive control; None if there is none.
        gates: what the lower bound must exceed.
    """
    least = gates.clip_effect
    if not np.isfinite(change.low):
        return "the margin is the same in all images"
    if change.low > least:
        return "" if change.agree else "the fills disagree about its sign"
    if control is not None and not control.low > least:
        return (
            f"not testable: deletion does not lower even the similarity to the text that names the "
            f"cue ({control.effect:+.2f} sd)"
        )
    if change.high <= least:
        return f"the fall is {change.high:+.2f} sd at most, {least:g} needed"
    return f"the fall may be as low as {change.low:+.2f} sd, {least:g} needed"


def probe_reason(
    quality: Mapping[str, Any],
    bounds: tuple[float, float],
    by_fill: Array,
    gates: Gates,
    *,
    against: bool,
) -> str:
    """Why a pair is not flagged for ``probe_reliance``.

    Args:
        quality: the class's row of `probe_quality`.
        bounds: lower and upper bound of the share of the evidence.
        by_fill: (F,) effect of each fill.
        gates: what the bounds must exceed.
        against: whether insertion of the cue moves the probe away from the class.
    """
    if not quality["accuracy_low"] > quality["chance"]:
        return (
            f"the probe recognises the class in {quality['accuracy']:.0%} of its images, which "
            f"may be chance ({quality['chance']:.0%})"
        )
    if not quality["auc_low"] > gates.probe_auc:
        return (
            f"the probe hardly tells it from {quality['rival']} (AUC may be as low as "
            f"{quality['auc_low']:.2f}, {gates.probe_auc:g} needed)"
        )
    low, high = bounds
    if not low > gates.probe_share:
        most = f"is {high:.0%} at most" if high <= gates.probe_share else f"may be only {low:.0%}"
        return (
            f"its share of the evidence against {quality['rival']} {most}, {gates.probe_share:.0%} "
            "needed"
        )
    if len(set(np.sign(by_fill))) > 1:
        return "the fills disagree about its sign"
    return "inserting the cue moves the probe away from the class" if against else ""
