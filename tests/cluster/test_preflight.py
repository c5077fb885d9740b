"""Findings of preflight from given answers of nodes; tests/integration has real nodes."""

import os
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from legrad.models.definition import hub_config
from pipeline import flow
from pipeline.cluster import job_variables, preflight, resources
from pipeline.cluster.each_node import version_finding, versions
from pipeline.cluster.model_files import EMBEDDED, ModelAnswer, ask_for_model, model_findings
from pipeline.cluster.nodes import Node
from pipeline.cluster.resources import Resources
from pipeline.config import ModelConfig
from pipeline.errors import UsageError
from tests.data import mini_config
from tests.legrad.test_definition import TINY, write_folder

GIB = 2**30


def node(name: str = "a", *, store: int = GIB, free: int = 8 * GIB, cpus: float = 8) -> Node:
    return Node(name * 8, f"10.0.0.{name}", cpus, 0.0, free, store)


def test_room_for_blocks() -> None:
    plan = Resources(actors=2, gpus=0, threads=2)
    (fine,) = preflight.object_store([node()], plan)
    assert fine.good
    assert "896 MiB" in fine.text
    (slow,) = preflight.object_store([node(store=100 * 2**20)], plan)
    assert slow.good
    assert "replicas wait" in slow.text
    (tiny,) = preflight.object_store([node(), node("b", store=2**20)], plan)
    assert not tiny.good
    assert "--object-store-memory" in tiny.text
    (head,) = preflight.object_store([node(), node("b", store=2**20, cpus=0)], plan)
    assert head.good


def test_a_plan_without_gpus_is_refused_before_the_source_is_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def listing(_: object) -> None:
        raise LookupError("listed")

    monkeypatch.setenv("RAY_ADDRESS", "a cluster")
    monkeypatch.setattr(flow, "session", nullcontext)
    monkeypatch.setattr(flow, "open_source", listing)
    monkeypatch.setattr(resources, "autoscaler_maxima", dict)
    monkeypatch.setattr(resources, "nodes", lambda: [node(), node("b")])
    runtime = {"actors": 2, "gpus_per_actor": 1}
    source = {"format": "folder", "uri": str(tmp_path / "in")}
    with pytest.raises(UsageError, match="2 actors x 1 GPUs, the cluster has 0 GPUs"):
        flow.run(mini_config(source, str(tmp_path / "out"), runtime=runtime))
    for fits in ({"actors": 2, "gpus_per_actor": 0}, runtime | {"wait_resources": 60}):
        with pytest.raises(LookupError, match="listed"):
            flow.run(mini_config(source, str(tmp_path / "out"), runtime=fits))


def test_one_run_has_one_set_of_versions() -> None:
    here = versions()
    assert here["python"].startswith("3.")
    assert version_finding(here, [("a", here)]).good
    other = version_finding(here, [("a", here), ("b", here | {"torch": "none"})])
    assert not other.good
    assert other.text.startswith(f"b has torch none (here {here['torch']}). Use one image")


def test_weights_that_are_missing_or_differ(tmp_path: Path) -> None:
    file = tmp_path / "w.safetensors"
    model = ModelConfig(name="ViT-B-16", pretrained=str(file))
    lacking = ask_for_model(model)
    (bad,) = model_findings(model, [("a", lacking)])
    assert not bad.good
    assert "FileNotFoundError" in bad.text
    file.write_bytes(b"one")
    one = ask_for_model(model)
    file.write_bytes(b"two")
    two = ask_for_model(model)
    (same,) = model_findings(model, [("a", one), ("b", one)])
    assert same.good
    (differ,) = model_findings(model, [("a", one), ("b", two)])
    assert not differ.good
    assert "the nodes hold different files (a: sha256 " in differ.text
    assert ask_for_model(ModelConfig(name="mini")) == ModelAnswer(EMBEDDED)


def test_folders_that_differ_between_nodes(tmp_path: Path) -> None:
    model = ModelConfig(name=str(write_folder(tmp_path / "tiny")))
    first = ask_for_model(model)
    assert first.problem is None
    (same,) = model_findings(model, [("a", first), ("b", ask_for_model(model))])
    assert same.good
    write_folder(tmp_path / "tiny", TINY | {"quick_gelu": False})
    (differ,) = model_findings(model, [("a", first), ("b", ask_for_model(model))])
    assert not differ.good
    (tmp_path / "tiny").rename(tmp_path / "elsewhere")
    assert "no such folder" in str(ask_for_model(model).problem)


def test_a_repository_is_the_same_from_the_cache_and_from_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, digest = write_folder(tmp_path / "tiny"), "ab" * 32
    (tmp_path / digest).write_bytes(b"weights")
    (tmp_path / "link.safetensors").symlink_to(tmp_path / digest)
    config = str(folder / "open_clip_config.json")
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *_: config)
    hub_config.cache_clear()
    model = ModelConfig(name="hf-hub:org/tiny")
    caches = {"cached": str(tmp_path / "link.safetensors"), "absent": None}
    asked = []

    def metadata(address: str, **_: Any) -> SimpleNamespace:
        asked.append(address)
        return SimpleNamespace(etag=digest)

    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", metadata)
    answers = []
    for cached in caches.values():
        monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_, c=cached: c)
        answers.append(ask_for_model(model))
    assert answers[0] == answers[1]
    assert digest[:16] in answers[0].identity
    assert len(asked) == 1
    hub_config.cache_clear()


def test_variables_are_taken_from_the_folder_of_the_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OF_A_JOB", "old")
    job_variables.load()
    (tmp_path / job_variables.VARIABLES).write_text('{"OF_A_JOB": "new"}')
    job_variables.load()
    assert os.environ["OF_A_JOB"] == "new"
