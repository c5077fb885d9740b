"""The check that the driver sees the files that nodes write into the output, and deletes them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.cluster import each_node
from pipeline.cluster.each_node import NodeAnswer, write_finding
from pipeline.cluster.nodes import Node
from pipeline.config import RunConfig
from tests.data import mini_config

MARK = "preflight-12345678-"
NODES = [Node(letter * 8, f"10.0.0.{letter}", 8, 0, 2**33, 2**30) for letter in "abc"]


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    (tmp_path / "out" / "_run").mkdir(parents=True)
    (tmp_path / "out" / "_run" / "manifest.json").write_text("{}")
    return mini_config({"format": "folder", "uri": str(tmp_path / "in")}, tmp_path / "out")


@pytest.fixture(autouse=True)
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Node]:
    """The nodes that were asked to delete their own file."""
    nodes: list[Node] = []

    def ask(members: list[Node], question: Callable[..., Any], *arguments: Any) -> list[Any]:
        nodes.extend(members)
        return []

    monkeypatch.setattr(each_node, "ask_each", ask)
    return nodes


def write(config: RunConfig, *nodes: Node) -> None:
    for node in nodes:
        Path(config.output, "_run", MARK + node.id).write_bytes(b"probe")


def left(config: RunConfig) -> list[str]:
    return [path.name for path in Path(config.output, "_run").iterdir()]


def test_all_nodes_write(config: RunConfig, asked: list[Node]) -> None:
    write(config, *NODES)
    assert write_finding(config, [(node, NodeAnswer({})) for node in NODES], MARK).good
    assert left(config) == ["manifest.json"]
    assert asked == []


def test_a_node_that_cannot_write_leaves_no_file_of_another_behind(config: RunConfig) -> None:
    write(config, *NODES[:2])
    answers = [(node, NodeAnswer({})) for node in NODES[:2]]
    answers.append((NODES[2], NodeAnswer({}, write_error="disk full")))
    finding = write_finding(config, answers, MARK)
    assert not finding.good
    assert str(NODES[2]) in finding.text
    assert "disk full" in finding.text
    assert left(config) == ["manifest.json"]


def test_a_node_that_wrote_and_then_failed_leaves_no_file_behind(config: RunConfig) -> None:
    write(config, *NODES)
    assert write_finding(config, [(NODES[0], NodeAnswer({}))], MARK).good
    assert left(config) == ["manifest.json"]


def test_a_node_with_a_disk_of_its_own_deletes_its_file(
    config: RunConfig, asked: list[Node]
) -> None:
    write(config, NODES[0])
    answers = [(node, NodeAnswer({})) for node in NODES[:2]]
    finding = write_finding(config, answers, MARK)
    assert not finding.good
    assert str(NODES[1]) in finding.text
    assert asked == [NODES[1]]
    assert left(config) == ["manifest.json"]
