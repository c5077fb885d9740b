"""Weights files: every way to name one, what is refused, and the digest."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import open_clip
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from legrad import LeGrad, VisionLanguageModel, from_open_clip, load_model
from legrad.models.weights import load_weights
from legrad.settings import is_weights_uri
from tests.builders import images, randomise, raw_images, tiny_clip, unit_directions

SMALL = "ViT-S-32-alt"


def random_state(name: str, seed: int) -> dict[str, Tensor]:
    """Weights of a published architecture, every one of them random."""
    with torch.device("meta"):
        model = open_clip.create_model(name, pretrained=None, device="meta")
    model = nn.Module.to_empty(model, device="cpu")
    for parameter in model.parameters():
        nn.init.ones_(parameter)  # some are only scaled by what follows
    randomise(model, seed)
    return {key: value.contiguous() for key, value in model.state_dict().items()}


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    return random_state(SMALL, 0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder for large files, emptied at the end."""
    folder = tmp_path_factory.mktemp("weights")
    yield folder
    for path in folder.rglob("*"):
        if path.is_file():
            path.unlink()


@pytest.fixture(scope="module")
def safetensors(folder: Path, state: dict[str, Tensor]) -> Path:
    path = folder / "small.safetensors"
    save_file(state, path)
    return path


@pytest.fixture(autouse=True)
def own_cache(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEGRAD_CACHE", str(folder / "cache"))


def load(name: str, path: Path | str, **kwargs: Any) -> VisionLanguageModel:
    return load_model(name, str(path), device="cpu", **kwargs)


def assert_weights(model: nn.Module, state: dict[str, Tensor]) -> None:
    own = model.state_dict()
    assert set(own) == set(state)
    for name, tensor in state.items():
        assert torch.equal(own[name], tensor), name


def test_safetensors_and_what_comes_with_the_model(
    safetensors: Path, state: dict[str, Tensor]
) -> None:
    model = load(SMALL, safetensors, image_size=(64, 96))
    assert_weights(model.model, state)
    assert (model.name, model.pretrained) == (SMALL, str(safetensors))
    assert model.mean == pytest.approx((0.481, 0.458, 0.408), abs=1e-3)
    assert model.preprocess.size == (64, 96)
    assert model.grid == (2, 3)
    assert not model.model.training
    text = model.encode_text(["a photo of a dog", "snow"])
    seen = LeGrad(model).explain(raw_images(0, 2, (64, 96)), text)
    assert seen.maps.shape == (2, 2, 2, 3)
    assert seen.maps.isfinite().all()
    assert seen.layers == 2


@pytest.mark.parametrize("wrap", ["plain", "state_dict", "module"])
def test_pickled_weights(wrap: str, folder: Path, state: dict[str, Tensor]) -> None:
    saved: dict[str, Any] = dict(state)
    if wrap == "state_dict":
        saved = {"state_dict": saved, "epoch": 3}
    elif wrap == "module":
        saved = {f"module.{key}": value for key, value in saved.items()}
    path = folder / f"{wrap}.pt"
    torch.save(saved, path)
    assert_weights(load(SMALL, path).model, state)


def test_a_pickle_with_code_in_it_is_refused_and_not_run(folder: Path) -> None:
    marker = folder / "was_run"

    class Code:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(marker),)

    path = folder / "code.pt"
    torch.save({"visual.proj": Code()}, path)
    with pytest.raises(ValueError, match=r"weights .*code\.pt: .*(posix|nt|os)\.mkdir"):
        load_weights(tiny_clip(0), str(path))
    assert not marker.exists()


def test_file_uri(safetensors: Path, state: dict[str, Tensor]) -> None:
    assert_weights(load(SMALL, safetensors.as_uri()).model, state)


def upload(folder: Path, path: str, seed: int) -> dict[str, Tensor]:
    """Put a tiny model into the memory file system, in the format that its suffix names."""
    state = dict(tiny_clip(seed).state_dict())
    local = folder / f"upload{Path(path).suffix}"
    if path.endswith(".safetensors"):
        save_file(state, local)
    else:
        torch.save(state, local)
    fsspec.filesystem("memory").pipe(path, local.read_bytes())
    local.unlink()
    return state


