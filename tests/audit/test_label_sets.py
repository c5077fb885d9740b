"""Images with several labels: a class is compared with the images without it."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from pipeline.audit.class_members import label_pairs
from pipeline.audit.scores import OTHER, count_population
from pipeline.auditor import Audit
from pipeline.export import tables
from pipeline.labelling import write_labelling
from pipeline.schema import LABEL_SEPARATOR
from tests.audit.test_labels import answer
from tests.audit.worlds import World

CLASSES = ("cat", "dog", "car")
RATES = (0.5, 0.4, 0.2)
COUNT = 6000
ROLES = {"noise": "decoy"}
SETTINGS = {"bootstrap": 50, "suspicions": False, "gates": {"class_images": 50}}


def members(seed: int = 1) -> NDArray[np.bool_]:
    """(n, K) which classes each image has."""
    return np.random.default_rng(seed).random((COUNT, len(CLASSES))) < RATES


def world(inside: NDArray[np.bool_], sets: list[list[str] | None]) -> World:
    """A watermark that comes with cats, dogs that raise every score, and a cue of nothing."""
    rng = np.random.default_rng(2)
    labels = [None if s is None else LABEL_SEPARATOR.join(s) or None for s in sets]
    made = World(labels, sets=sets)
    rates = np.where(inside[:, 0], 0.5, 0.1)
    for name, chance in (("watermark", rates), ("frame", 0.2), ("noise", 0.2)):
        has = rng.random(COUNT) < chance
        offset = 3.0 * inside[:, 1] - 2.0 * inside[:, 2]
        noise = rng.normal(0, 1, COUNT)
        made.has[name] = has
        made.scores[name] = 0.2 + 0.01 * (offset + noise + 12 * has)
    return made


def named(inside: NDArray[np.bool_]) -> list[list[str] | None]:
    return [[name for name, has in zip(CLASSES, row, strict=True) if has] for row in inside]


@pytest.fixture(scope="module")
def truth() -> World:
    return world(members(), named(members()))


@pytest.fixture(scope="module")
def audit(truth: World, tmp_path_factory: pytest.TempPathFactory) -> Audit:
    place = truth.write(tmp_path_factory.mktemp("sets") / "run", ROLES)
    return Audit.from_results(place, settings=SETTINGS)


def test_a_table_of_one_label_each_replaces_the_sets(
    truth: World, audit: Audit, tmp_path: Path
) -> None:
    labels = np.where(members()[:, 0], "cat", "other")
    table = tmp_path / "labels.csv"
    pd.DataFrame({"key": truth.ids, "label": labels}).to_csv(table, index=False)
    single = Audit.from_results(
        audit.results.folder.uri, class_labels=str(table), settings=SETTINGS
    )
    population = single.findings.population
    assert not population.has_sets
    assert sorted(population.sizes) == sorted(np.unique(labels, return_counts=True)[1])


PAIRS = [("cat", "watermark"), ("dog", "watermark"), ("dog", "frame")]


def test_peoples_answers_about_a_class_and_the_images_without_it(
    truth: World, audit: Audit, tmp_path: Path
) -> None:
    written = write_labelling(audit, tmp_path, pairs=PAIRS, labels=150)
    place = audit.results.folder.uri
    labelled = Audit.from_results(place, settings=SETTINGS, labels=[answer(truth, written.table)])
    pairs = labelled.rank().set_index(["class", "cue"])
    inside = members()
    for cls, cue in PAIRS:
        row, within = pairs.loc[(cls, cue)], inside[:, CLASSES.index(cls)]
        share, rest = truth.has[cue][within].mean(), truth.has[cue][~within].mean()
        assert row["association__basis"] == "labels"
        assert row["share"] == pytest.approx(share, abs=0.08)
        assert row["share_elsewhere"] == pytest.approx(rest, abs=0.08)
        low, high = row["association__difference_low"], row["association__difference_high"]
        assert low < share - rest < high
    assert pairs.loc[PAIRS[0], "association__flag"]
    assert not pairs.loc[PAIRS[1:], "association__flag"].any()


def test_answers_about_sets_of_one_label_say_what_those_about_labels_say(tmp_path: Path) -> None:
    inside = np.eye(3, dtype=bool)[np.random.default_rng(3).integers(0, 3, COUNT)]
    frames = []
    for name, sets in (("sets", named(inside)), ("labels", [])):
        made = world(inside, named(inside))
        made.sets = sets
        place = made.write(tmp_path / name, ROLES)
        audit = Audit.from_results(place, settings=SETTINGS)
        written = write_labelling(audit, tmp_path / f"{name} page", pairs=PAIRS, labels=60)
        answers = answer(made, written.table)
        audit = Audit.from_results(place, settings=SETTINGS, labels=[answers])
        assert audit.findings.labelled is not None
        frames.append(audit.findings.labelled.frame)
    pd.testing.assert_frame_equal(*frames, rtol=1e-5)


def test_classes_are_what_is_in_the_sets(audit: Audit) -> None:
    population, inside = audit.findings.population, members()
    assert population.classes == (*CLASSES, OTHER)
    assert population.sizes.tolist() == [*inside.sum(axis=0), (~inside.any(axis=1)).sum()]
    assert (population.total, population.unlabelled) == (COUNT, 0)
    assert audit.classes == CLASSES
    assert audit.summary.images == COUNT
    assert any("sets of labels" in caveat for caveat in audit.summary.caveats)


def test_a_class_is_compared_with_the_images_without_it(audit: Audit, truth: World) -> None:
    inside = members()
    pairs = audit.rank(decoys=True).set_index(["class", "cue"])
    for number, cls in enumerate(CLASSES):
        for cue, has in truth.has.items():
            row, within = pairs.loc[(cls, cue)], inside[:, number]
            assert row["images"] == within.sum()
            assert row["share"] == pytest.approx(has[within].mean(), abs=0.02)
            assert row["share_elsewhere"] == pytest.approx(has[~within].mean(), abs=0.02)
            a, b = has[within].sum(), (~has)[within].sum()
            c, d = has[~within].sum(), (~has)[~within].sum()
            assert row["association__effect"] == pytest.approx(a * d / (b * c), rel=0.1)
            assert row["association__low"] < a * d / (b * c) < row["association__high"]
    flagged = pairs.index[pairs["association__flag"]].tolist()
    assert flagged == [("cat", "watermark")]


def test_sets_of_one_label_give_what_single_labels_give(tmp_path: Path) -> None:
    inside = np.eye(3, dtype=bool)[np.random.default_rng(3).integers(0, 3, COUNT)]
    frames = []
    for name, sets in (("sets", named(inside)), ("labels", [])):
        made = world(inside, named(inside))
        made.sets = sets
        audit = Audit.from_results(made.write(tmp_path / name, ROLES), settings=SETTINGS)
        columns = ["class", "cue", "images", "share", "share_elsewhere", "association__effect"]
        frames.append(audit.rank()[columns])
        assert audit.findings.population.has_sets == (name == "sets")
    pd.testing.assert_frame_equal(*frames, rtol=1e-5)


def test_images_and_exports(audit: Audit, truth: World) -> None:
    inside, has = members(), truth.has["watermark"]
    shown = audit.images("cat", "watermark", present=True)
    expected = {truth.ids[row] for row in np.flatnonzero(inside[:, 0] & has)}
    assert len(expected ^ set(shown.index)) < 0.01 * len(expected)
    pair = audit.pair("cat", "watermark")
    width = np.diff(pair.densities["score"]).mean()
    assert (pair.densities[["in_class", "elsewhere"]].sum() * width).tolist() == pytest.approx(
        [1, 1], abs=0.02
    )
    groups = tables.groups(audit, ["watermark"])
    assert len(groups) == COUNT
    assert set(groups["label"]) == {LABEL_SEPARATOR.join(s or []) for s in truth.sets}
    assert groups.groupby("group")["group_name"].nunique().eq(1).all()
    issues = tables.issues(audit, [("cat", "watermark")])
    assert len(issues) == COUNT
    assert set(issues["image_id"][issues["is_spurious_issue"]]) == set(shown.index)


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_predicted_sets_of_labels(truth: World, audit: Audit, tmp_path: Path, ending: str) -> None:
    """An image is called a cat if it has the watermark, and a dog if it is one."""
    inside, has = members(), truth.has["watermark"]
    called = np.column_stack([has, inside[:, 1], np.zeros(COUNT, bool)])
    names = [[*of, *of[:1]] for of in named(called) if of is not None]  # one label twice
    file = tmp_path / f"p.{ending}"
    table = pd.DataFrame({"image_id": truth.ids, "prediction": names})
    if ending == "parquet":
        table.to_parquet(file)
    else:
        table["prediction"] = table["prediction"].str.join(LABEL_SEPARATOR)
        table.to_csv(file, index=False)
    frame = audit.predictions(str(file)).set_index(["class", "cue"])
    cat, dog = frame.loc[("cat", "watermark")], frame.loc[("dog", "watermark")]
    assert cat["with_cue"] == pytest.approx((inside[:, 0] & has).sum(), rel=0.01)
    assert (cat["accuracy_with"], cat["taken_with"]) == pytest.approx((1, 1), abs=0.01)
    assert (cat["accuracy_without"], cat["taken_without"]) == pytest.approx((0, 0), abs=0.01)
    assert (dog["accuracy_with"], dog["accuracy_without"], dog["gap"]) == (1, 1, 0)
    assert (dog["taken_with"], dog["taken_without"]) == (0, 0)


def test_rare_labels_and_mixed_rows(tmp_path: Path) -> None:
    made = World(["a", "b", "a|b", None, None, "c", "a|c"])
    made.scores["cue"] = np.arange(7) / 10
    made.sets = [["a"], None, ["a", "b"], [], None, ["c"], ["a", "c"]]
    dataset = made.dataset
    rows, labels = label_pairs(dataset.to_table(["label", "labels"]))
    pairs = list(zip(rows.tolist(), labels.to_pylist(), strict=True))
    assert pairs == [(0, "a"), (1, "b"), (2, "a"), (2, "b"), (5, "c"), (6, "a"), (6, "c")]
    population = count_population(made, 2)
    assert population.classes == ("a", "b", OTHER)
    assert population.sizes.tolist() == [3, 2, 2]  # of the others: the empty set, and c alone
    assert (population.total, population.unlabelled) == (6, 1)
