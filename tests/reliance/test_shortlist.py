"""Tasks from stored results: every class is read once, and images are chosen by their ids."""

from pathlib import Path

import pytest

from pipeline import Audit
from pipeline.config.audit_settings import RelianceConfig
from pipeline.reliance import shortlist
from pipeline.reliance.shortlist import Listed, PairTask, tasks
from tests.audit.worlds import World, labels


@pytest.fixture(scope="module")
def audit(tmp_path_factory: pytest.TempPathFactory) -> Audit:
    world = World(labels(900, ["a", "b", "c"]))
    world.cue("mark", {"a": 0.6}, elsewhere=0.1).cue("tag", {"a": 0.5}, elsewhere=0.1)
    return Audit.from_results(world.write(tmp_path_factory.mktemp("shortlist") / "out", {}))


def test_rows_of_a_class_are_read_once(audit: Audit, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    rows = shortlist._rows

    def counted(results: object, findings: object, cls: str) -> object:
        read.append(cls)
        return rows(results, findings, cls)  # type: ignore[arg-type]

    monkeypatch.setattr(shortlist, "_rows", counted)
    listed = [Listed("a", "mark", "b"), Listed("b", "tag", "a"), Listed("a", "tag", "b")]
    made = list(tasks(audit.results, audit.findings, listed, RelianceConfig(images=20)))
    assert sorted(read) == ["a", "b"]
    assert [(task.cls, task.cue) for task in made] == [("a", "mark"), ("a", "tag"), ("b", "tag")]
    having = audit.images("a", "mark", present=True).index
    without = audit.images("b", "mark", present=False).index
    assert len(made[0].images) == len(made[0].targets) == 20
    assert {image["image_id"] for image in made[0].images} <= set(having)
    assert {image["image_id"] for image in made[0].targets} <= set(without)


def test_other_cues_of_an_image_are_named(audit: Audit) -> None:
    config = RelianceConfig(images=400)
    (task,) = tasks(audit.results, audit.findings, [Listed("a", "mark", "b")], config)
    with_tag = set(audit.images("a", "tag", present=True).index)
    for image in task.images:
        assert image["others"] == (["tag"] if image["image_id"] in with_tag else [])


def test_sets_of_labels(tmp_path: Path) -> None:
    """Images of the class with the cue name all their labels; targets are not of the class."""
    world = World(labels(900, ["a", "b", "c"]))
    world.cue("mark", {"a": 0.6}, elsewhere=0.1)
    world.sets = [
        [label, "b"] if label == "a" and number % 2 else [label]
        for number, label in enumerate(map(str, world.labels))
    ]
    audit = Audit.from_results(world.write(tmp_path / "out", {}))
    (task,) = tasks(
        audit.results, audit.findings, [Listed("a", "mark", "b")], RelianceConfig(images=400)
    )
    of = dict(zip(world.ids, world.sets, strict=True))
    assert {row["image_id"] for row in task.images} == set(
        audit.images("a", "mark", present=True).index
    )
    assert all(row["labels"] == sorted(of[row["image_id"]]) for row in task.images)
    both = {row["image_id"] for row in task.images if len(of[row["image_id"]]) == 2}
    assert len(both) > 20
    assert task.other_labels == dict.fromkeys(both, frozenset({"b"}))
    assert len(task.targets) > 100
    assert all(of[row["image_id"]] == ["b"] for row in task.targets)
    assert PairTask.from_json(task.to_json()) == task
