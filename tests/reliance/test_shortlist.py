"""Tasks from stored results: every class is read once, and images are chosen by their ids."""

import pytest

from pipeline import Audit
from pipeline.config.audit_settings import RelianceConfig
from pipeline.reliance import shortlist
from pipeline.reliance.shortlist import Listed, tasks
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
