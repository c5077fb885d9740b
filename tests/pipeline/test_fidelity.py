"""Measures of fidelity against cases worked out by hand."""

import numpy as np
import pytest

from pipeline.fidelity.estimates import estimate
from pipeline.fidelity.perturbation import SHARES, area, areas, erased
from pipeline.fidelity.segmentation import (
    average_precision,
    compared,
    counts,
    mean_iou,
    pixel_accuracy,
    pointing,
    summary,
)

HEAT = np.array([[0.0, 0.2], [0.6, 1.0]], dtype=np.float32)
MASK = np.array([[False, True], [False, True]])


def test_pixels_go_in_the_order_of_their_heat() -> None:
    rng = np.random.default_rng(1)
    pixels = rng.integers(1, 256, (3, 10, 10), dtype=np.uint8)
    heat = rng.random((10, 10))
    for hottest in (False, True):
        found = erased(pixels, heat, hottest=hottest)
        assert found.shape == (9, 3, 10, 10)
        for share, image in zip(SHARES[1:], found, strict=True):
            gone = (image == 0).all(axis=0)
            assert gone.sum() == round(100 * share)
            np.testing.assert_array_equal(image[:, ~gone], pixels[:, ~gone])
            inside, outside = heat[gone], heat[~gone]
            assert inside.min() > outside.max() if hottest else inside.max() < outside.min()


def test_a_constant_map_erases_at_random_and_not_from_the_top() -> None:
    gone = erased(np.full((3, 20, 20), 9, np.uint8), np.ones((5, 5)), hottest=True)[4][0] == 0
    assert gone.sum() == 200
    assert 60 < gone[:10].sum() < 140
    assert 60 < gone[:, :10].sum() < 140


def test_the_area_of_a_curve_by_hand() -> None:
    assert area(np.ones(10)) == pytest.approx(90)
    assert area(np.array([1, 1, 0, 0, 0, 0, 0, 0, 0, 0])) == pytest.approx(15)
    np.testing.assert_allclose(area(np.linspace(1, 0.1, 10)[None]), [49.5])


def test_a_model_that_looks_at_one_pixel() -> None:
    """It answers 1 as long as that pixel is there: heat there keeps it, heat elsewhere loses it."""
    pixels = np.full((2, 3, 10, 10), 200, np.uint8)
    heat = np.random.default_rng(0).random((2, 10, 10)) * 0.5
    heat[0, 4, 4], heat[1, 4, 4] = 1.0, -1.0

    def classify(batch: np.ndarray) -> np.ndarray:
        return (batch[:, 0, 4, 4] > 0).astype(int)

    found = areas(classify, pixels, heat, truth=np.ones(2, int), first=np.ones(2, int))
    np.testing.assert_allclose(found, [[90, 5], [5, 90]])
    wrong = areas(classify, pixels, heat, truth=np.full(2, 7), first=np.ones(2, int))
    np.testing.assert_allclose(wrong, 0)


def test_a_map_and_a_mask_by_hand() -> None:
    half, mean = counts(HEAT, MASK)  # shown at both thresholds: the lower row
    np.testing.assert_allclose(half, [0.25, 0.25, 0.25, 0.25])
    np.testing.assert_allclose(mean, half)
    assert pixel_accuracy(half[None]) == pytest.approx([50])
    assert mean_iou(half[None]) == pytest.approx([100 / 3])
    assert pointing(HEAT, MASK) == 100
    assert pointing(np.zeros((2, 2), np.float32), MASK) == 50
    # Scores 1, .8, .4, 0 of the background and 0, .2, .6, 1 of the thing, as one ranking:
    # 1 (background) and 1 (thing) right, .8 wrong, .6 wrong, .4 right, .2 right, two zeros wrong.
    assert average_precision(HEAT, MASK) == pytest.approx(
        100 * (2 / 2 * 0.5 + 3 / 5 / 4 + 4 / 6 / 4)
    )


def test_thresholds_differ_where_the_mean_is_low() -> None:
    heat = np.array([[0, 0, 0, 0.4, 1.0]], dtype=np.float32)
    mask = np.array([[False, False, False, True, True]])
    half, mean = counts(heat, mask)
    np.testing.assert_allclose(half, [0.2, 0, 0.2, 0.6])
    np.testing.assert_allclose(mean, [0.4, 0, 0, 0.6])


def test_intersections_are_summed_over_images_before_they_are_divided() -> None:
    small = compared(
        np.array([[1.0, 0, 0, 0]], np.float32), np.array([[True, False, False, False]])
    )
    missed = compared(np.array([[1.0, 0, 0, 0]], np.float32), np.array([[False, True, True, True]]))
    found = summary(np.stack([small, missed]))
    assert found["mIoU at .5"].value == pytest.approx(50 * (1 / 5 + 3 / 7))
    assert found["pixel accuracy at .5"].value == pytest.approx(50)
    assert found["pointing"].value == pytest.approx(50)


def test_intervals_cover_the_mean_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(3)
    found = [estimate(rng.normal(5, 2, 100)) for _ in range(200)]
    covered = np.mean([one.low <= 5 <= one.high for one in found])
    assert 0.9 <= covered <= 0.99
    width = np.mean([one.high - one.low for one in found])
    assert width == pytest.approx(2 * 1.96 * 2 / 10, rel=0.05)
