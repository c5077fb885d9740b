"""Points, SaCo and the controls, against cases with a known answer."""

import numpy as np
import pytest
import torch

from benchmarks.fidelity.methods import DenseSimilarity
from benchmarks.fidelity.protocols import (
    point_counts,
    point_miou,
    randomised,
    rank_correlation,
    saco,
    wrong_texts,
)
from legrad.models.load import from_open_clip
from tests.builders import images, tiny_clip, unit_directions

LEFT = np.array([[1.0, 0.0], [1.0, 0.0]])


def test_points_on_the_hot_half() -> None:
    points = np.array([[0.1, 0.5, 1], [0.2, 0.9, 1], [0.1, 0.1, 0], [0.9, 0.5, 1], [1.0, 1.0, 0]])
    np.testing.assert_array_equal(point_counts(LEFT, points), [2, 1, 1])


def test_point_miou_sums_over_images_and_then_averages_classes() -> None:
    rows = np.array([[1.0, 0, 1], [3, 2, 1], [0, 1, 0]])
    found = point_miou(rows, ["cat", "cat", "dog"], [7, 8, 8])
    assert found.value == pytest.approx(100 * (4 / 8 + 0 / 1) / 2)
    assert found.low <= found.value <= found.high


def test_saco_of_a_map_that_is_right_and_of_its_inverse() -> None:
    pixels = np.zeros((3, 20, 20), np.uint8)
    pixels[:, :, :10] = 200  # the mean is 100 everywhere
    weight = np.linspace(1, 0, 20)[None].repeat(20, axis=0)

    def probability(batch: np.ndarray) -> np.ndarray:
        changed = np.abs(batch[:, 0].astype(float) - pixels[0]).clip(max=1)
        return 1 - (changed * weight).sum(axis=(1, 2)) / weight.sum()

    assert saco(probability, pixels, weight) == pytest.approx(1)
    assert saco(probability, pixels, 1 - weight) == pytest.approx(-1)
    assert abs(saco(probability, pixels, np.random.default_rng(0).random((20, 20)))) < 0.8
    assert saco(probability, pixels, np.ones((2, 2))) == 0


def test_a_wrong_text_is_never_the_right_one() -> None:
    labels = np.arange(300) % 5
    wrong = wrong_texts(labels, 5)
    assert not (wrong == labels).any()
    assert set(wrong.tolist()) == set(range(5))


def test_weights_are_randomised_from_the_top_and_maps_follow() -> None:
    model = from_open_clip(tiny_clip(5))
    before = {name: p.clone() for name, p in model.model.state_dict().items()}
    pixels, texts = images(1, 4), unit_directions(2, 4)
    own = DenseSimilarity(model)(pixels, texts)
    stages = list(randomised(model))
    assert len(stages) == 3
    for count, stage in enumerate(stages, 1):
        state = stage.model.state_dict()
        changed = {n.split(".")[3] for n, p in before.items() if not torch.equal(p, state[n])}
        assert changed == {str(2 - i) for i in range(count)}
    assert all(torch.equal(before[n], p) for n, p in model.model.state_dict().items())
    assert rank_correlation(own, own) == pytest.approx(np.ones(4))
    last = rank_correlation(own, DenseSimilarity(stages[-1])(pixels, texts))
    assert np.abs(last).mean() < 0.6


def test_correlation_with_a_constant_map_is_none() -> None:
    rng = torch.rand(2, 3, 3)
    np.testing.assert_array_equal(rank_correlation(rng, torch.ones(2, 3, 3)), [0, 0])
