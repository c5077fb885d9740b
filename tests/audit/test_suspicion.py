"""What to look at first: planted cues lead, though images overlap and objects shift words."""

import numpy as np
import pytest

from pipeline.audit.suspicion import class_shifts, likeness, score_shifts, suspect

CLASSES, WIDTH, WORDS, CUES, IMAGES = 12, 96, 300, 8, 150


def unit(rng: np.random.Generator, rows: int) -> np.ndarray:
    vectors = rng.normal(size=(rows, WIDTH))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def planted(seed: int, share: float, distance: float) -> tuple[np.ndarray, ...]:
    """Cue c is planted in class c; objects move embeddings along their own text, and others."""
    rng = np.random.default_rng(seed)
    classes, words, cues = unit(rng, CLASSES), unit(rng, WORDS), unit(rng, CUES)
    words[:40] += 0.8 * classes[np.arange(40) % CLASSES]
    cues += 0.4 * classes[(np.arange(CUES) + 3) % CLASSES]  # each resembles another class
    codes = np.repeat(np.arange(CLASSES), IMAGES)
    images = rng.standard_t(4, (len(codes), WIDTH)) / np.sqrt(2)
    images += 1.5 * classes[codes] + 0.4 * rng.normal(size=(CLASSES, WIDTH))[codes]
    for cue in range(CUES):
        has = rng.random(len(codes)) < np.where(codes == cue, share, 0.05)
        images += distance * has[:, None] * cues[cue] / np.linalg.norm(cues[cue])
    return images, codes, classes, words, cues


def sums(images: np.ndarray, codes: np.ndarray) -> tuple[np.ndarray, ...]:
    means = np.stack([images[codes == code].mean(axis=0) for code in range(CLASSES)])
    within = images - means[codes]
    return np.full(CLASSES, float(IMAGES)), means, within.T @ within / len(images)


def effects(seed: int, share: float, distance: float):
    images, codes, classes, words, cues = planted(seed, share, distance)
    numbers = sums(images, codes)
    return suspect(
        class_shifts(*numbers, cues),
        likeness(classes, cues),
        class_shifts(*numbers, words),
        likeness(classes, words),
    )


def test_planted_cues_lead_their_class_where_images_overlap() -> None:
    first, others = [], []
    for seed in range(6):
        found = effects(seed, share=0.8, distance=1.8)
        rows = np.arange(CUES)
        first += list(found.rank[rows, rows] <= 3)
        others.append(found.effect[CUES:])
    assert np.mean(first) >= 0.9
    assert np.median(np.abs(np.concatenate(others))) < 2


def test_likeness_to_the_class_is_not_suspicious() -> None:
    found = effects(1, share=0.05, distance=0.0)
    cues = np.arange(CUES)
    alike = found.effect[(cues + 3) % CLASSES, cues]
    raw = found.shift[(cues + 3) % CLASSES, cues]
    assert raw.mean() > 0.3
    assert np.median(alike) < 3


def test_scores_alone_give_the_same_shifts() -> None:
    images, codes, _, _, cues = planted(3, 0.5, 2.0)
    scores = images @ cues.T
    numbers = [
        np.stack([f(scores[codes == c]) for c in range(CLASSES)])
        for f in (lambda s: s.sum(axis=0), lambda s: (s**2).sum(axis=0))
    ]
    by_scores = score_shifts(np.full(CLASSES, float(IMAGES)), *numbers)
    assert by_scores == pytest.approx(class_shifts(*sums(images, codes), cues), rel=0.01)


def test_two_classes_an_empty_class_and_a_class_without_text() -> None:
    rng = np.random.default_rng(0)
    means, words, cues = (rng.normal(size=(n, WIDTH)) for n in (3, 50, 4))
    images = np.array([50.0, 50.0, 0.0])
    texts = rng.normal(size=(3, WIDTH))
    alike, words_alike = likeness(texts, cues), likeness(texts, words)
    alike[1] = words_alike[1] = np.nan
    shifts = [class_shifts(images, means, np.eye(WIDTH), t) for t in (cues, words)]
    found = suspect(shifts[0], alike, shifts[1], words_alike)
    assert np.isfinite(found.effect[:2]).all()
    assert np.isnan(found.effect[2]).all()
    assert (found.rank[2] == 0).all()
    assert sorted(found.rank[0]) == [1, 2, 3, 4]


def test_a_tiny_vocabulary_is_no_null() -> None:
    with pytest.raises(ValueError, match="20"):
        suspect(*(np.zeros((3, n)) for n in (2, 2, 5, 5)))
