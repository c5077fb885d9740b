"""From people's answers to estimates: a row for every class and cue that was labelled.

For each cue, a predictor is fitted to the answers of all its groups (`label_predictor`, with folds
left out), its mean over every group is summed in one pass over the embeddings, and the shares of
the class and of the images outside of it are estimated and compared (`estimates`). Images outside
a class are those of the group elsewhere that are not of the class.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from pipeline.audit.estimates import Labelled, ShareEstimate, compare_shares, estimate_share
from pipeline.audit.inference import Array
from pipeline.audit.label_answers import NOT_DRAWN, CueAnswers, answers_on_cue, telling_answers
from pipeline.audit.label_design import ScoreStrata
from pipeline.audit.label_groups import LabelImages, Labels, group_code
from pipeline.audit.label_predictor import FOLDS, Predictor, cross_fit
from pipeline.audit.scores import Population, Readable, batches, embeddings
from pipeline.audit.split import confirming
from pipeline.schema import EMBEDDING

COLUMNS = (
    "class cue share share_elsewhere effect low high p difference difference_low difference_high "
    "labels labels_elsewhere effective effective_elsewhere lam"
).split()


@dataclass(frozen=True)
class LabelEstimates:
    """What labels say.

    Attributes:
        frame: one row per labelled pair, columns `COLUMNS`: shares, odds ratio (``effect``,
            ``low``, ``high``), p-value, difference of the shares with its interval, numbers of
            answers, how many answers of a plain random sample they are worth, and the mean weight
            of the predictions in the class.
        picked: answers that are in no estimate; they train the predictor only.
        unused: those of them on drawn images, behind the first one that nobody answered.
    """

    frame: pd.DataFrame
    picked: int
    unused: int


@dataclass(frozen=True)
class _Fit:
    """A cue's answers, the predictors without each fold, and (m,) what they say of their fold."""

    answers: CueAnswers
    predictors: Sequence[Predictor]
    predicted: Array


def estimate_from_labels(
    results: Readable, population: Population, labels: Labels, halved: frozenset[str] = frozenset()
) -> LabelEstimates:
    """Estimate every labelled pair.

    Args:
        halved: cues that were found by looking at the images, which only half of them may test.

    Raises:
        UsageError: the labels are of another run, or name an unknown class.
    """
    cues = [str(cue) for cue in dict.fromkeys(labels.answers["cue"])]
    images = LabelImages.read(results, population, cues, labels.design.seed, halved)
    telling = telling_answers(images, labels)
    vectors = _embeddings(results, images, telling["row"].unique())
    fits = {}
    with threadpool_limits(1):  # the systems are small; threads would only wait for each other
        for cue in cues:
            mine = telling[telling["cue"] == cue]
            if len(mine):
                answers = answers_on_cue(population, images, labels, cue, mine)
                fits[cue] = _fit(images, vectors, cue, answers)
    sums = _summed_predictions(results, population, images, fits)
    rows = [row for cue, fit in fits.items() for row in _pairs(population, images, cue, fit, sums)]
    return LabelEstimates(
        frame=pd.DataFrame(rows, columns=COLUMNS),
        picked=sum(int((fit.answers.fold == NOT_DRAWN).sum()) for fit in fits.values()),
        unused=sum(fit.answers.unused for fit in fits.values()),
    )


def _embeddings(
    results: Readable, images: LabelImages, rows: NDArray[np.int64]
) -> dict[int, NDArray[np.float32]] | None:
    """Row number -> embedding of the labelled images; None where the run stored none."""
    if EMBEDDING not in results.dataset.schema.names:
        return None
    wanted = images.ids.take(pa.array(rows)).combine_chunks()
    table = results.dataset.to_table(
        columns=["image_id", EMBEDDING], filter=ds.field("image_id").isin(wanted)
    )
    found = images.find(table["image_id"].to_pylist())
    return dict(zip(found.tolist(), embeddings(table), strict=True))


def _fit(
    images: LabelImages,
    vectors: Mapping[int, NDArray[np.float32]] | None,
    cue: str,
    answers: CueAnswers,
) -> _Fit:
    inputs = None if vectors is None else np.stack([vectors[row] for row in answers.rows.tolist()])
    predictors, predicted = cross_fit(
        answers.present,
        images.scores[cue][answers.rows],
        answers.group,
        answers.fold,
        len(answers.groups),
        inputs,
    )
    return _Fit(answers, predictors, predicted)


