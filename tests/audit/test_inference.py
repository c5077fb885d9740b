"""Intervals against published and simulated values; adjustment and ratios at the edges."""

import numpy as np
import pytest

from pipeline.audit.inference import (
    adjusted,
    auc_interval,
    gap_interval,
    mean_interval,
    ratio,
    share_interval,
)


def test_share_and_gap_as_newcombe_published_them() -> None:
    """Newcombe 1998, Statistics in Medicine 17: 81 of 263, and example (a) 56/70 - 48/80."""
    low, high = share_interval(81, 263)
    assert (float(low), float(high)) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    low, high = gap_interval(56, 70, 48, 80)
    assert (float(low), float(high)) == pytest.approx((0.0524, 0.3339), abs=5e-5)
    lows, highs = gap_interval(
        np.array([56.0, 0]), np.array([70.0, 10]), np.array([48.0, 0]), np.array([80.0, 20])
    )
    assert lows[0] == pytest.approx(0.0524, abs=5e-5)
    assert highs[1] == pytest.approx(0.2775, abs=5e-5)


def test_auc_counts_ties_half_and_its_interval_covers() -> None:
    assert auc_interval(np.array([1.0, 2.0]), np.array([1.0, 0.0]))[0] == pytest.approx(7 / 8)
    assert np.isnan(auc_interval(np.ones(3), np.zeros(0))[0])
    rng = np.random.default_rng(0)
    truth, covered = 0.76025, 0  # P(N(1, 1) > N(0, 1)) = Phi(1 / sqrt 2)
    for _ in range(60):
        _, low, high = auc_interval(rng.normal(1, 1, 60), rng.normal(0, 1, 90))
        covered += low < truth < high
    assert covered >= 54


def test_means_of_few_values_have_no_bounds() -> None:
    assert np.isnan(mean_interval(np.zeros(0))).all()
    mean, low, high = mean_interval(np.array([1.0, 3.0]))
    assert mean == 2.0
    assert np.isnan([low, high]).all()
    mean, low, high = mean_interval(np.array([1.0, 2.0, 3.0]))
    assert high - mean == pytest.approx(mean - low) == pytest.approx(1.1316, abs=1e-4)


def test_only_what_was_tested_is_adjusted() -> None:
    q = adjusted(np.array([0.01, np.nan, 0.02, 0.5]))
    assert q[[0, 2, 3]] == pytest.approx([0.03, 0.03, 0.5])
    assert np.isnan(q[1])
    assert np.isnan(adjusted(np.full((2, 2), np.nan))).all()


def test_a_ratio_without_a_whole_is_the_given_value() -> None:
    assert ratio(np.array([1.0, 1.0]), np.array([2.0, 0.0]), empty=0.0).tolist() == [0.5, 0.0]
