"""Probability of presence, learned from labels, with the cue's text as prior.

The logit of an image of group g is ``a_g + b s + x . w``: ``s`` is the score of the cue's text
within its class, ``x`` the image's embedding, so that the classifier's direction is the text's plus
a correction, ``b t + w`` (LP++, Huang et al. 2024, arXiv 2404.02285). Normal priors hold ``b`` near
the text's usual worth and ``w`` near zero; how far ``w`` may go is chosen by the evidence of the
labels (Laplace approximation, MacKay 1992). The mode is found by Newton's method, in the span of
the labelled images, so that 512 dimensions and 50 labels cost a 50 x 50 system.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from pipeline.audit.inference import Array

FOLDS = 5
_SLOPE, _SLOPE_SPREAD = 1.5, 1.0  # of the logit, for each deviation of the score within classes
_START, _START_SPREAD = -2.0, 2.0  # logit of a group's share: about .12, .003 to .88
_CORRECTIONS = (0.0, 0.5, 1.5, 4.0)  # prior deviation of x . w over images, in logits
_STEPS = 30
_SETTLED = 1e-6


@dataclass(frozen=True)
class Predictor:
    """A fitted predictor.

    Attributes:
        start: (G,) intercept of each group.
        slope: slope of the logit in the score.
        direction: (E,) correction in the space of centred embeddings; empty without embeddings.
        centre: (E,) mean embedding of the labelled images.
        evidence: log of the marginal likelihood of the labels.
    """

    start: Array
    slope: float
    direction: Array
    centre: Array
    evidence: float

    def probability(
        self, scores: Array, groups: NDArray[np.int64], embeddings: NDArray[np.floating] | None
    ) -> Array:
        """(n,) probability of presence.

        Args:
            scores: (n,) within classes, as it was fitted.
            groups: (n,) group of each image.
            embeddings: (n, E); None where it was fitted without.
        """
        logit = self.start[groups] + self.slope * scores
        if embeddings is not None and self.direction.any():
            logit = logit + embeddings @ self.direction - self.centre @ self.direction
        result: Array = expit(logit)
        return result


def fit_predictor(
    present: Array,
    scores: Array,
    groups: NDArray[np.int64],
    count: int,
    embeddings: NDArray[np.floating] | None = None,
) -> Predictor:
    """Fit to labels.

    Args:
        present: (n,) share of people who see the cue, 0 to 1; n may be 0.
        scores: (n,) of the cue's text within classes, in deviations.
        groups: (n,) group of each label.
        count: number of groups.
        embeddings: (n, E) of the images; None: the score alone.
    """
    columns = np.zeros((len(present), count + 1))
    columns[np.arange(len(present)), groups] = _START_SPREAD
    columns[:, count] = scores * _SLOPE_SPREAD
    offset = _START + _SLOPE * scores
    width = 0 if embeddings is None else embeddings.shape[1]
    centre = np.zeros(width)
    centred = np.zeros((len(present), width))
    if embeddings is not None and len(present):
        centre = embeddings.mean(axis=0, dtype=np.float64)
        centred = embeddings - centre
    spread = np.sqrt((centred**2).sum(axis=1).mean()) if centred.size else 0.0
    best: Predictor | None = None
    for correction in _CORRECTIONS if spread > 0 else (0.0,):
        scale = correction / spread if spread > 0 else 0.0
        features = np.hstack([columns, centred * scale]) if scale else columns
        weights, evidence = _mode(features, offset, present)
        if best is None or evidence > best.evidence:
            direction = weights[count + 1 :] * scale if scale else np.zeros(width)
            best = Predictor(
                start=_START + weights[:count] * _START_SPREAD,
                slope=max(_SLOPE + float(weights[count]) * _SLOPE_SPREAD, 0.0),
                direction=direction,
                centre=centre,
                evidence=evidence,
            )
    assert best is not None
    return best


def cross_fit(
    present: Array,
    scores: Array,
    groups: NDArray[np.int64],
    folds: NDArray[np.int64],
    count: int,
    embeddings: NDArray[np.floating] | None = None,
) -> tuple[list[Predictor], Array]:
    """Predictors that each left out a fold, and (n,) predictions of the labels left out.

    Args:
        folds: (n,) fold of each label, 0 to `FOLDS` - 1; -1: in no estimate (somebody picked the
            image), so that every predictor may learn from it.
    """
    predictors = []
    predicted = np.full(len(present), np.nan)
    for fold in range(FOLDS):
        seen, out = folds != fold, folds == fold
        inputs = None if embeddings is None else embeddings[seen]
        predictor = fit_predictor(present[seen], scores[seen], groups[seen], count, inputs)
        rest = None if embeddings is None else embeddings[out]
        predicted[out] = predictor.probability(scores[out], groups[out], rest)
        predictors.append(predictor)
    return predictors, predicted


def _mode(features: Array, offset: Array, present: Array) -> tuple[Array, float]:
    """Weights (D,) of standard normal priors at the mode, and the log evidence."""
    dimensions = features.shape[1]
    basis = None
    if len(features) < dimensions:  # the weights lie in the span of the rows
        reduced, triangle = np.linalg.qr(features.T)
        features, basis = triangle.T, reduced
    weights = np.zeros(features.shape[1])
    identity = np.eye(features.shape[1])
    objective, curvature = -np.inf, identity
    step = weights
    for _ in range(_STEPS):
        logits = offset + features @ weights
        value = float(present @ logits - np.logaddexp(0, logits).sum() - 0.5 * weights @ weights)
        if value < objective - _SETTLED:  # too long a step
            step = step / 2
            weights = weights - step
            continue
        gained, objective = value - objective, value
        chance = expit(logits)
        curvature = identity + (features.T * (chance * (1 - chance))) @ features
        if gained < _SETTLED:
            break
        step = np.linalg.solve(curvature, features.T @ (present - chance) - weights)
        weights = weights + step
    evidence = objective - 0.5 * float(np.linalg.slogdet(curvature)[1])
    return (weights if basis is None else basis @ weights), evidence
