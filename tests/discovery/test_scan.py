"""The shortlist: words that echo each other are one, and unusual words lead."""

import numpy as np

from pipeline.discovery.scan import Likenesses, leaders


def test_words_that_tell_images_apart_alike_are_one() -> None:
    words = np.array([[1.0, 0, 0], [0.98, 0.2, 0], [0, 1, 0], [0, 0, 1], [0, 0.1, 0.99]])
    alike = Likenesses.of(words, np.eye(3))
    values = np.array([3.0, 5.0, 1.0, 4.0, 2.0])
    no = np.zeros(5, bool)
    found = leaders(values, no, alike, 3, no)
    assert [leader.word for leader in found] == [1, 3, 2]
    assert [leader.also for leader in found] == [(0,), (4,), ()]
    without = leaders(values, np.array([0, 1, 0, 0, 0], bool), alike, 1, no)
    assert [leader.word for leader in without] == [3]


def test_a_preferred_word_names_its_group_if_it_is_nearly_as_strong() -> None:
    words = np.array([[1.0, 0, 0], [0.98, 0.2, 0], [0, 1, 0], [0, 0.98, 0.2]])
    preferred = np.array([0, 1, 0, 1], bool)
    values = np.array([5.0, 4.5, 4.0, 1.0])
    found = leaders(values, np.zeros(4, bool), Likenesses.of(words, np.eye(3)), 2, preferred)
    assert [(leader.word, leader.also) for leader in found] == [(1, (0,)), (2, (3,))]


def test_what_speaks_against_a_class_is_not_listed() -> None:
    words = np.eye(3)
    alike = Likenesses.of(words, np.eye(3))
    values = np.array([-1.0, np.nan, 2.0])
    assert [
        leader.word for leader in leaders(values, np.zeros(3, bool), alike, 5, np.zeros(3, bool))
    ] == [2]


def test_correlations_are_those_of_scores() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(5000, 4)) @ rng.normal(size=(4, 4))
    words = rng.normal(size=(3, 4))
    alike = Likenesses.of(words, np.cov(vectors.T))
    expected = np.corrcoef((vectors @ words.T).T)
    assert np.allclose(alike.between(0, [1, 2]), expected[0, 1:], atol=1e-6)
    assert np.allclose(alike.with_any(words[:1], np.cov(vectors.T)), expected[0], atol=1e-6)
