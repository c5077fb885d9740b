"""Which images have a cue, by two states of its score within classes or by the user's threshold.

A cue counts as measured only if its scores fall into two states *within* classes. Otherwise the
audit says that it cannot tell.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial

import numpy as np
from numpy.typing import NDArray

from pipeline.audit import mixture, one_state, shape_check
from pipeline.audit.histograms import Histograms, HistogramSums
from pipeline.audit.inference import Array
from pipeline.audit.mixture import Mixture
from pipeline.config.audit_settings import Gates
from pipeline.machine import cores, map_in_threads

_CHUNK = 25_000
"""Histogram cells that are fitted at once, few enough for a core's cache."""
_TINY = 1e-6
_SMALLER_STATE = 0.02  # share of images in it from which a class counts as showing both states


class CueStatus(StrEnum):
    """Whether the presence of a cue is known."""

    MEASURED = "measured"
    """Its scores have two states within classes."""
    THRESHOLD = "by threshold"
    """By a threshold that the user set or that was learned from labelled examples."""
    NOT_MEASURABLE = "not measurable"
    """The scores do not separate images with the cue from images without it."""


@dataclass(frozen=True)
class Presence:
    """Presence of C cues in K classes.

    Attributes:
        histograms: the scores it was derived from.
        status: (C,) whether presence is known, and how.
        reason: (C,) why a cue is not measurable; empty if it is.
        posterior: (C, K, B) probability that an image of a class with a score has the cue.
        unconfirmed: (C, K) classes in which all images seem to have the cue. A shift of the scores
            that the object itself causes would look the same.
        threshold: (C, K) score from which presence is likelier than absence.
        separation: (C,) distance of the states in standard deviations; NaN for thresholds.
        gain: (C,) log-likelihood gained over class means alone; NaN for thresholds.
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
        """(n,) probability that images have the cue, from their class codes and scores."""
        result: NDArray[np.float32] = self.posterior[cue, codes, self.histograms.bins(cue, scores)]
        return result


def measure(
    histograms: Histograms,
    gates: Gates,
    thresholds: Mapping[str, float],
    *,
    check_shape: bool = True,
) -> Presence:
    """Fit every cue and apply the gates.

    Args:
        thresholds: cue -> score from which it is present, instead of the fit.
        check_shape: whether two states must fit better than one with a long tail, or than classes
            of unequal spread; see `shape_check`.
    """
    cues, classes, bins = histograms.counts.shape
    if not cues or not classes:
        return _nothing(histograms)
    together = max(1, _CHUNK // max(1, classes * bins))
    chunks = [np.arange(i, min(i + together, cues)) for i in range(0, cues, together)]
    measured = partial(_measured, histograms, gates, check_shape)
    parts = list(map_in_threads(measured, chunks, cores()))
    presence = _join(histograms, parts)
    return with_thresholds(presence, thresholds)


def with_thresholds(presence: Presence, thresholds: Mapping[str, float]) -> Presence:
    """The same where some cues are present from a score on, which must be an edge of their bins."""
    for cue, threshold in thresholds.items():
        presence = _with_threshold(presence, presence.histograms.cues.index(cue), threshold)
    return presence


@dataclass(frozen=True)
class _Part:
    """The fields of `Presence` for some of the cues."""

    posterior: NDArray[np.float32]
    unconfirmed: NDArray[np.bool_]
    threshold: Array
    separation: Array
    gain: Array
    reason: list[str]


def _measured(
    histograms: Histograms, gates: Gates, check_shape: bool, chunk: NDArray[np.int64]
) -> _Part:
    """Fit the cues of one chunk, given by index."""
    data = HistogramSums.of(
        histograms.counts[chunk], histograms.centres[chunk], histograms.width[chunk]
    )
    fitted = mixture.fit(data)
    single = one_state.likelihoods(data, one_state.likeliest_sigma(data)).sum(axis=1)
    gain = mixture.class_likelihoods(data, fitted).sum(axis=1) - single
    placed, unconfirmed = _placed(data, fitted, gates)
    posterior = placed.present(data.centres).astype(np.float32)
    present = np.einsum("ckb,ckb->ck", data.counts, posterior)
    separation = fitted.distance / fitted.deviation
    reasons = [
        _reason(
            separation[c], gain[c], present[c], np.where(unconfirmed[c], 0, data.images[c]), gates
        )
        for c in range(len(chunk))
    ]
    for c in (c for c, reason in enumerate(reasons) if check_shape and not reason):
        if shape_check.gain_of_states(data, fitted, c) <= shape_check.LEAST_GAIN:
            reasons[c] = (
                "one state with a long tail, or classes of unequal spread, explain its scores as "
                f"well as two states do. {_remedy(gates)}"
            )
    return _Part(posterior, unconfirmed, placed.threshold, separation, gain, reasons)


def _placed(
    data: HistogramSums, fitted: Mixture, gates: Gates
) -> tuple[Mixture, NDArray[np.bool_]]:
    """Decide in which state a class with one state is, by comparing it with classes that show both.

    Within such a class, "all images with the cue and a low offset" fits as well as "no image with
    the cue and a high offset".

    Returns:
        The mixture with these classes decided, and (C, K) classes in which all images seem to have
        the cue.
    """
    share = fitted.present(data.centres)
    present = np.einsum("ckb,ckb->ck", data.counts, share)
    absent = data.images - present
    gain = mixture.class_likelihoods(data, fitted)
    gain = gain - one_state.likelihoods(data, fitted.sigma)
    least = np.maximum(1.0, _SMALLER_STATE * data.images)
    both = (gain > gates.gain) & (present >= least) & (absent >= least)
    usual = _median_where(fitted.offset, both & (data.images >= gates.images))[:, None]
    away = np.abs(data.mean - usual)
    sure = (absent >= gates.images) | (np.abs(fitted.offset - usual) <= away)
    has_one = ~((gain > gates.gain) & sure) & (data.images > 0)
    as_present = np.abs(data.mean - fitted.distance[:, None] - usual) < away
    full = has_one & as_present
    empty = has_one & ~as_present & (present > absent)
    shares = fitted.share.copy()
    shares[full], shares[empty] = [_TINY, _TINY, 1 - 2 * _TINY], [_TINY, 1 - 2 * _TINY, _TINY]
    offset = np.where(full, data.mean - fitted.distance[:, None], fitted.offset)
    offset = np.where(empty, data.mean, offset)
    return replace(fitted, offset=offset, share=shares), full


def _median_where(values: Array, chosen: NDArray[np.bool_]) -> Array:
    """(C,) median over the chosen classes; over all classes where none is chosen."""
    counted = chosen | ~chosen.any(axis=1, keepdims=True)
    return np.nanmedian(np.where(counted, values, np.nan), axis=1)


def _remedy(gates: Gates) -> str:
    return f"{gates.examples} labelled examples or a threshold would decide"


def _reason(separation: float, gain: float, present: Array, images: Array, gates: Gates) -> str:
    """Why a cue is not measurable; empty if it is. ``present`` and ``images`` are (K,)."""
    present = np.where(images > 0, present, 0)
    remedy = _remedy(gates)
    if separation < gates.separation or gain <= gates.gain:
        return (
            f"its scores show no two states within classes ({separation:.1f} sd apart, "
            f"{gates.separation:g} needed): it is in every image or in none, or the model does "
            f"not distinguish them. {remedy}"
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
            f"{usual:.0%} of a usual class would have it, so something else may lower the score "
            f"of the rest. {remedy}"
        )
    return ""


def _join(histograms: Histograms, parts: list[_Part]) -> Presence:
    """Presence of all cues from those of the chunks."""
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
    """Presence where there are no cues or no classes."""
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


def without(presence: Presence, reasons: Mapping[int, str]) -> Presence:
    """The same with some cues marked as not measurable: index of the cue -> reason."""
    status, reason = list(presence.status), list(presence.reason)
    for cue, why in reasons.items():
        status[cue], reason[cue] = CueStatus.NOT_MEASURABLE, why
    return replace(presence, status=tuple(status), reason=tuple(reason))


def _with_threshold(presence: Presence, cue: int, threshold: float) -> Presence:
    """Presence of one cue by a threshold, which is an edge of its bins."""
    above = presence.histograms.centres[cue] > threshold
    posterior, thresholds = presence.posterior.copy(), presence.threshold.copy()
    unconfirmed, separation = presence.unconfirmed.copy(), presence.separation.copy()
    gain = presence.gain.copy()
    posterior[cue], thresholds[cue], unconfirmed[cue] = above[None], threshold, False
    separation[cue] = gain[cue] = np.nan
    status, reason = list(presence.status), list(presence.reason)
    status[cue], reason[cue] = CueStatus.THRESHOLD, ""
    return replace(
        presence,
        status=tuple(status),
        reason=tuple(reason),
        posterior=posterior,
        unconfirmed=unconfirmed,
        threshold=thresholds,
        separation=separation,
        gain=gain,
    )
