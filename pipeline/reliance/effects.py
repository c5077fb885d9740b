"""Effects of deleting the cue on the probe's evidence for the class and on the model's margin.

**Probe**: ``phi = [P(c|y) - P(c|r)] * mean eps / gap``; where people's answers tell how often the
cue is there, all other classes take the place of r in the first factor. ``eps`` is what the probe's
logit of class y against its nearest rival r loses when the cue is deleted, beyond what it loses
when a region of the same shape is deleted elsewhere; ``gap`` is the held-out distance between the
two classes' mean logits. If the label is the cue, phi is 1; if the probe does not use the cue, 0.
One probe serves all images, so their effects are not independent: the intervals come from a
bootstrap that draws groups of images and fits the probe to each sample.

**Model**: the text margin ``m_y(x) = cos(x, t_y) - max over y' of cos(x, t_y')``. Classes with the
same text as y are no rivals, and neither are an image's other classes. The positive control is a
direction whose words name the cue, "a fish with a watermark" minus "a fish": where deletion does
not move even that, an unchanged margin proves nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm
from threadpoolctl import threadpool_limits

from pipeline.audit.inference import Z95, Array, ratio
from pipeline.reliance.edits import Deletion, Vectors
from pipeline.reliance.probe import FOLDS, GROUPS, ProbeSums, cross_fitted, groups

_SAME_TEXT = 0.999  # cosine from which two texts count as one


@dataclass(frozen=True)
class Contrast:
    """A class against its rival, and how edits of a cue changed n images.

    Attributes:
        cls, rival: codes of the classes.
        cue: index of the cue in `ProbeSums.cues`.
        ids: (n,) image_ids of the edited images.
        change: (n, E) changes of the embeddings.
        by_share: whether the effect is multiplied by the difference of the cue's shares (phi), or
            left as the mean effect on an image.
        share_gap: the difference of the shares in the class and in all others and its standard
            error, where people's answers tell it; None: the difference between class and rival is
            counted by the presence in `ProbeSums`.
    """

    cls: int
    rival: int
    cue: int
    ids: Sequence[str]
    change: Vectors
    by_share: bool = True
    share_gap: tuple[float, float] | None = None


@dataclass(frozen=True)
class EvidenceShares:
    """Share of the probe's evidence for each of P contrasts.

    Attributes:
        effect: (P,) on all groups.
        resampled: (R, P) on resampled groups, with the probe fitted anew.
    """

    effect: Array
    resampled: Array

    def bounds(self) -> tuple[Array, Array]:
        """(P,) lower and upper 95 % bounds: percentiles of the resamples."""
        bounds = np.full((2, *self.effect.shape), np.nan)
        finite = self._finite
        if finite.any():
            bounds[:, finite] = np.nanquantile(self.resampled[:, finite], [0.025, 0.975], axis=0)
        return bounds[0], bounds[1]

    def errors(self) -> Array:
        """(P,) standard errors."""
        errors = np.full(self.effect.shape, np.nan)
        finite = self._finite
        if finite.any():
            errors[finite] = np.nanstd(self.resampled[:, finite], axis=0)
        return errors

    @property
    def _finite(self) -> NDArray[np.bool_]:
        """(P,) contrasts with a value in at least one resample."""
        return np.asarray(np.isfinite(self.resampled).any(axis=0), dtype=bool)


def evidence_shares(
    sums: ProbeSums, contrasts: Sequence[Contrast], ridge: float, resamples: int, seed: int
) -> EvidenceShares:
    """Share of the gap between class and rival that each change accounts for.

    Uses one BLAS thread: the matrices are small, and on a busy machine threads that wait for each
    other made this a hundred times slower.

    Args:
        ridge: see `probe.fit`.
        resamples: number of bootstrap resamples.
        seed: random seed of the bootstrap.
    """
    grouped = [_GroupedChanges.of(contrast) for contrast in contrasts]
    rng = np.random.default_rng(seed)
    parts = [np.zeros((0, len(grouped)))]
    with threadpool_limits(limits=1, user_api="blas"):
        effect = _effects(sums, grouped, np.ones(GROUPS), ridge)
        for _ in range(resamples if grouped else 0):
            weights = rng.multinomial(GROUPS, np.full(GROUPS, 1 / GROUPS)).astype(np.float64)
            parts.append(_effects(sums, grouped, weights, ridge)[None])
    resampled = np.concatenate(parts)
    for column, contrast in enumerate(contrasts):
        if contrast.share_gap is not None:  # the answers are another sample than the images
            gap, error = contrast.share_gap
            effect[column] *= gap
            resampled[:, column] *= rng.normal(gap, error, len(resampled))
    return EvidenceShares(effect, resampled)


@dataclass(frozen=True)
class _GroupedChanges:
    """Changes of a contrast summed by group, which is all that a resample needs."""

    contrast: Contrast
    images: Array  # (G,)
    changes: Array  # (G, E)

    @classmethod
    def of(cls, contrast: Contrast) -> "_GroupedChanges":
        changes = np.zeros((GROUPS, contrast.change.shape[1]))
        group = groups(list(contrast.ids)) if len(contrast.ids) else np.zeros(0, np.int64)
        np.add.at(changes, group, contrast.change)
        return cls(contrast, np.bincount(group, minlength=GROUPS).astype(float), changes)


def _effects(
    sums: ProbeSums, grouped: Sequence[_GroupedChanges], weights: Array, ridge: float
) -> Array:
    """(P,) shares for weighted groups; NaN where no image was edited or the probe cannot tell."""
    if not grouped:
        return np.zeros(0)
    cls = np.array([changes.contrast.cls for changes in grouped])
    rival = np.array([changes.contrast.rival for changes in grouped])
    lost, edited = np.zeros(len(grouped)), np.zeros(len(grouped))
    gap, tested = np.zeros(len(grouped)), np.zeros(len(grouped))
    for fold, probe in enumerate(cross_fitted(sums, weights, ridge)):
        held_out = np.flatnonzero(np.arange(GROUPS) % FOLDS == fold)
        lines = probe.direction(cls, rival)
        images = weights[held_out] @ sums.images[held_out]
        totals = np.tensordot(weights[held_out], sums.sums[held_out], axes=1)
        means = totals / np.maximum(images, 1)[:, None]
        both = (images[cls] > 0) & (images[rival] > 0)
        gap += np.where(both, np.einsum("pe,pe->p", lines, means[cls] - means[rival]), 0.0)
        tested += both
        for row, changes in enumerate(grouped):
            lost[row] += lines[row] @ (weights[held_out] @ changes.changes[held_out])
            edited[row] += weights[held_out] @ changes.images[held_out]
    mean_loss, distance = ratio(lost, edited), ratio(gap, tested)
    apart = np.where(distance > 0, distance, np.nan)
    return mean_loss / apart * _share_gap(sums, grouped, weights)


def _share_gap(sums: ProbeSums, grouped: Sequence[_GroupedChanges], weights: Array) -> Array:
    """(P,) P(c|y) - P(c|r) by presence, or 1 for contrasts that are not multiplied by it."""
    images = weights @ sums.images
    present = np.tensordot(weights, sums.present, axes=1)
    share = present / np.maximum(images, 1)
    return np.array(
        [
            share[c.cue, c.cls] - share[c.cue, c.rival]
            if c.by_share and c.share_gap is None
            else 1.0
            for c in (changes.contrast for changes in grouped)
        ]
    )


@dataclass(frozen=True)
class MarginChange:
    """How much deletion lowers a value, in its standard deviation over the unchanged images.

    Attributes:
        effect, low, high: mean over images and its 95 % interval.
        p: one-sided p-value of no fall.
        by_fill: mean for each fill.
    """

    effect: float
    low: float
    high: float
    p: float
    by_fill: tuple[float, ...]

    @property
    def agree(self) -> bool:
        """Whether the effects of all fills have the same sign."""
        return len({np.sign(value) for value in self.by_fill}) == 1


def margin_change(
    deletion: Deletion, texts: Vectors, index: int, also: NDArray[np.bool_] | None = None
) -> MarginChange:
    """Fall of the text margin of a class.

    Args:
        deletion: effect of deleting the cue from images of the class.
        texts: (K', E) unit directions of the class queries.
        index: index of the class's query among them.
        also: (n, K') whether an image is in another class with this text; default in none. Images
            for which no rival is left are left out.
    """
    own = texts[index]
    distinct = (texts @ own) < _SAME_TEXT
    others = texts[distinct]
    count = len(deletion.ids)
    hidden = np.zeros((count, len(others)), bool) if also is None else also[:, distinct]
    if len(others):
        compared = np.asarray(~hidden.all(axis=1), dtype=bool)
        deletion, hidden = deletion.take(compared), hidden[compared]

    def margin(vectors: Vectors) -> Array:
        similar = np.where(hidden, -np.inf, vectors @ others.T)
        best = similar.max(axis=-1) if len(others) else 0.0
        result: Array = (vectors @ own - best).astype(np.float64)
        return result

    return _change(margin(deletion.before), margin(deletion.control) - margin(deletion.without))


def direction_change(deletion: Deletion, direction: Vectors) -> MarginChange:
    """Fall along one direction (E,)."""
    return _change(
        (deletion.before @ direction).astype(np.float64),
        (deletion.change @ direction).astype(np.float64),
    )


def _change(before: Array, lost: Array) -> MarginChange:
    """The change from values (n,) before deletion and their losses (F, n)."""
    count = lost.shape[1]
    spread = float(before.std(ddof=1)) if count > 1 else 0.0
    if spread <= 0:
        return MarginChange(np.nan, np.nan, np.nan, np.nan, ())
    scaled = lost / spread
    mean = scaled.mean(axis=0)
    effect, error = float(mean.mean()), float(mean.std(ddof=1)) / np.sqrt(count)
    p = float(norm.sf(effect / error)) if error > 0 else float(effect <= 0)
    by_fill = tuple(float(value) for value in scaled.mean(axis=1))
    return MarginChange(effect, effect - Z95 * error, effect + Z95 * error, p, by_fill)
