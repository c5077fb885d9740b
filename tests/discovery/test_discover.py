"""Discovery on images with known cues: planted ones are found and confirmed, nothing else is."""

import numpy as np
import pyarrow as pa
import pytest

from pipeline.audit.scores import count_population
from pipeline.config.audit_settings import AuditConfig
from pipeline.discovery import Discovery, discover, discovery_costs, search, worth_a_look
from pipeline.discovery.confirm import ONLY_HERE, PairOfWord, confirm
from pipeline.discovery.halves import HalfScores
from pipeline.errors import UsageError
from tests.discovery.worlds import CLASSES, WORDS, EmbeddedWorld

PLANTED = {("birch", 17): 0.7, ("elm", 40): 0.5}


def discovered(world: EmbeddedWorld, monkeypatch: pytest.MonkeyPatch, top: int = 3) -> Discovery:
    monkeypatch.setattr(search, "run_directions", world.directions)
    settings = AuditConfig(bootstrap=50, bins=128)
    return discover(world.results, settings, ["not read"] * WORDS, top)


def test_planted_words_lead_their_class_and_are_confirmed(monkeypatch: pytest.MonkeyPatch) -> None:
    found = discovered(EmbeddedWorld(PLANTED), monkeypatch)
    confirmed = found.candidates[found.candidates["confirmed"]]
    assert set(zip(confirmed["class"], confirmed["word"], strict=True)) == {
        ("birch", "w17"),
        ("elm", "w40"),
    }
    assert (confirmed["rank"] == 1).all()
    assert confirmed.set_index("class")["share"]["birch"] == pytest.approx(0.7, abs=0.06)
    assert (confirmed["odds_low"] > 1.5).all()
    assert (found.candidates["reason"] == "").tolist() == found.candidates["confirmed"].tolist()
    assert found.words == WORDS
    assert found.classes == len(CLASSES)


def test_where_nothing_is_planted_nothing_is_confirmed(monkeypatch: pytest.MonkeyPatch) -> None:
    found = discovered(EmbeddedWorld({}, seed=4), monkeypatch)
    assert len(found.candidates) > len(CLASSES)
    assert not found.candidates["confirmed"].any()
    assert worth_a_look(found.candidates)["confirmed"].sum() == 0


def test_decoys_are_other_words_in_the_same_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    found = discovered(EmbeddedWorld(PLANTED), monkeypatch)
    pairs = set(zip(found.candidates["class"], found.candidates["word"], strict=True))
    decoys = set(zip(found.decoys["class"], found.decoys["word"], strict=True))
    assert len(decoys) == (found.candidates["kind"] != "thing").sum()
    assert not decoys & pairs
    assert not found.decoys["confirmed"].any()


def test_cues_that_a_query_names_are_not_found_again(monkeypatch: pytest.MonkeyPatch) -> None:
    found = discovered(EmbeddedWorld(PLANTED, cues=(17,)), monkeypatch)
    assert "w17" in found.named
    assert "w17" not in set(found.candidates["word"])
    assert "w40" in set(found.candidates["word"])


def test_a_thing_without_a_word_is_found_and_confirmed(monkeypatch: pytest.MonkeyPatch) -> None:
    world = EmbeddedWorld({}, unnamed={"cedar": 0.5}, objects=20.0)
    found = discovered(world, monkeypatch)
    confirmed = found.candidates[found.candidates["confirmed"]]
    assert confirmed[["class", "kind"]].to_numpy().tolist() == [["cedar", "thing"]]
    assert confirmed["share"].item() == pytest.approx(0.5, abs=0.06)
    direction = found.directions[confirmed["word"].item()]
    assert direction @ world.thing > 0.75
    assert confirmed["also"].item().count("(") == 3


def test_a_thing_that_only_its_class_has_is_worth_a_look(monkeypatch: pytest.MonkeyPatch) -> None:
    world = EmbeddedWorld({}, unnamed={"cedar": 0.5}, elsewhere=0.0, objects=20.0)
    found = discovered(world, monkeypatch)
    assert not found.candidates["confirmed"].any()
    look = worth_a_look(found.candidates)
    only = look[look["reason"] == ONLY_HERE]
    assert list(only["class"]) == ["cedar"]
    assert abs(found.directions[only["word"].item()] @ world.thing) > 0.75
    assert only["share"].item() == pytest.approx(0.5, abs=0.06)


@pytest.mark.parametrize("has_word", [True, False])
def test_a_thing_that_the_other_classes_have_as_often_is_not_confirmed(has_word: bool) -> None:
    """It raises the scores of its own class more, so a fit of all classes misses it elsewhere."""
    world = EmbeddedWorld({}, images=6000)
    rng = np.random.default_rng(3)
    labels = np.array(world.table["label"].to_pylist())
    labels[rng.random(6000) < 0.5] = "cedar"
    scores = rng.normal(size=6000)
    scores += (rng.random(6000) < 0.3) * np.where(labels == "cedar", 8.0, 4.6)
    embedding = pa.FixedSizeListArray.from_arrays(pa.array(scores.astype(np.float32)), 1)
    world.table = world.table.set_column(1, "label", pa.array(labels))
    world.table = world.table.set_column(3, "embedding", embedding)
    direction = {"unnamed 1": np.ones(1, np.float32)}
    half = HalfScores(world.results, True, direction)
    population = count_population(half, 100)
    pair = PairOfWord(CLASSES.index("cedar"), "unnamed 1", has_word=has_word)
    row = confirm(half, population, [pair], AuditConfig(bootstrap=50, bins=128)).iloc[0]
    assert row["confirmed"] == has_word
    assert has_word or "as often" in row["reason"]


def test_what_the_cues_of_the_run_explain_is_no_thing(monkeypatch: pytest.MonkeyPatch) -> None:
    for cues in ((), (17, 40)):
        world = EmbeddedWorld({("birch", 17): 0.5, ("birch", 40): 0.5}, cues=cues, objects=20.0)
        found = discovered(world, monkeypatch)
        things = found.candidates[found.candidates["kind"] == "thing"]
        along = np.abs([found.directions[name] @ world.words[17] for name in things["word"]])
        assert bool(along.max() < 0.5) is bool(cues)
        assert bool(things["confirmed"].any()) is not bool(cues)


def test_overlapping_states_are_worth_a_look_and_not_confirmed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = EmbeddedWorld({("birch", 17): 0.7}, distance=2.0)
    found = discovered(world, monkeypatch)
    look = worth_a_look(found.candidates)
    assert ("birch", "w17") in set(zip(look["class"], look["word"], strict=True))
    assert not found.candidates["confirmed"].any()


def test_what_cannot_be_scanned_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    world = EmbeddedWorld(PLANTED, images=40)
    world.table = world.table.drop_columns(["embedding"])
    with pytest.raises(UsageError, match="embeddings"):
        discovered(world, monkeypatch)
    single = EmbeddedWorld(PLANTED, images=40)
    single.table = single.table.set_column(1, "label", pa.array(["ash"] * 40))
    with pytest.raises(UsageError, match="two are needed"):
        discovered(single, monkeypatch)


def test_costs_count_images_words_and_pairs() -> None:
    costs = discovery_costs(EmbeddedWorld(PLANTED).results, AuditConfig(), ["a", "b"], top=5)
    assert (costs.images, costs.classes, costs.words, costs.pairs) == (3000, 6, 2, 60)
