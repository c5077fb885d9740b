"""Two scans for words that no query names, on sums over the images of one half.

*Shift*: how far the class's mean score of a word lies beyond what likeness to the class explains,
in deviations of the vocabulary (`pipeline.audit.suspicion`): what comes with the class. *Probe*:
what a linear model that is trained on the labels would look at. With weights w_y of a discriminant
for class y, the score of a word t is ``w_y . t - min_y' w_y' . t`` (BEE, arXiv 2410.18970).

The minimum is that of the class which the word speaks against the most. With many classes it hides
the rest, so words are ordered by the same residual as for the shift, which takes out the median
over classes.

Neither is a claim. Both find other names of the class as well, so these are left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.audit.inference import Array
from pipeline.audit.suspicion import TextFigures, class_shifts, likeness, suspect
from pipeline.audit.suspicion_scan import EmbeddingSums
from pipeline.reliance.probe import from_moments

ECHO = 0.8
"""Correlation of two words' scores within classes from which they count as one word."""
NAMES = 0.7
"""Cosine of a word's and a class's text, less the vocabulary's mean, from which it is a name."""
NEARLY = 0.7
"""Share of the first word's effect from which a preferred word of a group names the group."""


@dataclass(frozen=True)
class Scan:
    """What sets each class apart, by K classes and W words.

    Attributes:
        shift: (K, W) effect of the shift; NaN for a class without images.
        probe: (K, W) effect of the probe.
        probe_score: (K, W) BEE's score, 0 for the class that the word speaks against the most.
        alike: (K, W) cosine of the class's text and the word, the vocabulary's mean taken out of
            both; NaN for a class without a text.
    """

    shift: Array
    probe: Array
    probe_score: Array
    alike: Array


def scan(sums: EmbeddingSums, class_texts: Array, words: Array, ridge: float) -> Scan:
    """Both scans.

    Args:
        class_texts: (K, E) NaN for a class without a text.
        words: (W, E) unit directions.
        ridge: ridge of the probe, see `pipeline.reliance.probe.fit`.
    """
    centre = words.mean(axis=0)
    alike = likeness(class_texts - centre, words - centre)
    usable = sums.images > 0
    shift = class_shifts(sums.images, sums.means, sums.covariance, words, sums.every)
    weights, _ = from_moments(sums.images, sums.means, sums.covariance, ridge).classifier()
    along = np.where(usable[:, None], weights @ words.T, np.nan)
    usual = _usual(alike)
    return Scan(
        _effect(shift, alike - usual),
        _effect(along, alike - usual),
        along - np.nanmin(along, axis=0),
        alike,
    )


def _effect(values: Array, alike: Array) -> Array:
    """(K, W) effect of values among the words, whose variances are not looked at."""
    figures = TextFigures(values, np.full_like(values, np.nan), alike)
    return suspect(figures, figures).effect


def _usual(alike: Array) -> Array:
    """(W,) median likeness of each word over the classes that have a text."""
    texts = ~np.isnan(alike).any(axis=1)
    return np.median(alike[texts], axis=0) if texts.any() else np.zeros(alike.shape[1])


@dataclass(frozen=True)
class Likenesses:
    """Which words tell images apart in the same way: correlations of their scores within classes.

    Attributes:
        scaled: (W, E) words, scaled to a deviation of 1.
        through: (W, E) the same times the covariance.
    """

    scaled: Array
    through: Array

    @classmethod
    def of(cls, words: Array, covariance: Array) -> "Likenesses":
        """Scale words (W, E) by the covariance (E, E) of the embeddings within classes."""
        through = words @ covariance
        spread = np.sqrt(np.maximum(np.einsum("we,we->w", through, words), 1e-24))[:, None]
        return cls(words / spread, through / spread)

    def between(self, one: int, others: NDArray[np.int64] | Sequence[int]) -> Array:
        """Correlations of a word with others, by index."""
        result: Array = self.scaled[np.asarray(others, np.int64)] @ self.through[one]
        return result

    def with_any(self, directions: Array, covariance: Array) -> Array:
        """(W,) largest correlation of each word with some directions (D, E)."""
        if not len(directions):
            return np.zeros(len(self.scaled))
        other = Likenesses.of(directions, covariance)
        result: Array = (self.through @ other.scaled.T).max(axis=1)
        return result


@dataclass(frozen=True)
class Leader:
    """A word of a shortlist.

    Attributes:
        word: index.
        also: indices of words that tell images apart as it does and come later in the order.
    """

    word: int
    also: tuple[int, ...]


def leaders(
    values: Array,
    left_out: NDArray[np.bool_],
    alike: Likenesses,
    most: int,
    preferred: NDArray[np.bool_],
) -> list[Leader]:
    """The first words of a class, each standing for the words that echo it.

    A model that does not distinguish some words may put any of them first, so a group is named
    after its first preferred word if that is nearly as strong.

    Args:
        values: (W,) by which words are ordered, the largest first; NaN is left out.
        left_out: (W,) words that cannot be among them.
        most: number of leaders.
        preferred: (W,) words that a group is named after rather than others.
    """
    groups: dict[int, list[int]] = {}
    order = np.argsort(-np.nan_to_num(values, nan=-np.inf), kind="stable")
    for word in order.tolist():
        if left_out[word] or not values[word] > 0:
            continue
        heads = list(groups)
        echoes = np.flatnonzero(alike.between(word, heads) > ECHO)
        if len(echoes):
            groups[heads[int(echoes[0])]].append(word)
        elif len(groups) == most:
            break
        else:
            groups[word] = []
    listed = []
    for first, also in groups.items():
        near = [word for word in also if values[word] >= NEARLY * values[first]]
        word = next((word for word in (first, *near) if preferred[word]), first)
        listed.append(Leader(word, tuple(other for other in (first, *also) if other != word)))
    return listed
