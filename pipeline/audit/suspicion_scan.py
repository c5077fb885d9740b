"""The scan for suspicions: sums over the stored embeddings, and a row for every class and cue."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from pipeline.audit.basis import Basis
from pipeline.audit.directions import Directions, run_directions
from pipeline.audit.findings import Findings
from pipeline.audit.inference import Array
from pipeline.audit.names import Names
from pipeline.audit.scores import Population, Readable, batches, embeddings
from pipeline.audit.suspicion import (
    FEWEST_WORDS,
    Suspicion,
    TextFigures,
    class_shifts,
    likeness,
    suspect,
)
from pipeline.errors import UsageError
from pipeline.results.results import Results
from pipeline.schema import EMBEDDING

COLUMNS = ("class", "cue", "suspicion__effect", "suspicion__rank", "suspicion__shift")
WORTH_A_LOOK, FIRST = 3.0, 3
"""Effect from which a pair among the first of its class is shown as worth a look. It decides what
is printed, and flags nothing."""
_BATCH_ROWS = 2048  # so that the copies of a batch are small
_LEVEL = 0.95  # of the decoys' effects, which a pair that is worth a look exceeds


def scan(
    results: Results,
    findings: Findings,
    decoys: Sequence[str] = (),
    tell: Callable[[str], None] = lambda text: None,
) -> pd.DataFrame:
    """Suspicion of every pair, decoys included.

    Args:
        decoys: cues that get no rank.
        tell: called with messages about long steps.

    Returns:
        One row per pair, without cues that exemplar images define: ``class``, ``cue``,
        ``suspicion__effect`` (how far mean and variance of the cue's score in the class lie beyond
        what likeness and other words explain, in deviations of the vocabulary),
        ``suspicion__rank`` (1: the most unusual cue of the class; 0 for decoys and where there is
        no effect) and ``suspicion__shift`` (mean score in the class minus that elsewhere, in
        deviations within classes). Most unusual pairs first.

    Raises:
        UsageError: the run has no embeddings, or the texts cannot be encoded here.
    """
    if EMBEDDING not in results.dataset.schema.names:
        raise UsageError("the run stored no embeddings (store.embeddings: false)")
    population = findings.population
    if len(population.classes) < 2:
        raise UsageError("there are no two classes to compare")
    directions = run_directions(results, tell)
    cues = [cue for cue in findings.presence.histograms.cues if cue in directions.queries]
    if not cues:
        raise UsageError("no cue is defined by a text or a vector")
    suspicion, count = _suspicion(results, findings, directions, cues), population.audited
    frame = pd.DataFrame(
        {
            "class": np.repeat(np.array(population.classes[:count], dtype=object), len(cues)),
            "cue": np.tile(np.array(cues, dtype=object), count),
            "suspicion__effect": suspicion.effect[:count].ravel(),
            "suspicion__shift": suspicion.shift[:count].ravel(),
        }
    )
    effect = frame["suspicion__effect"].where(~frame["cue"].isin(list(decoys)))
    rank = effect.groupby(frame["class"]).rank(ascending=False, method="first")
    frame.insert(3, "suspicion__rank", rank.fillna(0).astype(int))
    return frame.sort_values("suspicion__effect", ascending=False, ignore_index=True)


def worth_a_look(pairs: pd.DataFrame) -> pd.DataFrame:
    """The suspicious pairs that are neither flagged nor verified, the most unusual first.

    A pair must be among the first of its class and beyond what all but a few decoys reach.

    Args:
        pairs: rows of `Audit.rank` with decoys.
    """
    if "suspicion__effect" not in pairs:
        return pairs.head(0)
    of_decoys = pairs.loc[pairs["decoy"], "suspicion__effect"].dropna()
    usual = float(of_decoys.quantile(_LEVEL)) if len(of_decoys) >= FEWEST_WORDS else 0.0
    suspicious = pairs["suspicion__effect"] > max(WORTH_A_LOOK, usual)
    suspicious &= pairs["suspicion__rank"].between(1, FIRST)
    suspicious &= ~pairs["association__flag"] & (pairs["association__basis"] != str(Basis.LABELS))
    return pairs[suspicious].sort_values("suspicion__effect", ascending=False, ignore_index=True)


def _suspicion(
    results: Results, findings: Findings, directions: Directions, cues: Sequence[str]
) -> Suspicion:
    if len(directions.words) < FEWEST_WORDS:
        raise UsageError(
            f"the model tells {len(directions.words)} words of the vocabulary apart, "
            f"{FEWEST_WORDS} needed"
        )
    of_cues = np.stack([directions.queries[cue] for cue in cues])
    queries = Names(results, findings).class_queries
    texts = np.full((len(findings.population.classes), of_cues.shape[1]), np.nan)
    for code, label in enumerate(findings.population.classes):
        if queries.get(label) in directions.queries:
            texts[code] = directions.queries[queries[label]]
    every = np.concatenate([of_cues, directions.words])
    sums = class_sums(results, findings.population, every)
    shift = class_shifts(sums.images, sums.means, sums.covariance, every, sums.every)
    with np.errstate(divide="ignore"):
        spread = np.where(sums.variance > 0, np.log(sums.variance), np.nan)
    figures = (shift, spread, likeness(texts, every))
    return suspect(
        TextFigures(*(values[:, : len(cues)] for values in figures)),
        TextFigures(*(values[:, len(cues) :] for values in figures)),
    )


@dataclass(frozen=True)
class EmbeddingSums:
    """Sums over the embeddings of the explained images, or of one half of them.

    Attributes:
        images: (K,) images of each class.
        means: (K, E) mean embeddings of the classes.
        covariance: (E, E) within classes, each image in the one class that it is fitted with.
        every: number of all images and (E,) sum of their embeddings.
        variance: (K, T) of the scores of T texts within each class; 0 for a class with one image.
    """

    images: Array
    means: Array
    covariance: Array
    every: tuple[int, Array]
    variance: Array


def class_sums(
    results: Readable, population: Population, texts: Array | None = None
) -> EmbeddingSums:
    """Sum in one pass, whose memory does not grow with the number of images.

    A batch is summed in single precision about a mean that is subtracted before, and batches are
    added in double precision.

    Args:
        texts: (T, E) directions whose scores' variances are wanted; default none.
    """
    classes = len(population.classes)
    fitted: _ClassSums | None = None
    by_class: _ClassSums | None = None
    products = total = np.zeros(0)
    shift = np.zeros(0, np.float32)
    for batch in batches(results, population, [], [EMBEDDING], _BATCH_ROWS):
        vectors = embeddings(batch.table)
        if fitted is None or by_class is None:
            shift, width = vectors.mean(axis=0), vectors.shape[1]
            texts = np.zeros((0, width)) if texts is None else texts
            single = texts.T.astype(np.float32)
            fitted = _ClassSums.empty(classes, len(texts), width)
            by_class = _ClassSums.empty(classes, len(texts), width)
            products, total = np.zeros((width, width)), np.zeros(width)
        vectors = vectors - shift
        squares = (vectors @ single) ** 2
        fitted.add(batch.codes, vectors, squares)
        if population.has_sets:
            rows = batch.members.rows
            by_class.add(batch.members.codes, vectors[rows], squares[rows])
        products += vectors.T @ vectors
        total += vectors.sum(axis=0, dtype=np.float64)
    if fitted is None or by_class is None or texts is None:
        raise UsageError("no explained image has a label")
    within = products - (fitted.means * fitted.images[:, None]).T @ fitted.means
    covariance = within / max(fitted.images.sum() - (fitted.images > 0).sum(), 1)
    count = int(fitted.images.sum())
    members = by_class if population.has_sets else fitted
    return EmbeddingSums(
        members.images,
        members.means + shift,
        covariance,
        (count, total + count * shift),
        members.variance(texts),
    )


@dataclass(frozen=True)
class _ClassSums:
    """Number (K,), sums (K, E) of embeddings, and sums (K, T) of squared scores by class."""

    images: Array
    sums: Array
    squares: Array

    @classmethod
    def empty(cls, classes: int, texts: int, width: int) -> "_ClassSums":
        return cls(np.zeros(classes), np.zeros((classes, width)), np.zeros((classes, texts)))

    def add(
        self,
        codes: NDArray[np.int64],
        vectors: NDArray[np.float32],
        squares: NDArray[np.float32],
    ) -> None:
        """Add embeddings (n, E) and squared scores (n, T) of images of some classes (n,)."""
        count, classes = len(codes), len(self.images)
        ones = np.ones(count, np.float32)
        members = sparse.csr_array((ones, (codes, np.arange(count))), shape=(classes, count))
        self.images[:] += np.bincount(codes, minlength=classes)
        self.sums[:] += members @ vectors
        self.squares[:] += members @ squares

    @property
    def means(self) -> Array:
        """(K, E) mean embeddings."""
        result: Array = self.sums / np.maximum(self.images, 1)[:, None]
        return result

    def variance(self, texts: Array) -> Array:
        """(K, T) variance of the scores within classes; 0 where there is only one image."""
        images = self.images[:, None]
        variance = self.squares / np.maximum(images, 1) - (self.means @ texts.T) ** 2
        return np.where(images > 1, variance.clip(0), 0)
