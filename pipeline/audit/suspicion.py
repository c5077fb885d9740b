"""Which pairs to look at first: an effect and a rank for every class and cue, and never a flag.

A cue that comes with a class raises the class's mean score of the cue's text, and a mean over a
class does not mind that single images overlap. But so does every text that resembles the class: a
class of birds scores high for "feather". How much so is learned from a vocabulary of ordinary
words. For class y and word w the shift of the class's mean score, in deviations within classes, is

    shift(y, w) = (mean_y - mean_rest) . w / sqrt(w' S w),

with S the covariance of embeddings within classes. A word that objects of all kinds move is
discounted: its median over classes is taken out, and it is divided by its spread over classes.
Then a straight line on cos(w, text_y), fitted robustly over the vocabulary, takes out what
likeness explains. What is left is taken in units of the vocabulary's deviation about that line.

A model also shifts whole classes for no reason that likeness explains, and then the mean says
little. But a cue that some images of a class have and others lack makes the class's scores of its
text wider, wherever their mean lies: images with and without it lie d deviations apart, which adds
p (1 - p) d^2 to the variance. So the logarithm of the variance within the class, minus that of the
usual class, again in deviations of the vocabulary's words in this class, is added where it is
positive: a cue that all images of a class have narrows its scores. The sum in deviations of the
vocabulary's sums is the effect: how unusual a cue is for this class among words (an empirical
null, Efron 2004), not whether it is there.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.audit.inference import Array

FEWEST_CLASSES = 5
"""Classes from which a word's own spread over classes is taken into account."""
FEWEST_WORDS = 20
"""Words that the null needs."""
_PRIOR_SPREAD = 0.3  # of the median word's, added to each word's spread over classes
_HUBER, _FITS = 1.5, 10  # residuals beyond so many deviations count less; refits
_TO_DEVIATION = 1.4826  # of a median absolute deviation


@dataclass(frozen=True)
class Suspicion:
    """Every class and cue, arrays (K, C).

    Attributes:
        effect: shift of the cue in the class beyond what its likeness explains, together with the
            excess of its variance, in deviations of the vocabulary's; NaN for a class without
            images or others to compare it with.
        rank: place of the cue among the cues of its class, 1 the most unusual; 0 without an effect.
        shift: the class's mean score minus the others', in deviations within classes.
    """

    effect: Array
    rank: Array
    shift: Array


def class_shifts(
    images: Array,
    means: Array,
    covariance: Array,
    texts: Array,
    every: tuple[int, Array] | None = None,
) -> Array:
    """(K, T) shift of each class's mean score of each text, in deviations within classes.

    Args:
        images: (K,) images of each class.
        means: (K, E) mean embedding of each.
        covariance: (E, E) of the embeddings about their class means.
        texts: (T, E) text features; their length does not matter.
        every: number of all images and (E,) sum of their embeddings; default the sums over the
            classes.

    Returns:
        NaN for a class without images, or if no other class has any.
    """
    count, total = (images.sum(), images @ means) if every is None else every
    rest = count - images
    usable = (images > 0) & (rest > 0)
    others = (total - images[:, None] * means) / np.maximum(rest, 1)[:, None]
    variance = np.einsum("te,te->t", texts @ covariance, texts)
    shifts = (means - others) @ texts.T / np.sqrt(np.maximum(variance, 1e-24))
    return np.where(usable[:, None], shifts, np.nan)


def likeness(class_texts: Array, texts: Array) -> Array:
    """(K, T) cosine of class texts (K, E) and other texts (T, E)."""
    classes, others = (
        rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
        for rows in (class_texts, texts)
    )
    result: Array = classes @ others.T
    return result


@dataclass(frozen=True)
class TextFigures:
    """What K classes show of T texts, arrays (K, T).

    Attributes:
        shift: see `class_shifts`.
        spread: logarithm of the variance of the scores within the class; NaN where unknown.
        alike: cosine of the class's text and the text; NaN for a class without a text.
    """

    shift: Array
    spread: Array
    alike: Array


