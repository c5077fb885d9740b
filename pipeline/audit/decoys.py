"""How often the audit is wrong: cues that the data set lacks run through the same gates."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta

from pipeline.audit.histogram_sums import Array


@dataclass(frozen=True)
class DecoyCheck:
    """What the decoys came to.

    Attributes:
        pairs, cues: decoys that ran along, as pairs with a class and as cues.
        measured: decoy cues whose presence counted as measured.
        flagged_pairs, flagged_cues: those that passed all gates.
        upper: upper 95 % bound of the share of decoy cues that are flagged (Clopper-Pearson; by
            cue, since one cue's pairs stand or fall together).
        floor: the smallest rate that so few decoys can show for so many findings.
    """

    pairs: int
    cues: int
    measured: int
    flagged_pairs: int
    flagged_cues: int
    upper: float
    floor: float


def empirical_fdr(low: Array, flag: NDArray[np.bool_], decoy: NDArray[np.bool_]) -> Array:
    """False discovery rate at each finding: ``(1 + decoys >= t) / R(t) * n_real / n_decoy``.

    Args:
        low: (n,) lower bound by which findings are ranked.
        flag: (n,) which passed all gates.
        decoy: (n,) which are decoys.

    Returns:
        (n,) made monotone (a stronger finding's rate is never above a weaker one's), at most 1; NaN
        for what is not flagged, for decoys, and without decoys.
    """
    result = np.full(len(low), np.nan)
    real, fake = ~decoy & flag, decoy & flag
    if not decoy.any() or not real.any():
        return result
    order = np.flatnonzero(real)[np.argsort(-low[real], kind="stable")]
    above = np.array([(low[fake] >= low[place]).sum() for place in order])
    rates = (1 + above) / np.arange(1, len(order) + 1) * (~decoy).sum() / decoy.sum()
    result[order] = np.minimum(np.minimum.accumulate(rates[::-1])[::-1], 1.0)
    return result


def check(
    flag: NDArray[np.bool_],
    decoy: NDArray[np.bool_],
    cue: NDArray[np.object_],
    measured: NDArray[np.bool_],
) -> DecoyCheck:
    """Count them; all arrays are (n,), a row a pair."""
    cues = set(cue[decoy])
    flagged = set(cue[decoy & flag])
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
