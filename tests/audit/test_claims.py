"""Claim A on worlds whose truth is known, and at the edges: clear words, no crash, no warnings."""

import re

import numpy as np
import pandas as pd
import pytest

from pipeline.audit.findings import Findings, find
from pipeline.audit.strata import Strata, count_strata, mantel_haenszel
from pipeline.config.audit_settings import AuditConfig
from tests.audit.worlds import World, labels

pytestmark = pytest.mark.filterwarnings("error")
CLASSES = [f"class {n}" for n in range(8)]


def audit(world: World, decoys: tuple[str, ...] = (), **settings: object) -> Findings:
    cues = [name for name in world.scores if name not in decoys]
    return find(world, cues, decoys, AuditConfig.model_validate(settings))


def row(found: Findings, cls: str, cue: str) -> pd.Series:
    frame = found.frame
    return frame[(frame["class"] == cls) & (frame["cue"] == cue)].iloc[0]


def flagged(found: Findings) -> set[tuple[str, str]]:
    frame = found.frame[found.frame["association__flag"]]
    return set(zip(frame["class"], frame["cue"], strict=True))


@pytest.fixture(scope="module")
def mixed() -> World:
    world = World(labels(3000, CLASSES))
    world.cue("strong", {"class 1": 0.8})
    world.cue("weak", {"class 2": 0.3})
    world.cue("everywhere_alike", {}, elsewhere=0.3)
    world.cue("not_there", {}, elsewhere=0.0)
    return world.cue("alone", {"class 3": 0.6}, elsewhere=0.0)


@pytest.fixture(scope="module")
def of_mixed(mixed: World) -> Findings:
    return audit(mixed, decoys=("not_there",))


def test_planted_pairs_are_flagged_and_nothing_else(mixed: World, of_mixed: Findings) -> None:
    found = of_mixed
    assert flagged(found) == {("class 1", "strong"), ("class 2", "weak"), ("class 3", "alone")}
    strong = row(found, "class 1", "strong")
    members = np.array(mixed.labels) == "class 1"
    assert strong["with_cue"] == pytest.approx(mixed.has["strong"][members].sum(), abs=1)
    assert strong["association__low"] < strong["association__effect"] < strong["association__high"]
    assert strong["share_elsewhere"] == pytest.approx(0.05, abs=0.02)
    assert found.decoys.flagged_pairs == 0
    assert found.decoys.pairs == len(CLASSES)
    assert strong["association__fdr"] <= 1


def test_a_cue_that_only_its_class_has_is_a_finding_with_finite_odds(of_mixed: Findings) -> None:
    pair = row(of_mixed, "class 3", "alone")
    assert pair["share_elsewhere"] == pytest.approx(0, abs=1e-3)
    assert pair["association__flag"]
    bounds = pair[["association__effect", "association__low", "association__high"]]
    assert np.isfinite(bounds.astype(float)).all()


def test_class_shifts_are_not_presence() -> None:
    world = World(labels(4000, CLASSES))
    for number in range(12):
        world.cue(f"absent_{number}", {}, elsewhere=0.0, shift=15.0, seed=number)
    found = audit(world)
    assert flagged(found) == set()
    assert not found.presence.measured.any()
    assert "class-aligned, unconfirmed" in set(found.frame["presence"])


def test_every_image_of_one_class_and_none_elsewhere_is_unconfirmed() -> None:
    world = World(labels(2000, CLASSES)).cue("perfect", {"class 1": 1.0}, elsewhere=0.0, shift=0.5)
    pair = row(audit(world), "class 1", "perfect")
    assert not pair["association__flag"]
    assert pair["presence"] == "class-aligned, unconfirmed"


def test_every_image_of_one_class_and_some_elsewhere_is_unconfirmed_too() -> None:
    world = World(labels(2000, CLASSES)).cue("full", {"class 1": 1.0}, elsewhere=0.1, shift=0.5)
    found = audit(world)
    pair = row(found, "class 1", "full")
    assert pair["presence"] == "class-aligned, unconfirmed"
    assert flagged(found) == set()


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_cue_everywhere_or_nowhere_is_not_measurable(share: float) -> None:
    world = World(labels(1000, CLASSES)).cue("cue", {}, elsewhere=share)
    found = audit(world)
    assert flagged(found) == set()
    assert not found.presence.measured[0]
    assert found.frame["association__reason"].str.match("not measurable|class-aligned").all()