def _summed_predictions(
    results: Readable, population: Population, images: LabelImages, fits: Mapping[str, _Fit]
) -> dict[tuple[str, str], Array]:
    """(cue, group) -> (F, K + 1) sums of the predictions, in one pass over the embeddings.

    The sums are those of the images of the group in each class, and of all images of the group.
    """
    classes = len(population.classes)
    sums = {
        (cue, g): np.zeros((FOLDS, classes + 1))
        for cue, f in fits.items()
        for g in f.answers.groups
    }
    stored = EMBEDDING in results.dataset.schema.names
    extra = [*(["image_id"] if images.halved else []), *([EMBEDDING] if stored else [])]
    for batch in batches(results, population, list(fits), extra):
        vectors = embeddings(batch.table) if stored else None
        half = confirming(batch.table["image_id"].to_pylist()) if images.halved else None
        count, members = len(batch.codes), batch.members
        for cue, fit in fits.items():
            every = np.ones(count, bool)
            usable = half if half is not None and cue in images.halved else every
            scores = images.centring[cue].centre(batch.scores(cue), batch.codes)
            for number, group in enumerate(fit.answers.groups):
                code = group_code(population, group)
                inside = every if code is None else members.of_class(code, count)
                rows = np.flatnonzero(usable & inside)
                inputs = None if vectors is None else vectors[rows]
                for fold, predictor in enumerate(fit.predictors):
                    numbers = np.full(len(rows), number)
                    chance = np.zeros(count)
                    chance[rows] = predictor.probability(scores[rows], numbers, inputs)
                    by_class = np.bincount(members.codes, chance[members.rows], classes)
                    sums[cue, group][fold] += [*by_class, chance.sum()]
    return sums


def _pairs(
    population: Population,
    images: LabelImages,
    cue: str,
    fit: _Fit,
    sums: Mapping[tuple[str, str], Array],
) -> Iterator[list[object]]:
    """A row for every class that was labelled for a cue, if elsewhere was labelled, too."""
    answers, everywhere = fit.answers, fit.answers.elsewhere
    rows, strata = images.rows(cue, None), answers.strata[everywhere]
    sizes = _sizes(strata, images.scores[cue][rows])
    predicted_elsewhere = sums[cue, answers.groups[everywhere]]
    for number, group in enumerate(answers.groups):
        code = group_code(population, group)
        if code is None:
            continue
        inside = answers.chosen(number)
        outside = answers.chosen(everywhere) & ~images.of_class(code)[answers.rows]
        of_class = images.rows(cue, code)
        if not inside.any() or not outside.any():
            continue
        own_sizes = np.array(answers.strata[number].sizes, float)
        expected = sums[cue, group][:, code] / len(of_class)
        share = _estimated(fit, inside, own_sizes, expected)
        rest = predicted_elsewhere[:, -1] - predicted_elsewhere[:, code]
        rest_sizes = sizes - _sizes(strata, images.scores[cue][of_class])
        other = _estimated(fit, outside, rest_sizes, rest / (len(rows) - len(of_class)))
        yield _row(group, cue, share, other)


def _sizes(strata: ScoreStrata, scores: Array) -> Array:
    """Number of images in each stratum."""
    sizes: Array = np.bincount(strata.stratum(scores), minlength=len(strata.sizes)).astype(float)
    return sizes


def _estimated(
    fit: _Fit, chosen: NDArray[np.bool_], sizes: Array, expected: Array
) -> ShareEstimate:
    """Estimate one share; an answer counts for the images of its stratum divided by its answers."""
    stratum = fit.answers.stratum[chosen]
    answered = np.bincount(stratum, minlength=len(sizes))
    return estimate_share(
        Labelled(
            present=fit.answers.present[chosen],
            stratum=stratum,
            weight=np.maximum(sizes[stratum], 1) / answered[stratum],
            predicted=fit.predicted[chosen],
            fold=fit.answers.fold[chosen],
        ),
        sizes,
        expected,
    )


def _row(cls: str, cue: str, share: ShareEstimate, other: ShareEstimate) -> list[object]:
    compared = compare_shares(share, other)
    return [
        cls,
        cue,
        share.share,
        other.share,
        compared.odds_ratio,
        compared.odds_low,
        compared.odds_high,
        compared.p,
        compared.difference,
        compared.difference_low,
        compared.difference_high,
        share.labels,
        other.labels,
        share.effective,
        other.effective,
        share.lam,
    ]