@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
def test_remote_file_is_cached_and_fetched_again_when_it_changes(folder: Path, suffix: str) -> None:
    for seed in (0, 1):
        state = upload(folder, f"/bucket/tiny.{suffix}", seed)
        model = tiny_clip(7)
        load_weights(model, f"memory://bucket/tiny.{suffix}")
        assert_weights(model, state)
        time.sleep(0.01)  # the memory file system tells versions apart by their time
    assert any((folder / "cache").iterdir())


def test_remote_files_of_one_name_are_kept_apart(folder: Path) -> None:
    states = {name: upload(folder, f"/{name}/x.pt", seed) for seed, name in enumerate("ab")}
    for name in "abab":
        model = tiny_clip(7)
        load_weights(model, f"memory://{name}/x.pt")
        assert_weights(model, states[name])


@pytest.mark.parametrize(
    "uri", ["/nowhere/x.safetensors", "file:///nowhere/x.pt", "memory://nowhere/x.bin"]
)
def test_missing_file(uri: str) -> None:
    with pytest.raises(FileNotFoundError, match=f"no weights file at {uri}"):
        load_weights(tiny_clip(0), uri)


def test_load_model_with_a_missing_file() -> None:
    with pytest.raises(FileNotFoundError, match=r"no weights file at /nowhere/x\.pt"):
        load(SMALL, "/nowhere/x.pt")


@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
@pytest.mark.parametrize("content", [b"", b"not weights at all"])
def test_files_that_are_no_weights(folder: Path, suffix: str, content: bytes) -> None:
    path = folder / f"junk.{suffix}"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"weights .*junk"):
        load_weights(tiny_clip(0), str(path))


@pytest.mark.parametrize(
    ("pretrained", "expected"),
    [
        ("openai", False),
        ("laion2b_s34b_b79k", False),
        ("x.safetensors", True),
        ("x.pt", True),
        ("folder/x", True),
        ("s3://bucket/x.bin", True),
    ],
)
def test_files_and_tags_are_told_apart(pretrained: str, expected: bool) -> None:
    assert is_weights_uri(pretrained) is expected


def digest(model: nn.Module) -> str:
    return from_open_clip(model).digest


def test_digest_is_stable_and_says_everything() -> None:
    model = tiny_clip(0)
    first = digest(model)
    assert len(first) == 64
    assert digest(tiny_clip(0)) == first
    LeGrad(from_open_clip(model)).explain(images(1, 1), unit_directions(2, 1))
    assert digest(model.train()) == first
    others = {digest(other) for other in (tiny_clip(1), tiny_clip(0).float(), tiny_clip(0).half())}
    assert len(others | {first}) == 4


def test_digest_tells_dtypes_of_equal_bytes_apart() -> None:
    """A zero is the same two bytes in both."""
    digests = set()
    for dtype in (torch.float16, torch.bfloat16):
        model = tiny_clip(0)
        for tensor in model.state_dict().values():
            tensor.zero_()
        digests.add(digest(model.to(dtype)))
    assert len(digests) == 2


@pytest.mark.parametrize("name", ["visual.proj", "logit_scale", "token_embedding.weight"])
def test_digest_changes_with_one_weight(name: str) -> None:
    model = tiny_clip(0)
    first = digest(model)
    with torch.no_grad():
        flat = model.get_parameter(name).view(-1)
        kept = flat[-1].clone()
        flat[-1] = torch.nextafter(kept, kept + 1)
        assert digest(model) != first
        flat[-1] = kept
    assert digest(model) == first


def test_digest_is_of_the_file_wherever_it_came_from(
    safetensors: Path, state: dict[str, Tensor], folder: Path
) -> None:
    path = folder / "same.pt"
    torch.save(state, path)
    left, right = load(SMALL, safetensors), load(SMALL, path, image_size=64)
    assert left.digest == right.digest
