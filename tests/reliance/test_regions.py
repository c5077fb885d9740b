"""Regions, positions of the same shape elsewhere, and fills."""

import numpy as np
import pytest

from pipeline.reliance.regions import FILLS, cells_of, elsewhere, hottest, pixels_of


def test_the_hottest_cells_and_no_more_than_are_warm() -> None:
    heat = np.zeros((4, 5))
    heat[1, 2], heat[3, 4], heat[0, 0] = 9.0, 5.0, 1.0
    assert np.argwhere(hottest(heat, 0.10)).tolist() == [[1, 2], [3, 4]]
    assert hottest(heat, 0.5).sum() == 3  # ten cells would be half, three have heat
    assert np.argwhere(hottest(heat, 0.5, floor=0.5)).tolist() == [[1, 2], [3, 4]]
    shown = np.ones((4, 5), bool)
    shown[1] = False
    assert np.argwhere(hottest(heat, 0.05, shown)).tolist() == [[3, 4]]
    assert not hottest(np.zeros((3, 3)), 0.5).any()
    assert not hottest(np.full((3, 3), np.nan), 0.5).any()


def test_another_place_has_the_shape_and_touches_nothing() -> None:
    region = np.zeros((8, 8), bool)
    region[0, 0] = region[1, 0] = region[1, 1] = True
    taken = np.zeros((8, 8), bool)
    taken[:, 4:] = True
    places = set()
    for seed in range(50):
        moved = elsewhere(region, taken, np.random.default_rng(seed))
        assert moved is not None
        assert not (moved & (taken | region)).any()
        top, left = np.argwhere(moved).min(axis=0)
        np.testing.assert_array_equal(moved[top : top + 2, left : left + 2], region[:2, :2])
        places.add((int(top), int(left)))
    assert len(places) > 5


def test_no_place_is_none_and_not_a_clipped_shape() -> None:
    frame = np.ones((6, 6), bool)
    frame[1:-1, 1:-1] = False
    rng = np.random.default_rng(0)
    assert elsewhere(frame, np.zeros((6, 6), bool), rng) is None
    small = np.zeros((6, 6), bool)
    small[2, 2] = True
    assert elsewhere(small, ~small, rng) is None
    assert elsewhere(np.zeros((6, 6), bool), np.zeros((6, 6), bool), rng) is None


def test_cells_and_pixels() -> None:
    cells = np.random.default_rng(1).random((3, 5)) > 0.5
    pixels = pixels_of(cells, (12, 30))
    assert pixels.shape == (12, 30)
    np.testing.assert_array_equal(cells_of(pixels, (3, 5)), cells)
    thin = np.zeros((12, 30), bool)
    thin[0, :2] = True  # two of 24 pixels of a cell
    assert not cells_of(thin, (3, 5)).any()
    assert cells_of(thin, (3, 5), least=0.05).sum() == 1


@pytest.mark.parametrize("name", FILLS)
def test_a_fill_changes_the_region_only_and_takes_the_cue_away(name: str) -> None:
    pixels = np.full((3, 48, 48), 100, np.uint8)
    pixels[2] = np.linspace(50, 150, 48, dtype=np.uint8)
    mask = np.zeros((48, 48), bool)
    mask[10:20, 8:24] = True
    pixels[:, mask] = np.array([255, 0, 255], np.uint8)[:, None]
    before = pixels.copy()
    filled = FILLS[name](pixels, mask)
    np.testing.assert_array_equal(pixels, before)
    np.testing.assert_array_equal(filled[:, ~mask], pixels[:, ~mask])
    assert filled.dtype == np.uint8
    assert (np.abs(filled[0][mask].astype(int) - 100) <= 1).all()  # no trace of 255
    everything = FILLS[name](pixels, np.ones((48, 48), bool))
    assert everything.shape == pixels.shape


def test_surroundings_continue_a_gradient_better_than_one_colour() -> None:
    truth = np.tile(np.linspace(0, 250, 60, dtype=np.uint8), (3, 60, 1))
    mask = np.zeros((60, 60), bool)
    mask[20:40, 5:15] = True
    errors = {
        name: np.abs(fill(truth, mask)[:, mask].astype(int) - truth[:, mask]).mean()
        for name, fill in FILLS.items()
    }
    assert errors["surroundings"] < 0.4 * errors["mean"]
