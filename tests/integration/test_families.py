"""Runs with locally saved SigLIP 2 and EVA02 checkpoints, from image files to results."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import save_file

from legrad import load_model
from pipeline import open_results
from pipeline.config.loading import load_config, packaged_config
from pipeline.results.reproduce import recompute
from tests.data import encoded, picture
from tests.in_process import run
from tests.legrad.test_weights import random_state

NAMES = ("ViT-B-32-SigLIP2-256", "EVA02-B-16")


@pytest.fixture(scope="module", params=NAMES)
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Name, file of random weights in half precision; large, and removed at the end."""
    path = tmp_path_factory.mktemp("weights") / f"{request.param}.safetensors"
    state = random_state(request.param, 0)
    save_file({name: tensor.half() for name, tensor in state.items()}, path)
    del state
    yield request.param, path
    path.unlink()


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    for number in range(3):
        for label in ("cat", "dog"):
            (folder / label).mkdir(parents=True, exist_ok=True)
            image = picture(number, (300 + 40 * number, 200))
            (folder / label / f"{number}.png").write_bytes(encoded(image, "PNG"))
    return folder


def queries(name: str, folder: Path) -> str:
    """Texts, or where there is no tokenizer vectors; the last of the two is a difference."""
    if "SigLIP" not in name:
        cues = "{name: snow, role: cue}, {name: rain, role: cue}"
    else:
        rows = np.random.default_rng(0).normal(size=(2, 768)).astype(np.float32)
        np.save(folder / "words.npy", rows / np.linalg.norm(rows, axis=1, keepdims=True))
        file = folder / "words.npy"
        cues = (
            f"{{name: snow, role: cue, vector: '{file}#0'}}, "
            f"{{name: rain, role: cue, vector: '{file}#1'}}"
        )
    return f"[{cues}, {{name: weather, role: cue, difference: [snow, rain]}}]"


@pytest.mark.slow
def test_from_files_to_results(
    checkpoint: tuple[str, Path], pictures: Path, tmp_path: Path
) -> None:
    name, weights = checkpoint
    example = packaged_config("siglip2.yaml" if "SigLIP" in name else "eva02.yaml")
    config = load_config(
        example,
        [
            f"queries={queries(name, tmp_path)}",
            f"model.name={name}",
            f"model.pretrained={weights}",
            f"source.uri={pictures}",
            f"output={tmp_path / 'out'}",
            "runtime.actors=1",
            "runtime.threads_per_actor=1",
            "runtime.batch_size=2",
        ],
    )
    run(config)
    results = open_results(str(tmp_path / "out"))
    ids, maps = results.maps("snow")
    assert len(ids) == 6
    side = 8 if "SigLIP" in name else 14
    assert maps.shape == (6, side, side)
    assert (maps.max(axis=(1, 2)) > 0).all()
    logit = results.run["metadata"]["model"]["logit"]
    model = load_model(name, str(weights), device="cpu")
    assert logit == model.logit
    assert (logit["bias"] is None) == ("SigLIP" not in name)
    mean = 0.5 if "SigLIP" in name else 0.481
    assert model.mean[0] == pytest.approx(mean, abs=1e-3)  # the file does not say it, its tags do
    again = recompute(results, 3)
    assert again.agree, again
