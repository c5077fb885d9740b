"""Which images have a cue: by two states of its score within classes, or a threshold of the user's.

A cue counts as measured only where its scores fall into two states *within* classes. Where they do
not, the audit says so instead of guessing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from pipeline.audit import mixture, shape_check
from pipeline.audit.aggregate import Histograms
from pipeline.audit.histogram_sums import Array, Moments
from pipeline.audit.mixture import HIGH, MIDDLE, Mixture
from pipeline.config.audit_settings import Gates

_CHUNK = 4_000_000
"""Histogram cells that are fitted at once."""
_TINY = 1e-6
_EDGE = 0.02  # share of images in the smaller state from which a class shows both


class CueStatus(StrEnum):
    """Whether the presence of a cue is known."""

    MEASURED = "measured"
    """Its scores have two states within classes."""
    THRESHOLD = "by threshold"
    """By a threshold that the user gave, or that labelled examples gave."""
    NOT_MEASURABLE = "not measurable"
    """The scores do not tell with from without."""


@dataclass(frozen=True)
class Presence:
    """Presence of C cues in K classes.

    Attributes:
        histograms: the scores it was found from.
        status: (C,).
        reason: (C,) why a cue is not measurable, in words; empty otherwise.
        posterior: (C, K, B) probability that an image of a class with a score has the cue.
        unconfirmed: (C, K) classes of which all images seem to have the cue, so that only the
            class's own offset tells: a shift that the object makes would look the same.
        threshold: (C, K) score from which presence is likelier than absence.
        separation: (C,) distance of the states in standard deviations; NaN for thresholds.
        gain: (C,) log-likelihood above class means alone; NaN for thresholds.
    """

    histograms: Histograms
    status: tuple[CueStatus, ...]
    reason: tuple[str, ...]
    posterior: NDArray[np.float32]
    unconfirmed: NDArray[np.bool_]
    threshold: Array
    separation: Array
    gain: Array

    @property
    def measured(self) -> NDArray[np.bool_]:
        """(C,) whether presence is known."""
        return np.array([status is not CueStatus.NOT_MEASURABLE for status in self.status], bool)

    def of(self, cue: int, codes: NDArray[np.int64], scores: Array) -> NDArray[np.float32]:
        """(n,) probability of presence in images of some classes with some scores."""
        result: NDArray[np.float32] = self.posterior[cue, codes, self.histograms.bins(cue, scores)]
        return result


def measure(histograms: Histograms, gates: Gates, thresholds: Mapping[str, float]) -> Presence:
    """Fit every cue, and apply the gates."""
    cues, classes, bins = histograms.counts.shape
    if not cues or not classes:
        return _nothing(histograms)
    together = max(1, _CHUNK // max(1, classes * bins))
    chunks = [np.arange(i, min(i + together, cues)) for i in range(0, cues, together)]
    parts = [_measured(histograms, chunk, gates) for chunk in chunks]
    found = _join(histograms, parts)
    for cue, threshold in thresholds.items():
        found = _with_threshold(found, histograms.cues.index(cue), threshold)
    return found


@dataclass(frozen=True)
class _Part:
    posterior: NDArray[np.float32]
    unconfirmed: NDArray[np.bool_]
    threshold: Array
    separation: Array
    gain: Array
    reason: list[str]


def _measured(histograms: Histograms, chunk: NDArray[np.int64], gates: Gates) -> _Part:
    data = Moments.of(histograms.counts[chunk], histograms.centres[chunk], histograms.width[chunk])
    found = mixture.fit(data)
    single = mixture.one_state_likelihoods(data, mixture.one_state_sigma(data)).sum(axis=1)
    gain = mixture.class_likelihoods(data, found).sum(axis=1) - single
    placed, unconfirmed = _placed(data, found, gates)
    posterior = placed.states(data.centres)[..., HIGH].astype(np.float32)
    present = np.einsum("ckb,ckb->ck", data.counts, posterior)
    separation = found.distance / found.sigma
    reasons = [
        _reason(
            separation[c], gain[c], present[c], np.where(unconfirmed[c], 0, data.images[c]), gates
        )
        for c in range(len(chunk))
    ]
    for c in (c for c, reason in enumerate(reasons) if not reason):
        if shape_check.gain_of_states(data, found, c) <= gates.gain:
            reasons[c] = (
                "one state with a long tail, or classes of unequal spread, explain its scores as "
                f"well as two states do. {_settle(gates)}"
            )
    odds = np.log(placed.share[..., HIGH]) - np.log(placed.share[..., MIDDLE])
    slope = np.maximum(placed.distance, 1e-9) / placed.sigma**2
    threshold = placed.offset + placed.distance[:, None] / 2 - odds / slope[:, None]
    return _Part(posterior, unconfirmed, threshold, separation, gain, reasons)


def _placed(data: Moments, found: Mixture, gates: Gates) -> tuple[Mixture, NDArray[np.bool_]]:
    """Decide on classes in one state only, by where they lie among those that show both.

    Within such a class the two states cannot be told apart: all with the cue and a low offset fits
    as well as all without it and a high one. Returns also (C, K) which ones lie where the cue is.
    """
    share = found.states(data.centres)[..., HIGH]
    present = np.einsum("ckb,ckb->ck", data.counts, share)
    absent = data.images - present
    gain = mixture.class_likelihoods(data, found)
    gain = gain - mixture.one_state_likelihoods(data, found.sigma)
    least = np.maximum(1.0, _EDGE * data.images)
    both = (gain > gates.gain) & (present >= least) & (absent >= least)
    usual = _median_where(found.offset, both & (data.images >= gates.images))[:, None]
    away = np.abs(data.mean - usual)
    sure = (absent >= gates.images) | (np.abs(found.offset - usual) <= away)
    one_state = ~((gain > gates.gain) & sure) & (data.images > 0)
    as_present = np.abs(data.mean - found.distance[:, None] - usual) < away
    full = one_state & as_present
    empty = one_state & ~as_present & (present > absent)
    shares = found.share.copy()
    shares[full], shares[empty] = [_TINY, _TINY, 1 - 2 * _TINY], [_TINY, 1 - 2 * _TINY, _TINY]
    offset = np.where(full, data.mean - found.distance[:, None], found.offset)
    offset = np.where(empty, data.mean, offset)
    return replace(found, offset=offset, share=shares), full


def _median_where(values: Array, chosen: NDArray[np.bool_]) -> Array:
    """(C,) median over the chosen classes; over all where none is."""
    some = chosen | ~chosen.any(axis=1, keepdims=True)
    return np.nanmedian(np.where(some, values, np.nan), axis=1)


def _settle(gates: Gates) -> str:
    return f"{gates.examples} labelled examples or a threshold would settle it"


def _reason(separation: float, gain: float, present: Array, images: Array, gates: Gates) -> str:
    present = np.where(images > 0, present, 0)
    settle = _settle(gates)
    if separation < gates.separation or gain <= gates.gain:
        return (
            f"its scores show no two states within classes ({separation:.1f} sd apart, "
            f"{gates.separation:g} needed): in every image, in none, or not told apart by the "
            f"model. {settle}"
        )
    without = images.sum() - present.sum()
    few, state = min((present.sum(), "with"), (without, "without"))
    if few < gates.images:
        return f"{few:.0f} images {state} it, {gates.images} needed"
    large = images >= gates.class_images
    shares = np.sort((present / np.maximum(images, 1))[large if large.any() else images > 0])
    usual = shares[(len(shares) - 1) // 2]
    if usual > gates.usual_share:
        return (
            f"{usual:.0%} of a usual class would have it: something else may lower the score of "
            f"the rest. {settle}"
        )
    return ""


def _join(histograms: Histograms, parts: list[_Part]) -> Presence:
    reasons = [reason for part in parts for reason in part.reason]
    return Presence(
        histograms=histograms,
        status=tuple(CueStatus.NOT_MEASURABLE if r else CueStatus.MEASURED for r in reasons),
        reason=tuple(reasons),
        posterior=np.concatenate([part.posterior for part in parts]),
        unconfirmed=np.concatenate([part.unconfirmed for part in parts]),
        threshold=np.concatenate([part.threshold for part in parts]),
        separation=np.concatenate([part.separation for part in parts]),
        gain=np.concatenate([part.gain for part in parts]),
    )


def _nothing(histograms: Histograms) -> Presence:
    cues, classes, _ = shape = histograms.counts.shape
    none = np.zeros((cues, classes))
    return Presence(
        histograms,
        (CueStatus.NOT_MEASURABLE,) * cues,
        ("no labelled images",) * cues,
        np.zeros(shape, np.float32),
        none > 0,
        none,
        np.full(cues, np.nan),
        np.full(cues, np.nan),
    )


def without(found: Presence, reasons: Mapping[int, str]) -> Presence:
    """Some cues (by place) not measurable after all, for reasons."""
    status, reason = list(found.status), list(found.reason)
    for cue, why in reasons.items():
        status[cue], reason[cue] = CueStatus.NOT_MEASURABLE, why
    return replace(found, status=tuple(status), reason=tuple(reason))


def _with_threshold(found: Presence, cue: int, threshold: float) -> Presence:
    """Presence of one cue as a plain cut; the bins have an edge there."""
    above = found.histograms.centres[cue] > threshold
    posterior, line = found.posterior.copy(), found.threshold.copy()
    unconfirmed, separation = found.unconfirmed.copy(), found.separation.copy()
    gain = found.gain.copy()
    posterior[cue], line[cue], unconfirmed[cue] = above[None], threshold, False
    separation[cue] = gain[cue] = np.nan
    status, reason = list(found.status), list(found.reason)
    status[cue], reason[cue] = CueStatus.THRESHOLD, ""
    return replace(
        found,
        status=tuple(status),
        reason=tuple(reason),
        posterior=posterior,
        unconfirmed=unconfirmed,
        threshold=line,
        separation=separation,
        gain=gain,
    )
