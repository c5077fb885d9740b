"""Which pairs to look at first: an effect and a rank for every class and cue, and never a flag.

A cue that comes with a class raises the class's mean score of the cue's text, and a mean over a
class does not mind that single images overlap. But so does every text that resembles the class: a
class of birds scores high for "feather". How much so is learned from a vocabulary of ordinary
words. For class y and word w the shift of the class's mean score, in deviations within classes, is

    shift(y, w) = (mean_y - mean_rest) . w / sqrt(w' S w),

with S the covariance of embeddings within classes. A word that objects of all kinds move is
discounted: its median over classes is taken out, and it is divided by its spread over classes.
Then a straight line on cos(w, text_y), fitted robustly over the vocabulary, takes out what
likeness explains. What is left, in units of the vocabulary's spread about that line, is the effect:
how unusual a cue is for this class among words (an empirical null, Efron 2004), not whether it is
there.
"""

from dataclasses import dataclass

import numpy as np

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
        effect: shift of the cue in the class beyond what its likeness explains, in deviations of
            the vocabulary's; NaN for a class without images or others to compare it with.
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


def score_shifts(images: Array, sums: Array, squares: Array) -> Array:
    """(K, T) the same from stored scores, for runs without embeddings.

    Args:
        images: (K,) images of each class.
        sums, squares: (K, T) sums of their scores and of the squares.
    """
    rest = images.sum() - images
    mean = sums / np.maximum(images, 1)[:, None]
    others = (sums.sum(axis=0) - sums) / np.maximum(rest, 1)[:, None]
    within = (squares - images[:, None] * mean**2).sum(axis=0)
    variance = within / max(images.sum() - (images > 0).sum(), 1)
    usable = (images > 0) & (rest > 0)
    return np.where(usable[:, None], (mean - others) / np.sqrt(np.maximum(variance, 1e-24)), np.nan)


def likeness(class_texts: Array, texts: Array) -> Array:
    """(K, T) cosine of class texts (K, E) and other texts (T, E)."""
    classes, others = (
        rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
        for rows in (class_texts, texts)
    )
    result: Array = classes @ others.T
    return result


def suspect(shift: Array, alike: Array, words: Array, words_alike: Array) -> Suspicion:
    """Effects and ranks of all pairs.

    Args:
        shift: (K, C) of the cues, see `class_shifts`.
        alike: (K, C) cosine of class texts and cues; NaN for a class without a text.
        words: (K, W) shifts of the vocabulary.
        words_alike: (K, W) cosine of class texts and words.

    Raises:
        ValueError: too small a vocabulary.
    """
    count = words.shape[1]
    if count < FEWEST_WORDS:
        raise ValueError(f"suspect: {count} words, at least {FEWEST_WORDS} needed for a null")
    usable = ~np.isnan(words).any(axis=1)
    if usable.sum() >= FEWEST_CLASSES:
        every = np.concatenate([shift, words], axis=1)
        centre = np.median(every[usable], axis=0)
        spread = _spread(every[usable] - centre)
        scaled = (every - centre) / (spread + _PRIOR_SPREAD * np.median(spread[-count:]) + 1e-12)
        cues, null = scaled[:, : shift.shape[1]], scaled[:, shift.shape[1] :]
    else:
        cues, null = shift, words
    effect = np.full(shift.shape, np.nan)
    for row in np.flatnonzero(usable):
        mine, theirs = alike[row], words_alike[row]
        if np.isnan(mine).any() or np.isnan(theirs).any():
            mine, theirs = np.zeros_like(mine), np.zeros_like(theirs)
        start, slope, deviation = _robust_line(theirs, null[row])
        effect[row] = (cues[row] - start - slope * mine) / max(deviation, 1e-12)
    order = np.argsort(np.argsort(-effect, axis=1, kind="stable"), axis=1) + 1
    return Suspicion(effect, np.where(np.isnan(effect), 0, order).astype(float), shift)


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
