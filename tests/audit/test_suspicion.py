"""What to look at first: planted cues lead, though images overlap and objects shift words."""

from dataclasses import replace

import numpy as np
import pytest

from pipeline.audit.suspicion import TextFigures, class_shifts, likeness, suspect

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


def figures(images: np.ndarray, codes: np.ndarray, classes: np.ndarray, texts: np.ndarray):
    scores = images @ texts.T
    spread = [np.log(scores[codes == code].var(axis=0)) for code in range(CLASSES)]
    shift = class_shifts(*sums(images, codes), texts)
    return TextFigures(shift, np.stack(spread), likeness(classes, texts))


def effects(seed: int, share: float, distance: float, offset: float = 0.0):
    images, codes, classes, words, cues = planted(seed, share, distance)
    offsets = np.random.default_rng([seed, 1]).normal(0, offset, (CLASSES, WIDTH))
    images = images + offsets[codes]
    return suspect(*(figures(images, codes, classes, texts) for texts in (cues, words)))


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


def test_a_wider_class_is_suspicious_where_whole_classes_are_shifted() -> None:
    """Offsets of classes in every direction drown the mean of a cue, and not its variance."""
    cues = np.arange(CUES)
    first: list[bool] = []
    for seed in range(6):
        found = effects(seed, share=0.3, distance=2.5, offset=0.7)
        first += list(found.rank[cues, cues] <= 3)
    assert np.mean(first) >= 0.9
    images, codes, classes, words, texts = planted(0, 0.3, 2.5)
    images = images + np.random.default_rng([0, 1]).normal(0, 0.7, (CLASSES, WIDTH))[codes]
    mine, null = (figures(images, codes, classes, t) for t in (texts, words))
    unknown = suspect(*(replace(f, spread=np.full_like(f.spread, np.nan)) for f in (mine, null)))
    assert (unknown.rank[cues, cues] <= 3).mean() < 0.9


def test_two_classes_an_empty_class_and_a_class_without_text() -> None:
    rng = np.random.default_rng(0)
    means, words, cues = (rng.normal(size=(n, WIDTH)) for n in (3, 50, 4))
    images = np.array([50.0, 50.0, 0.0])
    texts = rng.normal(size=(3, WIDTH))
    alike, words_alike = likeness(texts, cues), likeness(texts, words)
    alike[1] = words_alike[1] = np.nan
    shifts = [class_shifts(images, means, np.eye(WIDTH), t) for t in (cues, words)]
    spreads = [rng.normal(size=shift.shape) for shift in shifts]
    found = suspect(
        TextFigures(shifts[0], spreads[0], alike), TextFigures(shifts[1], spreads[1], words_alike)
    )
    assert np.isfinite(found.effect[:2]).all()
    assert np.isnan(found.effect[2]).all()
    assert (found.rank[2] == 0).all()
    assert sorted(found.rank[0]) == [1, 2, 3, 4]


def test_a_tiny_vocabulary_is_no_null() -> None:
    with pytest.raises(ValueError, match="20"):
        suspect(*(TextFigures(*(np.zeros((3, n)) for _ in range(3))) for n in (2, 5)))


def test_a_cue_in_nearly_every_image_of_its_class_still_leads() -> None:
    """It narrows the scores instead of widening them, and the mean decides."""
    cues = np.arange(CUES)
    found = effects(2, share=1.0, distance=2.5)
    assert (found.rank[cues, cues] <= 3).all()
