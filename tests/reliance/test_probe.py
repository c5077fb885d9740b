"""The probe from sums equals the probe from images; folds are kept apart in every measure."""

import numpy as np
import pandas as pd
import pytest

from pipeline.errors import UsageError
from pipeline.reliance.probe import (
    FOLDS,
    GROUPS,
    ProbeSums,
    collect,
    cross_fitted,
    fit,
    groups,
    probe_quality,
)
from tests.reliance.made import WIDTH, Embedded, made

RIDGE = 0.1


def sums_of(world: Embedded) -> ProbeSums:
    findings = world.findings
    return collect(world, findings.population, findings.presence, ["cue"])


def direct(world: Embedded, rows: np.ndarray) -> np.ndarray:
    """(E,) Fisher's direction between a and b of some images, by its definition."""
    vectors = world.vectors.astype(np.float32).astype(np.float64)
    mine = [vectors[rows & (world.labels == name)] for name in ("a", "b")]
    centred = np.concatenate([v - v.mean(axis=0) for v in mine])
    covariance = centred.T @ centred / (len(centred) - 2)
    covariance += RIDGE * np.trace(covariance) / WIDTH * np.eye(WIDTH)
    return np.linalg.solve(covariance, mine[0].mean(axis=0) - mine[1].mean(axis=0))


def test_sums_give_the_direction_that_the_images_give() -> None:
    world = made(300, apart=0.5)
    sums, known = sums_of(world), world.findings.population
    a, b = (np.array([known.index[name]]) for name in ("a", "b"))
    every = np.ones(len(world.labels), bool)
    direction = fit(sums, np.ones(GROUPS), RIDGE).direction(a, b)[0]
    np.testing.assert_allclose(direction, direct(world, every), rtol=2e-4, atol=1e-4)
    fold = groups(world.ids) % FOLDS
    for number, probe in enumerate(cross_fitted(sums, np.ones(GROUPS), RIDGE)):
        expected = direct(world, fold != number)
        np.testing.assert_allclose(probe.direction(a, b)[0], expected, rtol=2e-4, atol=1e-4)


def test_weights_count_groups_again() -> None:
    world = made(200)
    sums, known = sums_of(world), world.findings.population
    weights = np.random.default_rng(0).integers(0, 3, GROUPS).astype(float)
    rows = np.repeat(np.arange(200), weights[groups(world.ids)].astype(int))
    again = Embedded(world.labels[rows], world.has[rows], world.vectors[rows])
    a, b = (np.array([known.index[name]]) for name in ("a", "b"))
    direction = fit(sums, weights, RIDGE).direction(a, b)[0]
    expected = direct(again, np.ones(len(rows), bool))
    np.testing.assert_allclose(direction, expected, rtol=2e-4, atol=1e-4)


def test_soft_counts_of_the_cue() -> None:
    world = made(500)
    sums, known = sums_of(world), world.findings.population
    for name in ("a", "b"):
        counted = sums.present[:, 0, known.index[name]].sum()
        assert counted == pytest.approx((world.has & (world.labels == name)).sum(), abs=0.5)
    assert sums.images.sum() == 500


def test_judging_is_held_out() -> None:
    """Labels by chance: a probe that saw its images would be far above one half."""
    rng = np.random.default_rng(3)
    world = made(120, in_a=0.5, in_b=0.5)
    world.vectors = rng.normal(0, 1, (120, WIDTH))
    frame = judged(world)
    assert (np.abs(frame["accuracy"] - 0.5) < 0.2).all()
    assert (np.abs(frame["auc"] - 0.5) < 0.2).all()
    assert (frame["auc_low"] < 0.5).all()


def judged(world: Embedded):
    findings, sums = world.findings, sums_of(world)
    probes = cross_fitted(sums, np.ones(GROUPS), RIDGE)
    rivals = fit(sums, np.ones(GROUPS), RIDGE).rivals(sums.shared, 20)
    return probe_quality(world, findings.population, probes, rivals).set_index("class")


def test_judging_separable_and_cue_only_labels() -> None:
    apart = judged(made(400, apart=3.0))
    assert (apart["accuracy"] > 0.99).all()
    assert apart.loc["a", "rival"] == "b"
    only = judged(made(400))
    assert ((only["accuracy"] > 0.8) & (only["accuracy"] < 0.95)).all()
    assert (only["accuracy_low"] > only["chance"]).all()


def test_no_rival_where_there_is_no_other_class() -> None:
    world = made(100)
    world.labels[:] = "a"
    findings = world.findings
    sums = collect(world, findings.population, findings.presence, [])
    assert fit(sums, np.ones(GROUPS), RIDGE).rivals(sums.shared, 20).tolist() == [-1]


def test_the_rest_of_all_labels_is_nobodys_rival() -> None:
    """The second class stands for the rest."""
    world = made(400)
    world.labels[:100] = "b"
    sums = sums_of(world)
    probe = fit(sums, np.ones(GROUPS), RIDGE)
    assert sorted(probe.rivals(sums.shared, 20).tolist()) == [0, 1]
    assert probe.rivals(sums.shared, 20, audited=1).tolist() == [-1, 0]


def test_sets_of_one_label_give_what_labels_give() -> None:
    world = made(400, apart=0.5)
    again = made(400, apart=0.5)
    again.sets = [[label] for label in world.labels]
    for ours, theirs in zip(
        vars(sums_of(world)).values(), vars(sums_of(again)).values(), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)
    pd.testing.assert_frame_equal(judged(world), judged(again))


def test_an_image_counts_for_each_of_its_classes() -> None:
    """c has all images of a and half of b's: it is no rival of a, but of b."""
    world = made(600, apart=3.0)
    rng = np.random.default_rng(0)
    c = (world.labels == "a") | (rng.random(600) < 0.5)
    world.sets = [
        ["c", label] if also else [label] for label, also in zip(world.labels, c, strict=True)
    ]
    sums, known = sums_of(world), world.findings.population.index
    a, b, c_code = known["a"], known["b"], known["c"]
    assert sums.shared[a, c_code] == sums.images.sum(axis=0)[a] == (world.labels == "a").sum()
    assert sums.shared[b, c_code] == (c & (world.labels == "b")).sum()
    assert sums.shared[a, b] == 0
    probe = fit(sums, np.ones(GROUPS), RIDGE)
    assert probe.rivals(np.zeros_like(sums.shared), 20)[a] == c_code  # the nearest
    assert probe.rivals(sums.shared, 20)[a] == b  # no image of a is without c
    quality = judged(world)
    assert quality.loc["a", "auc"] > 0.99
    assert quality.loc["b", "rival"] == "c"
    assert quality.loc["b", "auc"] > 0.99  # of b without c, against c without b, which are a


def test_no_embeddings_is_said() -> None:
    world = made(60)

    class Bare:
        dataset = world.dataset.replace_schema(
            world.dataset.schema.remove(world.dataset.schema.get_field_index("embedding"))
        )

    findings = world.findings
    with pytest.raises(UsageError, match=r"store\.embeddings"):
        collect(Bare(), findings.population, findings.presence, ["cue"])
