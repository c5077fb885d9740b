"""phi is 1 where the label is the cue, 0 where the probe looks elsewhere; margins likewise."""

import numpy as np
import pandas as pd
import pytest

from pipeline.reliance.claims import answered_gap
from pipeline.reliance.edits import Deletion
from pipeline.reliance.effects import Contrast, direction_change, evidence_shares, margin_change
from pipeline.reliance.probe import collect
from pipeline.reliance.regions import FILLS
from tests.reliance.made import CUE, OTHER, STEP, WIDTH, Embedded, made

RIDGE = 0.1


def phi(
    world: Embedded,
    cue: str = "cue",
    resamples: int = 60,
    share_gap: tuple[float, float] | None = None,
) -> tuple[float, float, float]:
    findings = world.findings
    sums = collect(world, findings.population, findings.presence, ["cue", "other"])
    rows = np.flatnonzero((world.labels == "a") & world.has)
    direction = CUE if cue == "cue" else OTHER
    rng = np.random.default_rng(5)
    change = (STEP * direction + rng.normal(0, 0.2, (len(rows), WIDTH))).astype(np.float32)
    index = findings.population.index
    contrast = Contrast(
        index["a"],
        index["b"],
        ["cue", "other"].index(cue),
        [world.ids[r] for r in rows],
        change,
        share_gap=share_gap,
    )
    shares = evidence_shares(sums, [contrast], RIDGE, resamples, 0)
    low, high = shares.bounds()
    return float(shares.effect[0]), float(low[0]), float(high[0])


@pytest.mark.parametrize("seed", range(3))
def test_a_label_that_is_the_cue(seed: int) -> None:
    effect, low, high = phi(made(800, seed=seed))
    assert 0.8 < effect < 1.15
    assert 0.5 < low < effect < high


@pytest.mark.parametrize("seed", range(3))
def test_separable_classes_do_not_need_it(seed: int) -> None:
    effect, _, high = phi(made(800, apart=5.0, seed=seed))
    assert abs(effect) < 0.25
    assert high < 0.25


@pytest.mark.parametrize("seed", range(3))
def test_a_cue_that_is_everywhere_alike_is_not_used(seed: int) -> None:
    """It moves every image by as much as the other, but comes with neither class."""
    effect, low, high = phi(made(800, seed=seed), cue="other")
    assert abs(effect) < 0.1
    assert low < 0.05
    assert high < 0.25


def test_answers_tell_how_often_the_cue_is_there() -> None:
    world = made(800)
    effect, low, high = phi(world, share_gap=(0.4, 0.0))
    half, half_low, half_high = phi(world, share_gap=(0.2, 0.0))
    assert effect == pytest.approx(2 * half)
    assert (low, high) == pytest.approx((2 * half_low, 2 * half_high))
    unsure = phi(world, share_gap=(0.4, 0.1))
    assert unsure[0] == effect
    assert unsure[1] < low
    assert unsure[2] > high


def test_the_gap_of_answers_is_that_of_pairs_that_they_decide() -> None:
    numbers = {"difference": 0.3, "difference_low": 0.1, "difference_high": 0.5}
    row = {"class": "a", "cue": "ink", "association__basis": "labels"}
    row |= {f"association__{name}": value for name, value in numbers.items()}
    frame = pd.DataFrame([row, row | {"class": "b", "association__basis": "two states"}])
    gap, error = answered_gap(frame, "a", "ink") or (0.0, 0.0)
    assert gap == 0.3
    assert error == pytest.approx(0.2 / 1.96, rel=1e-3)
    assert answered_gap(frame, "b", "ink") is None


def test_few_images_give_wide_bounds() -> None:
    wide = phi(made(120), resamples=40)
    narrow = phi(made(1000), resamples=40)
    assert wide[2] - wide[1] > 1.5 * (narrow[2] - narrow[1])


def test_nothing_edited_is_nan_and_no_contrast_is_nothing() -> None:
    world = made(100)
    findings = world.findings
    sums = collect(world, findings.population, findings.presence, ["cue"])
    empty = Contrast(0, 1, 0, [], np.zeros((0, WIDTH), np.float32))
    shares = evidence_shares(sums, [empty], RIDGE, 5, 0)
    assert np.isnan(shares.effect).all()
    assert all(np.isnan(bound).all() for bound in shares.bounds())
    assert evidence_shares(sums, [], RIDGE, 5, 0).effect.shape == (0,)


def deletion(lost: np.ndarray, count: int = 60, seed: int = 0) -> Deletion:
    """Images that lose a vector by deletion, and nothing by the control."""
    rng = np.random.default_rng(seed)
    before = rng.normal(0, 0.3, (count, WIDTH)).astype(np.float32)
    control = np.stack([before] * len(FILLS))
    noise = rng.normal(0, 0.05, control.shape)
    return Deletion(
        tuple(f"i/{n}" for n in range(count)),
        before,
        (control - lost + noise).astype(np.float32),
        control,
    )


def test_a_margin_falls_with_its_own_direction_only() -> None:
    texts = np.eye(WIDTH, dtype=np.float32)[3:6]
    falls = margin_change(deletion(0.6 * texts[0]), texts, 0)
    assert falls.low > 0.5
    assert falls.agree
    assert falls.p < 1e-6
    stays = margin_change(deletion(0.6 * np.eye(WIDTH)[9]), texts, 0)
    assert abs(stays.effect) < 0.2
    assert stays.low < 0 < stays.high


def test_twins_with_one_text_are_no_rivals() -> None:
    texts = np.eye(WIDTH, dtype=np.float32)[[3, 3, 5]]
    falls = margin_change(deletion(0.6 * texts[0]), texts, 0)
    assert falls.low > 0.5  # against itself the margin would be 0 for ever
    alone = margin_change(deletion(0.6 * texts[0]), texts[:2], 0)
    assert alone.low > 0.5


def test_an_images_other_classes_are_no_rivals() -> None:
    """Deletion raises the second text by as much as it lowers the first."""
    texts = np.eye(WIDTH, dtype=np.float32)[3:6]
    lost = deletion(0.6 * (texts[0] - texts[1]))
    also = np.zeros((60, 3), bool)
    assert margin_change(lost, texts, 0, also) == margin_change(lost, texts, 0)
    also[:, 1] = True
    alone = margin_change(lost, texts, 0, also)
    assert alone == margin_change(lost, texts[[0, 2]], 0)
    assert alone.effect < margin_change(lost, texts, 0).effect
    also[:, 2] = np.arange(60) < 30
    assert margin_change(lost, texts, 0, also) == margin_change(
        lost.take(np.arange(60) >= 30), texts[[0, 2]], 0
    )


def test_fills_that_disagree_are_seen() -> None:
    one = deletion(0.6 * np.eye(WIDTH, dtype=np.float32)[3])
    against = one.without.copy()
    against[1] = 2 * one.control[1] - one.without[1]
    change = direction_change(
        Deletion(one.ids, one.before, against, one.control), np.eye(WIDTH, dtype=np.float32)[3]
    )
    assert not change.agree


def test_no_spread_is_nan() -> None:
    one = deletion(np.zeros(WIDTH), count=1)
    assert np.isnan(direction_change(one, np.eye(WIDTH, dtype=np.float32)[3]).effect)
