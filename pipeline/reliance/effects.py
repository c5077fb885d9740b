"""Claim C': how much of a probe's evidence for a class is the cue, with a bootstrap that refits.

``phi = [P(c|y) - P(c|r)] * mean eps / gap``: ``eps`` is what the probe's logit (class y against its
nearest rival r) loses when the cue is deleted, more than when a region of its shape is deleted
elsewhere; ``gap`` is the held-out distance of the two classes' mean logits. If the label is the
cue, phi is 1; if the probe looks elsewhere, 0. One probe serves all images, so that their effects
are not independent: intervals come from drawing groups of images again, fitting anew each time.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from pipeline.audit.inference import Array
from pipeline.reliance.edited import Vectors
from pipeline.reliance.probe import cross_fitted
from pipeline.reliance.probe_statistics import FOLDS, GROUPS, ProbeSums, groups


@dataclass(frozen=True)
class Contrast:
    """A class against its rival, and changes of images by the presence of a cue.

    Attributes:
        cls, rival: places of the classes.
        cue: place of the cue in `ProbeSums.cues`.
        ids: (n,) of the edited images.
        change: (n, E) of the embeddings.
        by_share: whether the change counts by the difference of the cue's shares (phi), or as it
            is (a single image's).
    """

    cls: int
    rival: int
    cue: int
    ids: Sequence[str]
    change: Vectors
    by_share: bool = True


@dataclass(frozen=True)
class Shares:
    """Share of the gap for each of P contrasts.

    Attributes:
        effect: (P,) on the data as they are.
        drawn: (R, P) on groups drawn again, probe and all.
    """

    effect: Array
    drawn: Array

    def bounds(self) -> tuple[Array, Array]:
        """(P,) lower and upper 95 % bound: the percentiles of what was drawn."""
        bounds = np.full((2, *self.effect.shape), np.nan)
        known = self._known
        if known.any():
            bounds[:, known] = np.nanquantile(self.drawn[:, known], [0.025, 0.975], axis=0)
        return bounds[0], bounds[1]

    def errors(self) -> Array:
        """(P,) standard errors."""
        errors = np.full(self.effect.shape, np.nan)
        if self._known.any():
            errors[self._known] = np.nanstd(self.drawn[:, self._known], axis=0)
        return errors

    @property
    def _known(self) -> NDArray[np.bool_]:
        """(P,) contrasts that some draw gave a value for."""
        return np.asarray(np.isfinite(self.drawn).any(axis=0), dtype=bool)


def shares(
    sums: ProbeSums, contrasts: Sequence[Contrast], ridge: float, resamples: int, seed: int
) -> Shares:
    """Share of the gap between class and rival that each change accounts for.

    One BLAS thread: the matrices are small, and threads that wait for each other on a busy machine
    made this a hundred times slower.
    """
    with threadpool_limits(limits=1, user_api="blas"):
        return _drawn(sums, contrasts, ridge, resamples, seed)


def _drawn(
    sums: ProbeSums, contrasts: Sequence[Contrast], ridge: float, resamples: int, seed: int
) -> Shares:
    prepared = [_Prepared.of(contrast) for contrast in contrasts]
    rng = np.random.default_rng(seed)
    every = np.ones(GROUPS)
    effect = _once(sums, prepared, every, ridge)
    again = [np.zeros((0, len(prepared)))]
    for _ in range(resamples if prepared else 0):
        weights = rng.multinomial(GROUPS, np.full(GROUPS, 1 / GROUPS)).astype(np.float64)
        again.append(_once(sums, prepared, weights, ridge)[None])
    return Shares(effect, np.concatenate(again))


@dataclass(frozen=True)
class _Prepared:
    """Changes summed by group, which is all that a resample needs."""

    contrast: Contrast
    images: Array  # (G,)
    changes: Array  # (G, E)

    @classmethod
    def of(cls, contrast: Contrast) -> "_Prepared":
        changes = np.zeros((GROUPS, contrast.change.shape[1]))
        place: NDArray[np.int64] = (
            groups(list(contrast.ids)) if len(contrast.ids) else np.zeros(0, int)
        )
        np.add.at(changes, place, contrast.change)
        return cls(contrast, np.bincount(place, minlength=GROUPS).astype(float), changes)


def _once(sums: ProbeSums, prepared: Sequence[_Prepared], weights: Array, ridge: float) -> Array:
    """(P,) NaN where nothing was edited, or the probe does not tell the classes apart."""
    if not prepared:
        return np.zeros(0)
    own = np.array([one.contrast.cls for one in prepared])
    other = np.array([one.contrast.rival for one in prepared])
    lost, edited = np.zeros(len(prepared)), np.zeros(len(prepared))
    gap, tested = np.zeros(len(prepared)), np.zeros(len(prepared))
    for fold, probe in enumerate(cross_fitted(sums, weights, ridge)):
        mine = np.flatnonzero(np.arange(GROUPS) % FOLDS == fold)
        lines = probe.direction(own, other)
        images = weights[mine] @ sums.images[mine]
        totals = np.tensordot(weights[mine], sums.sums[mine], axes=1)
        means = totals / np.maximum(images, 1)[:, None]
        both = (images[own] > 0) & (images[other] > 0)
        gap += np.where(both, np.einsum("pe,pe->p", lines, means[own] - means[other]), 0.0)
        tested += both
        for place, one in enumerate(prepared):
            lost[place] += lines[place] @ (weights[mine] @ one.changes[mine])
            edited[place] += weights[mine] @ one.images[mine]
    mean, distance = _ratio(lost, edited), _ratio(gap, tested)
    apart = np.where(distance > 0, distance, np.nan)
    return mean / apart * _share_gap(sums, prepared, weights)


def _share_gap(sums: ProbeSums, prepared: Sequence[_Prepared], weights: Array) -> Array:
    """(P,) P(c|y) - P(c|r); 1 where it does not count."""
    images = weights @ sums.images
    present = np.tensordot(weights, sums.present, axes=1)
    share = present / np.maximum(images, 1)
    return np.array(
        [
            share[c.cue, c.cls] - share[c.cue, c.rival] if c.by_share else 1.0
            for c in (one.contrast for one in prepared)
        ]
    )


def _ratio(part: Array, whole: Array) -> Array:
    return np.where(whole > 0, part / np.where(whole > 0, whole, 1), np.nan)
