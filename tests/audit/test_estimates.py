"""Shares from labels and predictions: right whatever the predictor, honest at small counts."""

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.audit.estimates import (
    Labelled,
    ShareEstimate,
    compare_shares,
    estimate_share,
)
from pipeline.audit.inference import share_interval

FOLDS = 5


def plain(
    present: NDArray[np.float64], predicted: NDArray[np.float64], images: int, expected: float
) -> ShareEstimate:
    """From a plain random sample and one fixed predictor."""
    count = len(present)
    sample = Labelled(
        present, np.zeros(count, int), np.ones(count), predicted, np.arange(count) % FOLDS
    )
    return estimate_share(sample, np.array([float(images)]), np.full(FOLDS, expected))


def wilson(share: float, labels: int) -> tuple[float, float]:
    low, high = share_interval(share * labels, labels)
    return float(low), float(high)


def by_labels(hits: int, count: int, images: int = 10**6) -> ShareEstimate:
    present = (np.arange(count) < hits).astype(float)
    return plain(present, np.full(count, 0.5), images, 0.5)


def test_without_help_from_predictions_it_is_wilsons_interval() -> None:
    for hits, count in ((0, 25), (1, 25), (12, 50), (50, 50)):
        found = by_labels(hits, count)
        assert found.share == pytest.approx(hits / count)
        assert (found.low, found.high) == pytest.approx(wilson(hits / count, count), abs=1e-4)
        assert found.lam == 0


@pytest.mark.parametrize("predictor", ["good", "useless", "reversed", "biased"])
@pytest.mark.parametrize("share", [0.05, 0.4])
def test_intervals_cover_whatever_the_predictor_is_worth(predictor: str, share: float) -> None:
    rng = np.random.default_rng(5)
    covered, errors, widths = [], [], []
    for _ in range(300):
        truth = rng.random(4000) < share
        good = np.clip(0.1 + 0.7 * truth + rng.standard_t(3, 4000) * 0.08, 0, 1)
        f = {
            "good": good,
            "useless": rng.random(4000),
            "reversed": 1 - good,
            "biased": good * 0.4 + 0.5,
        }[predictor]
        rows = rng.choice(4000, 60, replace=False)
        found = plain(truth[rows].astype(float), f[rows], 4000, float(f.mean()))
        covered.append(found.low <= share <= found.high)
        errors.append(found.share - share)
        widths.append(found.high - found.low)
    assert np.mean(covered) >= 0.93
    assert abs(np.mean(errors)) < 4 * np.std(errors) / np.sqrt(300)
    low, high = wilson(share, 60)
    if predictor == "good":
        assert np.mean(widths) < 0.8 * (high - low)
    else:
        assert np.mean(widths) < 1.15 * (high - low)


def test_unequal_probabilities_are_weighted_out() -> None:
    rng = np.random.default_rng(1)
    truth = np.concatenate([rng.random(1000) < 0.5, rng.random(9000) < 0.02]).astype(float)
    stratum = np.repeat([0, 1], [1000, 9000])
    shares, covered = [], []
    for _ in range(300):
        rows = np.concatenate(
            [rng.choice(1000, 30, replace=False), 1000 + rng.choice(9000, 30, replace=False)]
        )
        weight = np.repeat([1000 / 30, 9000 / 30], 30)
        nothing = np.full(60, 0.3)
        sample = Labelled(truth[rows], stratum[rows], weight, nothing, np.arange(60) % FOLDS)
        found = estimate_share(sample, np.array([1000.0, 9000.0]), np.full(FOLDS, 0.3))
        shares.append(found.share)
        covered.append(found.low <= truth.mean() <= found.high)
    assert np.mean(shares) == pytest.approx(truth.mean(), abs=4 * np.std(shares) / np.sqrt(300))
    assert np.mean(covered) >= 0.93


def test_strata_with_a_single_label_are_merged() -> None:
    sample = Labelled(
        np.array([1.0, 0, 0, 0]),
        np.array([0, 2, 2, 2]),
        np.array([10.0, 20, 20, 20]),
        np.full(4, 0.2),
        np.arange(4),
    )
    found = estimate_share(sample, np.array([10.0, 30.0, 60.0]), np.full(4, 0.2))
    assert 0 < found.low < found.share < found.high < 1


def test_looking_at_every_image_leaves_the_uncertainty_of_the_images_alone() -> None:
    found = by_labels(6, 20, images=20)
    assert (found.low, found.high) == pytest.approx(wilson(0.3, 20), abs=1e-6)


def test_no_labels_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one"):
        by_labels(0, 0)


def test_the_mean_agrees_with_the_published_implementation() -> None:
    ppi = pytest.importorskip("ppi_py")
    rng = np.random.default_rng(2)
    images, count = 20_000, 1500
    truth = (rng.random(images) < 0.3).astype(float)
    predicted = np.clip(0.2 + 0.5 * truth + rng.normal(0, 0.2, images), 0, 1)
    found = plain(truth[:count], predicted[:count], images, float(predicted.mean()))
    unlabelled = predicted[count:]
    point = float(ppi.ppi_mean_pointestimate(truth[:count], predicted[:count], unlabelled)[0])
    low, high = ppi.ppi_mean_ci(truth[:count], predicted[:count], unlabelled, alpha=0.05)
    assert found.share == pytest.approx(point, abs=2e-3)
    assert (found.low, found.high) == pytest.approx((float(low[0]), float(high[0])), abs=2e-3)


@pytest.mark.parametrize(("one", "other"), [(0.05, 0.05), (0.3, 0.05), (0.9, 0.02), (0.5, 0.5)])
@pytest.mark.parametrize("count", [25, 100])
def test_comparisons_cover_at_small_counts(one: float, other: float, count: int) -> None:
    rng = np.random.default_rng(7)
    odds = one / (1 - one) / (other / (1 - other))
    held = []
    for _ in range(400):
        a, b = rng.binomial(count, [one, other])
        found = compare_shares(by_labels(int(a), count), by_labels(int(b), count))
        held.append(
            [
                found.difference_low <= one - other <= found.difference_high,
                found.odds_low <= odds <= found.odds_high,
            ]
        )
    assert np.mean(held, axis=0).min() >= 0.93


def test_equal_shares_are_seldom_called_different() -> None:
    rng = np.random.default_rng(8)
    p = np.array(
        [
            compare_shares(by_labels(int(a), 50), by_labels(int(b), 50)).p
            for a, b in rng.binomial(50, 0.2, (400, 2))
        ]
    )
    assert 0.01 < (p < 0.05).mean() < 0.08


def test_nothing_in_either_group_says_nothing() -> None:
    found = compare_shares(by_labels(0, 50), by_labels(0, 50))
    assert found.odds_low == 0
    assert found.odds_high == np.inf
    assert found.p == 1
    assert found.difference_low < 0 < found.difference_high


def test_all_of_one_and_none_of_the_other_has_a_bound() -> None:
    found = compare_shares(by_labels(50, 50), by_labels(0, 50))
    assert found.odds_low > 50
    assert found.odds_high == np.inf
    assert found.p < 1e-9
