"""Claim C: does the user's own classifier use the cue, by its logits and by its decisions?

**Logit gap**: ``phi = [P(c|y) - P(c|r)] * mean eps / gap``. ``eps`` is what the logit of class y
minus that of the rival r loses when the cue is deleted, beyond what it loses when a region of the
same shape is deleted elsewhere; ``gap`` is the distance of the two classes' mean difference of
logits in the run of the classifier. It is the statistic of ``probe_reliance`` for a model that is
given: nothing is fitted, so images are independent and its error follows by the delta method.

**Decisions**: of the images that the classifier assigns to y, the share that it no longer does when
the cue is deleted, minus the same share for the control; and the share of the rival's images that
become y when the cue is pasted in, minus that of the control. Intervals of such paired differences
are those of Agresti and Min (2005).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from pipeline.audit.inference import Z95, Array, auc_interval, mean_interval
from pipeline.config.audit_settings import Gates
from pipeline.reliance.edits import Deletion, Insertion

MODEL = "model_reliance"
MORE = (
    *("images", "removed", "rival", "auc", "auc_low"),
    *("flips", "flips_low", "flips_high", "flips_images"),
    *("taken", "taken_low", "taken_high", "taken_images"),
    *("accuracy_with", "accuracy_without", "heat"),
)
"""Columns of the claim besides the fields that every claim has."""


@dataclass(frozen=True)
class Change:
    """A mean with its 95 % interval.

    Attributes:
        effect, low, high: NaN where there are too few images.
        images: number of images.
        by_fill: the effect of each fill alone; empty where nothing is filled.
    """

    effect: float = np.nan
    low: float = np.nan
    high: float = np.nan
    images: int = 0
    by_fill: tuple[float, ...] = ()

    @property
    def agree(self) -> bool:
        """Whether no two fills have effects of opposite signs."""
        return not {-1.0, 1.0} <= {float(np.sign(value)) for value in self.by_fill}


@dataclass(frozen=True)
class Shares:
    """How often a cue occurs, and how far apart the classifier holds two classes.

    Attributes:
        in_class, in_rival: share of the images of the class, and of the rival, with the cue.
        images, rival_images: number of images behind the shares.
        margins, rival_margins: (n,), (m,) logit of the class minus that of the rival, for the
            images of the class, and of the rival.
    """

    in_class: float
    in_rival: float
    images: int
    rival_images: int
    margins: Array
    rival_margins: Array

    @property
    def auc(self) -> tuple[float, float]:
        """AUC of the margin, class against rival, and its lower 95 % bound."""
        auc, low, _ = auc_interval(self.margins, self.rival_margins)
        return auc, low


def logit_share(deletion: Deletion, cls: int, rival: int, shares: Shares) -> Change:
    """The cue's share of the logit gap.

    Args:
        deletion: logits (n, K) and (F, n, K) of images of the class from which the cue was removed.
        cls, rival: numbers of the class and of its rival among the logits.
        shares: shares of images with the cue, and the logit gap.
    """
    margin = deletion.change[..., cls] - deletion.change[..., rival]  # (F, n)
    count = margin.shape[1]
    if count < 2 or len(shares.margins) < 2 or len(shares.rival_margins) < 2:
        return Change(images=count)
    eps = margin.mean(axis=0).astype(np.float64)
    gap = float(shares.margins.mean() - shares.rival_margins.mean())
    more = shares.in_class - shares.in_rival
    of_eps = float(eps.var(ddof=1)) / count
    of_gap = sum(m.var(ddof=1) / len(m) for m in (shares.margins, shares.rival_margins))
    pairs = ((shares.in_class, shares.images), (shares.in_rival, shares.rival_images))
    of_more = sum(share * (1 - share) / max(images, 1) for share, images in pairs)
    mean = float(eps.mean())
    effect = more * mean / gap
    variance = (more**2 * of_eps + mean**2 * of_more + effect**2 * of_gap) / gap**2
    error = float(np.sqrt(variance))
    fills = tuple(float(more * value / gap) for value in margin.mean(axis=1))
    return Change(effect, effect - Z95 * error, effect + Z95 * error, count, fills)


def flips(deletion: Deletion, cls: int) -> Change:
    """Share of images assigned to ``cls`` that leave it without the cue, beyond the control.

    Args:
        deletion: logits of images from which the cue was deleted, see `logit_share`.
        cls: number of the class.
    """
    called = deletion.before.argmax(axis=1) == cls
    without, control = (
        (logits[:, called].argmax(axis=2) != cls).astype(np.float64)
        for logits in (deletion.without, deletion.control)
    )
    return _paired(without - control)


def taken(insertion: Insertion, appeared: NDArray[np.bool_], cls: int) -> Change:
    """Share of the rival's images that become ``cls`` with the pasted cue, beyond the control.

    Args:
        insertion: logits (m, K) of images of the rival class.
        appeared: (m,) images in which the cue really appeared.
        cls: number of the class.
    """
    asked = appeared & (insertion.before.argmax(axis=1) != cls)
    inserted, control = (
        (logits[asked].argmax(axis=1) == cls).astype(np.float64)
        for logits in (insertion.inserted, insertion.control)
    )
    return _paired((inserted - control)[None])


def _paired(differences: Array) -> Change:
    """Mean of paired differences (F, n) of shares, with the interval of Agresti and Min."""
    count = differences.shape[1]
    if not count:
        return Change()
    by_image = differences.mean(axis=0)
    _, low, high = mean_interval(np.append(by_image, [1.0, -1.0]))
    fills = tuple(float(value) for value in differences.mean(axis=1))
    return Change(float(by_image.mean()), low, high, count, fills if len(fills) > 1 else ())


def chance(change: Change) -> float:
    """One-sided p-value of no effect."""
    error = (change.high - change.low) / (2 * Z95)
    return float(norm.sf(change.effect / error)) if error > 0 else np.nan


def reason(share: Change, decisions: Change, auc: tuple[float, float], gates: Gates) -> str:
    """Why a pair is not flagged for ``model_reliance``; empty if it is.

    Args:
        share: result of `logit_share`.
        decisions: result of `flips`.
        auc: AUC of the margin and its lower bound.
        gates: what the lower bounds must exceed.
    """
    if not auc[1] > gates.model_auc:
        return (
            f"the classifier hardly tells the class from its rival (AUC may be as low as "
            f"{auc[1]:.2f}, {gates.model_auc:g} needed)"
        )
    enough = decisions.images >= gates.edits
    passed = [share] if share.low > gates.model_share else []
    passed += [decisions] if enough and decisions.low > gates.model_flips else []
    if passed:
        agree = any(change.agree for change in passed)
        return "" if agree else "the fills disagree about its sign"
    if np.isnan(share.low):
        part = "its share of the logit gap is not known, because the rival's share of it is not,"
    else:
        least = max(share.low, 0)
        part = (
            f"it may be as little as {least:.0%} of the logit gap ({gates.model_share:.0%} needed)"
        )
    return f"{part} and {_decided(decisions, gates)}"


def _decided(decisions: Change, gates: Gates) -> str:
    if decisions.images < gates.edits:
        return (
            f"the classifier assigns {decisions.images} of these images to the class before the "
            f"edit; testing decisions needs {gates.edits}"
        )
    return f"{max(decisions.low, 0):.1%} of decisions ({gates.model_flips:.0%} needed)"


def columns(change: Change, name: str) -> dict[str, object]:
    """Columns ``name``, ``name_low``, ``name_high``, ``name_images``."""
    return {
        name: change.effect,
        f"{name}_low": change.low,
        f"{name}_high": change.high,
        f"{name}_images": change.images,
    }


def aligned(ids: Sequence[str], values: Mapping[str, bool]) -> NDArray[np.bool_]:
    """(n,) values by image_id; False for an image without one."""
    return np.array([values.get(name, False) for name in ids], dtype=bool)
