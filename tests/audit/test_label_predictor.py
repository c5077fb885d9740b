"""A predictor of presence: learns from labels, never makes an estimate wrong."""

import numpy as np
import pytest

from pipeline.audit.label_predictor import FOLDS, cross_fit, fit_predictor


def data(count: int, seed: int, width: int = 64) -> tuple[np.ndarray, ...]:
    """A cue that the text's direction catches half of; the class shifts another direction."""
    rng = np.random.default_rng(seed)
    groups = rng.integers(0, 2, count)
    present = (rng.random(count) < np.where(groups == 1, 0.4, 0.1)).astype(float)
    embeddings = rng.standard_t(4, (count, width)) * 0.1
    embeddings[:, 0] += 0.12 * present
    embeddings[:, 1] += 0.35 * present
    embeddings[:, 2] += 0.5 * groups
    text = embeddings[:, 0] / embeddings[:, 0].std()
    return present, text - text.mean(), groups, embeddings


def correlation(present: np.ndarray, predicted: np.ndarray) -> float:
    return float(np.corrcoef(present, predicted)[0, 1])


def test_labels_teach_what_the_text_misses() -> None:
    present, text, groups, embeddings = data(3000, 1)
    learned = {}
    for labels in (50, 100, 400):
        seen = slice(0, labels)
        predictor = fit_predictor(present[seen], text[seen], groups[seen], 2, embeddings[seen])
        predicted = predictor.probability(text[1000:], groups[1000:], embeddings[1000:])
        learned[labels] = correlation(present[1000:], predicted)
    seen = slice(0, 400)
    alone = fit_predictor(present[seen], text[seen], groups[seen], 2)
    base = correlation(present[1000:], alone.probability(text[1000:], groups[1000:], None))
    assert learned[400] > base + 0.25
    assert learned[100] > base + 0.1
    assert learned[50] > base - 0.05


def test_noise_in_the_embeddings_is_not_learned() -> None:
    rng = np.random.default_rng(3)
    present, text, groups, _ = data(2000, 2)
    noise = rng.normal(0, 0.1, (2000, 256))
    seen = slice(0, 60)
    with_noise = fit_predictor(present[seen], text[seen], groups[seen], 2, noise[seen])
    alone = fit_predictor(present[seen], text[seen], groups[seen], 2)
    rest = slice(500, None)
    bad = correlation(present[rest], with_noise.probability(text[rest], groups[rest], noise[rest]))
    good = correlation(present[rest], alone.probability(text[rest], groups[rest], None))
    assert bad > good - 0.1


def test_without_labels_it_is_the_texts_usual_worth() -> None:
    none = np.zeros(0)
    predictor = fit_predictor(none, none, none.astype(int), 3, np.zeros((0, 8)))
    scores = np.linspace(-3, 3, 7)
    chances = predictor.probability(scores, np.full(7, 1), np.zeros((7, 8)))
    assert (np.diff(chances) > 0).all()
    assert 0 < chances[0] < chances[-1] < 1


def test_labels_of_one_kind_only_give_a_finite_predictor() -> None:
    scores = np.linspace(-1, 1, 30)
    predictor = fit_predictor(np.zeros(30), scores, np.zeros(30, int), 1)
    chances = predictor.probability(scores, np.zeros(30, int), None)
    assert np.isfinite(chances).all()
    assert chances.max() < 0.5


def test_a_predictor_never_saw_the_labels_it_predicts() -> None:
    present, text, groups, embeddings = data(200, 4)
    folds = np.arange(200) % FOLDS
    folds[:20] = -1
    predictors, predicted = cross_fit(present, text, groups, folds, 2, embeddings)
    assert np.isnan(predicted[:20]).all()
    flipped = present.copy()
    flipped[folds == 2] = 1 - flipped[folds == 2]
    _, again = cross_fit(flipped, text, groups, folds, 2, embeddings)
    assert again[folds == 2] == pytest.approx(predicted[folds == 2])
    assert not np.allclose(again[folds == 1], predicted[folds == 1])
    rows = groups == 1
    means = [p.probability(text[rows], groups[rows], embeddings[rows]).mean() for p in predictors]
    assert len(means) == FOLDS
    assert np.mean(means) == pytest.approx(present[rows].mean(), abs=0.1)
