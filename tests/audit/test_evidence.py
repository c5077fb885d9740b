"""Heat on regions: where it lies, and no images at all."""

import numpy as np
import pytest

from pipeline.audit.evidence import covered, heat_enrichment, heat_on_region, overlap_excess

EMPTY = np.zeros((0, 4, 4), np.float32)


def test_heat_on_its_own_hottest_cells_and_on_cold_ones() -> None:
    heat = np.ones((1, 4, 5), np.float32)
    heat[0, 0, :2] = 11
    assert heat_enrichment(heat, heat)[0] == pytest.approx(11 / 2)
    assert heat_enrichment(heat, 20 - heat)[0] == pytest.approx(1 / 2)
    assert np.isnan(heat_enrichment(heat, np.zeros_like(heat))[0])
    shown = np.zeros(heat.shape, bool)
    shown[0, 0] = True  # half a cell of five is one cell
    assert heat_enrichment(heat, heat, shown=shown)[0] == pytest.approx(11 / 5)


def test_no_images_are_no_values() -> None:
    assert heat_enrichment(EMPTY, EMPTY).shape == (0,)
    assert heat_enrichment(EMPTY, EMPTY, shown=EMPTY.astype(bool)).shape == (0,)
    assert overlap_excess(np.zeros((1, 16)), np.zeros((1, 16))).shape == (0,)


def test_regions_count_by_the_share_of_a_cell() -> None:
    heat = np.array([[3, 0], [0, 1]], np.float32)
    region = np.zeros((4, 4), bool)
    region[:2, :2] = True
    whole = (0.0, 0.0, 4.0, 4.0)
    assert heat_on_region(heat, covered(region, whole, (2, 2))) == pytest.approx(3.0)
    region[3, 3] = True  # a quarter of the other cell: (3 + 1/4) / (5/4)
    assert heat_on_region(heat, covered(region, whole, (2, 2))) == pytest.approx(2.6)
    assert np.isnan(heat_on_region(heat, np.zeros((2, 2))))


def test_regions_of_any_size_and_cells_beyond_the_image() -> None:
    region = np.zeros((3, 5), bool)
    region[0, :2] = True
    cover = covered(region, (0.0, 0.0, 5.0, 3.0), (2, 2))
    np.testing.assert_allclose(cover, [[2 / 3.75, 0], [0, 0]])
    padded = covered(region, (0.0, -1.0, 5.0, 4.0), (5, 5))  # a row of padding on each side
    np.testing.assert_allclose(padded, np.pad(region, ((1, 1), (0, 0))))
    cropped = covered(region, (1.0, 0.0, 4.0, 3.0), (3, 3))
    np.testing.assert_allclose(cropped, region[:, 1:4])