def test_scores_that_overlap_are_not_measurable() -> None:
    world = World(labels(2000, CLASSES)).cue("blur", {"class 1": 0.8}, distance=1.5)
    found = audit(world)
    assert not found.presence.measured[0]
    assert not found.frame["association__flag"].any()


def test_an_opposite_that_lowers_the_score_does_not_hide_the_cue() -> None:
    world = World(labels(3000, CLASSES)).cue("water", {"class 1": 0.8}, elsewhere=0.15)
    other = np.random.default_rng(1).random(3000) < 0.15
    world.scores["water"] -= 0.1 * (other & ~world.has["water"])
    found = audit(world)
    assert flagged(found) == {("class 1", "water")}
    assert found.presence.separation[0] == pytest.approx(10, rel=0.15)


def test_what_lowers_most_scores_is_no_presence_of_the_rest() -> None:
    world = World(labels(3000, CLASSES)).cue("tiles", {"class 1": 1.0}, elsewhere=0.85)
    found = audit(world)
    assert not found.presence.measured[0]
    assert found.presence.separation[0] > 4  # two states, which are not the presence of the cue


def test_an_echo_is_not_the_cue() -> None:
    world = World(labels(3000, CLASSES)).cue("watermark", {"class 1": 0.8}, distance=14)
    rng = np.random.default_rng(3)
    world.scores["logo"] = 0.1 + 0.01 * (rng.normal(0, 1, 3000) + 6 * world.has["watermark"])
    found = audit(world)
    assert flagged(found) == {("class 1", "watermark")}
    assert not found.presence.measured[1]
    assert "watermark" in found.presence.reason[1]


def test_no_labels() -> None:
    world = World([None] * 200).cue("cue", {}, elsewhere=0.3)
    found = audit(world)
    assert found.frame.empty
    assert found.population.unlabelled == 200


def test_one_class() -> None:
    world = World(["only"] * 300).cue("cue", {}, elsewhere=0.3)
    found = audit(world)
    pair = row(found, "only", "cue")
    assert not pair["association__flag"]
    assert pair["share"] == pytest.approx(world.has["cue"].mean(), abs=0.01)
    assert np.isnan(pair["association__effect"])


def test_a_class_of_three() -> None:
    world = World([*labels(1000, CLASSES), *["rare"] * 3]).cue("cue", {"rare": 1.0, "class 1": 0.8})
    found = audit(world)
    assert re.findall(r"\d+", row(found, "rare", "cue")["association__reason"]) == ["3", "20"]
    assert flagged(found) == {("class 1", "cue")}


def test_failed_rows_count_nowhere() -> None:
    world = World(labels(1000, CLASSES), statuses=["ok"] * 900 + ["decode_error"] * 100)
    found = audit(world.cue("cue", {"class 1": 0.8}))
    assert found.population.statuses["decode_error"] == 100
    assert found.population.sizes.sum() == 900
    assert flagged(found) == {("class 1", "cue")}


def test_nothing_but_failures_and_constant_scores() -> None:
    failed = World(["a", "b"] * 20, statuses=["read_error"] * 40).cue("cue", {})
    assert audit(failed).frame.empty
    world = World(labels(300, CLASSES)).cue("flat", {})
    world.scores["flat"][:] = 0.2
    assert not audit(world).presence.measured.any()


def test_small_data() -> None:
    for count in (1, 2, 5, 23, 60):
        world = World(labels(count, CLASSES)).cue("cue", {"class 1": 0.8}).cue("other", {})
        assert not audit(world).frame["association__flag"].any()


