"""A real architecture with weights from a file, over real photographs and broken files."""

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from skimage import data as photographs

from pipeline import open_results
from pipeline.config import RunConfig
from pipeline.config.loading import validated
from pipeline.errors import UsageError
from pipeline.runs.completeness import Summary
from tests.data import encoded
from tests.in_process import run
from tests.ports import free_ports

NAMES = (
    *("astronaut", "brick", "camera", "cat", "cell", "chelsea", "clock", "coffee", "coins"),
    *("colorwheel", "grass", "gravel", "hubble_deep_field", "immunohistochemistry", "logo"),
    *("microaneurysms", "moon", "page", "rocket", "text"),
)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    model = open_clip.create_model("ViT-B-32", pretrained=None)
    path = tmp_path_factory.mktemp("weights") / "vit-b-32.safetensors"
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, path)
    return path


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty photographs in the formats people have, and three files that are none."""
    folder = tmp_path_factory.mktemp("photos")
    for number, name in enumerate(NAMES):
        image = Image.fromarray(np.asarray(getattr(photographs, name)()))
        place = folder / ("grey" if image.mode == "L" else "colour")
        place.mkdir(exist_ok=True)
        if number % 5 == 0 and image.mode == "RGB":
            (place / f"{name}.png").write_bytes(encoded(image.quantize(64), "PNG"))
        elif image.mode == "RGBA" or number % 2:
            (place / f"{name}.png").write_bytes(encoded(image, "PNG"))
        else:
            (place / f"{name}.jpg").write_bytes(encoded(image, "JPEG", quality=85))
    whole = encoded(Image.fromarray(photographs.chelsea()), "JPEG")
    (folder / "broken").mkdir()
    (folder / "broken" / "half.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "broken" / "notes.heic").write_text("no picture")
    (folder / "broken" / "empty.png").write_bytes(b"")
    return folder


def settings(photos: Path, weights: Path, output: Path) -> dict[str, object]:
    return {
        "model": {"name": "ViT-B-32", "pretrained": str(weights)},
        "source": {"format": "folder", "uri": str(photos)},
        "queries": [
            {"name": "cat", "role": "class", "label": "colour", "templates": "simple"},
            {"name": "text", "role": "cue"},
        ],
        "output": str(output),
        "runtime": {"actors": 1, "batch_size": 8},
    }


@pytest.fixture(scope="module")
def finished(
    photos: Path, weights: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, object], Summary]:
    """Settings of a run over the photographs, and its summary."""
    data = settings(photos, weights, tmp_path_factory.mktemp("photo-run") / "out")
    return data, run(validated(RunConfig, data, "test"))


def test_every_file_is_a_row(finished: tuple[dict[str, object], Summary], photos: Path) -> None:
    data, summary = finished
    files = [file for file in photos.rglob("*") if file.is_file()]
    assert summary.rows == len(files) == len(NAMES) + 3
    expected = Counter(ok=len(NAMES), truncated=1, not_an_image=2)
    assert Counter({str(k): n for k, n in summary.statuses.items()}) == expected
    results = open_results(summary.output)
    images = results.images()
    assert set(images.index) == {str(f.relative_to(photos)) for f in files}
    assert set(images["label"]) == {"grey", "colour", "broken"}
    failed = images.index[images["status"] != "ok"]
    assert images.loc[failed, "error"].notna().all()
    assert results.scores().loc[failed].isna().all(axis=None)
    assert results.scores().drop(failed).notna().all(axis=None)
    ids, maps = results.maps("text")
    assert maps.shape == (len(files), 7, 7)
    assert np.isnan(maps[[i in failed for i in ids]]).all()
    good = images.index[images["status"] == "ok"][0]
    assert results.overlay(good, "cat").size == tuple(images.loc[good, ["width", "height"]])
    with pytest.raises(UsageError, match="status is"):
        results.overlay(failed[0], "cat")
    assert run(validated(RunConfig, data, "test")).already_complete


def test_another_run_into_the_same_output_is_refused(
    finished: tuple[dict[str, object], Summary], tmp_path: Path
) -> None:
    output = tmp_path / "out"
    shutil.copytree(finished[1].output, output)
    data = finished[0] | {"output": str(output)}
    changed = data | {"queries": [{"name": "dog", "role": "class"}]}
    with pytest.raises(UsageError, match=r"query\.cat") as caught:
        run(validated(RunConfig, changed, "test"))
    assert "query.dog" in str(caught.value)
    assert len(open_results(str(output))) == finished[1].rows
    (output / "_run" / "manifest.json").unlink()
    with pytest.raises(UsageError, match=r"manifest\.json is missing"):
        run(validated(RunConfig, data, "test"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": "ViT-L-14"}, ["ViT-L-14"]),
        ({"pretrained": "no_such_tag"}, ["no_such_tag", "tags"]),
        ({"pretrained": "s3://nowhere/w.safetensors"}, ["ViT-B-32", "Could not connect"]),
    ],
)
def test_a_model_that_cannot_load_is_the_users_to_mend(
    photos: Path,
    weights: Path,
    tmp_path: Path,
    change: dict[str, str],
    words: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The third one's storage does not answer."""
    monkeypatch.setattr("s3fs.S3FileSystem.retries", 1)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_ports(1)[0]}")
    data = settings(photos, weights, tmp_path / "out")
    data["model"] = {"name": "ViT-B-32", "pretrained": str(weights)} | change
    with pytest.raises(UsageError) as caught:
        run(validated(RunConfig, data, "test"))
    for word in words:
        assert word in str(caught.value)
    assert not (tmp_path / "out").exists()
