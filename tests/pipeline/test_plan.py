"""What is wrong with the model is told in one line that names it, also where no worker loads it."""

from pathlib import Path

import pytest

from pipeline import plan
from pipeline.cluster.resources import Resources
from pipeline.config import ModelConfig
from pipeline.config.loading import load_config, packaged_config
from pipeline.errors import UsageError
from pipeline.stages.replica import ReplicaSettings


def test_a_weights_file_that_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "w.pt").write_text("junk")
    monkeypatch.setattr(plan, "nodes", lambda: [None])
    monkeypatch.setattr(plan, "on_cluster", lambda: False)
    monkeypatch.setattr(plan.ray, "remote", lambda **_: pytest.fail("loads it on a worker"))
    config = load_config(packaged_config("demo.yaml"), ["source.uri=pictures"])
    model = ModelConfig(name="ViT-B-32", pretrained=str(tmp_path / "w.pt"))
    settings = ReplicaSettings(model, "cpu", 1, 4)
    named = config.model_copy(update={"model": model})
    with pytest.raises(UsageError, match=r"^model ViT-B-32: .*w\.pt"):
        plan._prepared(named, settings, Resources(1, 0, 1))