def suspect(cues: TextFigures, words: TextFigures) -> Suspicion:
    """Effects and ranks of all pairs of K classes and C cues.

    Args:
        cues: figures of the cues.
        words: figures of the words of the vocabulary.

    Raises:
        ValueError: too small a vocabulary.
    """
    count = words.shift.shape[1]
    if count < FEWEST_WORDS:
        raise ValueError(f"suspect: {count} words, at least {FEWEST_WORDS} needed for a null")
    usable: NDArray[np.bool_] = np.all(np.isfinite(words.shift), axis=1)
    shifts, word_shifts = _scaled_shifts(cues.shift, words.shift, usable)
    spreads = _centred_spreads(np.concatenate([cues.spread, words.spread], axis=1))
    effect = np.full(cues.shift.shape, np.nan)
    for row in np.flatnonzero(usable):
        alike, words_alike = cues.alike[row], words.alike[row]
        if np.isnan(alike).any() or np.isnan(words_alike).any():
            alike, words_alike = np.zeros_like(alike), np.zeros_like(words_alike)
        start, slope, deviation = _robust_line(words_alike, word_shifts[row])
        null = (word_shifts[row] - start - slope * words_alike) / max(deviation, 1e-12)
        mine = (shifts[row] - start - slope * alike) / max(deviation, 1e-12)
        wider = np.maximum(_in_deviations(spreads[row], spreads[row, -count:]), 0)
        effect[row] = _in_deviations(mine + wider[:-count], null + wider[-count:])
    order = np.argsort(np.argsort(-effect, axis=1, kind="stable"), axis=1) + 1
    rank = np.where(np.isnan(effect), 0, order).astype(float)
    return Suspicion(effect, rank, cues.shift)


def _scaled_shifts(cues: Array, words: Array, usable: NDArray[np.bool_]) -> tuple[Array, Array]:
    """Shifts without what a text does in all classes: its median, and its spread over classes."""
    if usable.sum() < FEWEST_CLASSES:
        return cues, words
    every = np.concatenate([cues, words], axis=1)
    centre = np.median(every[usable], axis=0)
    spread = _spread(every[usable] - centre)
    usual = np.median(spread[-words.shape[1] :])
    scaled = (every - centre) / (spread + _PRIOR_SPREAD * usual + 1e-12)
    return scaled[:, : cues.shape[1]], scaled[:, cues.shape[1] :]


def _centred_spreads(spreads: Array) -> Array:
    """Spreads minus each text's median over classes; 0 for classes where they are unknown."""
    known: NDArray[np.bool_] = np.all(np.isfinite(spreads), axis=1)
    if not known.any():
        return np.zeros_like(spreads)
    return np.where(known[:, None], spreads - np.median(spreads[known], axis=0), 0)


def _in_deviations(values: Array, null: Array) -> Array:
    """Values (C,) relative to the median and the robust deviation of a null (W,)."""
    centre = np.median(null)
    deviation = _TO_DEVIATION * float(np.median(np.abs(null - centre)))
    result: Array = (values - centre) / deviation if deviation > 0 else np.zeros_like(values)
    return result


def _spread(values: Array) -> Array:
    """(T,) robust deviation over the rows of values about zero."""
    result: Array = _TO_DEVIATION * np.median(np.abs(values), axis=0)
    return result


def _robust_line(x: Array, y: Array) -> tuple[float, float, float]:
    """Intercept, slope and robust deviation of y about the line (Huber 1964)."""
    design = np.column_stack([np.ones(len(x)), x - x.mean()])
    weights, start, slope, deviation = np.ones(len(x)), 0.0, 0.0, 0.0
    for _ in range(_FITS):
        root = np.sqrt(weights)
        start, slope = np.linalg.lstsq(design * root[:, None], y * root, rcond=None)[0]
        residual = y - design @ np.array([start, slope])
        deviation = _TO_DEVIATION * float(np.median(np.abs(residual - np.median(residual))))
        weights = np.minimum(1, _HUBER * deviation / np.maximum(np.abs(residual), 1e-12))
        if deviation == 0:
            break
    return float(start - slope * x.mean()), float(slope), deviation
