"""The model of the benchmark on photographs: what it writes is a model that the package loads."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import photographs_model
from benchmarks.photographs_model import ARCHITECTURE, STEPS, WEIGHTS, Trainer, ready
from benchmarks.photographs_sets import Planting
from benchmarks.photographs_suspicions import Embedder, suspicions
from benchmarks.photographs_world import Photographs
from legrad.mini.world import OVERLAYS
from pipeline.config import ModelConfig
from pipeline.stages.replica import ReplicaSettings

pytestmark = pytest.mark.skipif(
    not hasattr(torch.optim, "Muon"), reason="the benchmark needs torch 2.9 or later"
)
CLASSES = ("bus", "cow", "dog", "elk", "fox")


def _photographs(count: int, seed: int) -> Photographs:
    pixels = np.random.default_rng(seed).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    return Photographs(pixels, np.arange(count) % len(CLASSES), CLASSES)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photographs") / "model"
    with pytest.MonkeyPatch.context() as patch:
        short = {"VARIANTS": 3, "SEEN": 128, "TEXT_STEPS": 2, "EVERY": 2, "ENOUGH": 0.0}
        for name, value in short.items():
            patch.setattr(photographs_model, name, value)
        assert not ready(folder)
        Trainer(_photographs(200, 1), _photographs(60, 2)).run(5, folder)
    return folder


def test_training_writes_its_figures_and_a_model(model: Path) -> None:
    assert ready(model)
    first, last = (json.loads(line) for line in (model / STEPS).read_text().splitlines())
    assert first["step"] == 2
    assert set(OVERLAYS) < set(first)
    assert all(0 <= last["text"][name] <= 1 for name in OVERLAYS)


def test_the_pipeline_gets_the_same_texts(model: Path) -> None:
    settings = ModelConfig(name=str(model / ARCHITECTURE), pretrained=str(model / WEIGHTS))
    loaded = ReplicaSettings(settings, "cpu", 1, 1).load()
    texts = ["a bus", "a photo of a watermark", "a cow with a ruler"]
    ours = Embedder(model).texts(texts)
    np.testing.assert_allclose(loaded.encode_text(texts).numpy(), ours, atol=1e-5)


def test_a_row_for_every_class_and_cue(model: Path) -> None:
    planting = Planting.drawn(4, CLASSES)
    frame = suspicions(Embedder(model), planting, _photographs(100, 3))
    assert len(frame) == len(CLASSES) * len(planting.cues)
    planted = frame.dropna(subset="planted").set_index("cue")["planted"]
    assert planted.to_dict() == {cue: share for cue, (_, share) in planting.planted.items()}
    assert frame["above"].between(0, 400).all()
