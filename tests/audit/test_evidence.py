"""Heat on regions: where it lies, and no images at all."""

import numpy as np
import pytest

from pipeline.audit.evidence import heat_enrichment, heat_on_regions, overlap_excess

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
    heat = np.zeros((1, 2, 2), np.float32)
    heat[0, 0, 0], heat[0, 1, 1] = 3.0, 1.0
    region = np.zeros((1, 4, 4), bool)
    region[0, :2, :2] = True
    assert heat_on_regions(heat, region)[0] == pytest.approx(3.0)
    region[0, 3, 3] = True  # a quarter of the other cell: (3 + 1/4) / (5/4)
    assert heat_on_regions(heat, region)[0] == pytest.approx(2.6)
    assert np.isnan(heat_on_regions(heat, np.zeros_like(region))[0])
    with pytest.raises(ValueError, match="2 x 2"):
        heat_on_regions(heat, np.zeros((1, 3, 4), bool))