def test_a_threshold_of_the_users_is_exact() -> None:
    world = World(labels(2000, CLASSES)).cue("blur", {"class 1": 0.8}, distance=3.0, shift=0.0)
    found = audit(world, thresholds={"blur": 0.215})
    members = np.array(world.labels) == "class 1"
    above = world.scores["blur"].astype(np.float32).astype(float) >= 0.215
    pair = row(found, "class 1", "blur")
    assert pair["with_cue"] == (above & members).sum()
    assert pair["presence"] == "by threshold"
    assert pair["association__flag"]


def test_a_discovered_cue_is_tested_on_the_other_half() -> None:
    world = World(labels(2000, CLASSES)).cue("found", {"class 1": 0.8})
    found = audit(world, discovered=["found"])
    assert 0.4 < found.association.images.sum() / 2000 < 0.6
    assert flagged(found) == {("class 1", "found")}


def test_an_association_that_a_stratum_explains_is_no_finding() -> None:
    rng = np.random.default_rng(0)
    site = np.where(rng.random(4000) < 0.3, "A", "B")
    chosen = [
        str(rng.choice(CLASSES[:2], p=[0.9, 0.1] if place == "A" else [0.1, 0.9])) for place in site
    ]
    world = World(list(chosen), columns={"site": site.tolist()})
    world.cue("tag", {}, elsewhere=0.0)
    world.has["tag"] = rng.random(4000) < np.where(site == "A", 0.9, 0.05)
    world.scores["tag"] += 0.1 * world.has["tag"]
    assert flagged(audit(world)) == {("class 0", "tag")}
    held = audit(world, stratum="site")
    assert flagged(held) == set()
    pair = row(held, "class 0", "tag")
    assert "site" in pair["association__reason"]
    assert pair["within_site__low"] < 1.5
    assert pair["within_site__strata"] == 2


def test_an_association_within_strata_is_a_finding() -> None:
    site = ["A", "B", None, "C"] * 1000
    world = World(labels(4000, CLASSES), columns={"site": site}).cue("tag", {"class 0": 0.5})
    held = audit(world, stratum="site", discovered=["tag"])
    assert flagged(held) == {("class 0", "tag")}
    pair = row(held, "class 0", "tag")
    assert pair["within_site__strata"] == 4
    assert pair["within_site__low"] < 19 < pair["within_site__high"]


def test_a_discovered_cue_is_counted_in_half_of_each_stratum() -> None:
    world = World(labels(2000, CLASSES), columns={"site": ["A", "B"] * 1000})
    found = audit(world.cue("tag", {"class 0": 0.5}).cue("ink", {"class 1": 0.5}))
    about = (world, found.population, found.presence, "site", ["tag", "ink"])
    strata = count_strata(*about, frozenset(["ink"]))
    assert strata.all_images[0].tolist() == [0, 1000, 1000]
    assert 900 < strata.all_images[1].sum() < 1100
    assert strata.all_present[1].sum() < 0.7 * count_strata(*about).all_present[1].sum()


@pytest.mark.parametrize(("sites", "inside", "outside"), [(200, 1, 40), (100, 5, 95), (20, 1, 3)])
def test_small_strata_pretend_no_association(sites: int, inside: int, outside: int) -> None:
    rng, low, high = np.random.default_rng(0), [], []
    for _ in range(60):
        mine, theirs = rng.binomial(inside, 0.05, (1, 1, sites)), rng.binomial(outside, 0.05, sites)
        images, every = np.full((1, 1, sites), inside), np.full((1, sites), inside + outside)
        values = tuple(map(str, range(sites)))
        strata = Strata("site", values, ("tag",), images, mine, every, mine[0] + theirs)
        (pair,) = mantel_haenszel(strata, [("tag", 0)]).itertuples()
        low.append(pair.low)
        high.append(pair.high)
    assert np.mean(np.array(low) > 1.5) <= 0.05
    assert np.mean((np.array(low) > 1) | (np.array(high) < 1)) <= 0.12


def test_the_rarest_labels_count_as_one_class() -> None:
    world = World(labels(3000, CLASSES)).cue("cue", {"class 1": 0.8})
    found = audit(world, max_classes=5)
    assert len(found.population.classes) == 6
    assert found.population.audited == 5
    assert len(found.frame) == 5
    assert found.population.sizes.sum() == 3000
