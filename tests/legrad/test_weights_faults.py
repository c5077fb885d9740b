"""Files that are no weights, or those of another model: what they are is said, and what to do."""

import argparse
import re
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save, save_file
from torch import Tensor, nn

from legrad.models.weights import load_weights
from legrad.models.weights_faults import fitting_architectures
from tests.builders import tiny_clip


def fault_of(path: Path, module: nn.Module | None = None) -> str:
    with pytest.raises(ValueError, match=re.escape(f"weights {path}: ")) as caught:
        load_weights(module or tiny_clip(0), str(path))
    return str(caught.value)


def state(seed: int = 1, **changes: Any) -> dict[str, Tensor]:
    return {k: v.contiguous() for k, v in tiny_clip(seed, **changes).state_dict().items()}


def is_loaded(path: Path, expected: Mapping[str, Tensor]) -> bool:
    module = tiny_clip(0)
    load_weights(module, str(path))
    return all(torch.equal(value, expected[key]) for key, value in module.state_dict().items())


def obey(message: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run the code of the command in a message, and return the file that it writes."""
    command = re.search(r'python -c "(.*)"$', message)
    assert command is not None
    monkeypatch.chdir(folder)
    exec(command[1], {})
    return folder / "weights.safetensors"


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 605157884\n"


@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (LFS, ["Git LFS", "577 MiB", "git lfs pull"]),
        (b"", ["empty"]),
        (b"\n<!DOCTYPE html><html>", ["web page", "/resolve/"]),
        (b"<html lang=en>", ["web page"]),
        (b'{"error": "Invalid credentials"}', ["text file", "Invalid credentials"]),
        (b"hello, nobody", ["hello"]),
    ],
)
def test_contents_that_are_no_weights(
    suffix: str, content: bytes, words: list[str], tmp_path: Path
) -> None:
    path = tmp_path / f"w.{suffix}"
    path.write_bytes(content)
    message = fault_of(path)
    for word in words:
        assert word in message


@pytest.mark.parametrize("kept", [0.999, 0.5, 0.02])
@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
def test_files_that_are_cut_off(suffix: str, kept: float, tmp_path: Path) -> None:
    path = tmp_path / f"w.{suffix}"
    if suffix == "pt":
        torch.save(state(), path)
    else:
        save_file(state(), path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    assert "cut off" in fault_of(path)


def test_a_damaged_header(tmp_path: Path) -> None:
    data = bytearray(save({"a": torch.zeros(3)}))
    data[12] = 0
    (tmp_path / "w.safetensors").write_bytes(data)
    assert "header" in fault_of(tmp_path / "w.safetensors")


def test_wrong_suffixes(tmp_path: Path) -> None:
    save_file(state(), tmp_path / "w.bin")
    assert "rename it to w.safetensors" in fault_of(tmp_path / "w.bin")
    torch.save(state(), tmp_path / "w.safetensors")
    assert "rename it to w.pt" in fault_of(tmp_path / "w.safetensors")


@pytest.mark.filterwarnings("ignore")
def test_a_torchscript_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Program(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for name, value in state().items():
                self.register_buffer(name.replace(".", "_"), value)
            self.register_buffer("vocab_size", torch.tensor(64))

        def forward(self, x: Tensor) -> Tensor:
            return x

    torch.jit.script(Program()).save(tmp_path / "jit.pt")
    message = fault_of(tmp_path / "jit.pt")
    assert "TorchScript" in message
    assert "`openai`" in message
    from safetensors.torch import load_file

    taken = load_file(obey(message, tmp_path, monkeypatch))
    assert set(taken) == {name.replace(".", "_") for name in state()}


@pytest.mark.skipif(torch.__version__ < "2.7", reason="torch refuses NumPy values before 2.7")
def test_a_checkpoint_of_a_training_is_loaded(tmp_path: Path) -> None:
    optimizer = {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 0.1}]}
    values = {
        "epoch": 3,
        "best": np.float64(0.3),
        "step": np.int64(4),
        "random": np.random.default_rng(0).integers(9, size=4),
        "args": argparse.Namespace(lr=0.1),
        "optimizer": optimizer,
    }
    torch.save(values | {"state_dict": state()}, tmp_path / "trained.pt")
    assert is_loaded(tmp_path / "trained.pt", state())
    torch.save(values | {"state_dict": {}}, tmp_path / "nothing.pt")
    message = fault_of(tmp_path / "nothing.pt")
    assert "no weights" in message
    assert "best" in message


def test_weights_under_another_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    optimizer = {"exp_avg": torch.zeros(3)}
    content = {"optimizer": optimizer, "model": state(), "epoch": 3}
    torch.save(content, tmp_path / "trained.pt")
    message = fault_of(tmp_path / "trained.pt")
    assert "'model'" in message
    assert is_loaded(obey(message, tmp_path, monkeypatch), state())


def test_names_with_a_prefix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named = {f"clip.{key}": value for key, value in state().items()}
    torch.save({"state_dict": named}, tmp_path / "lightning.pt")
    message = fault_of(tmp_path / "lightning.pt")
    assert "clip." in message
    assert is_loaded(obey(message, tmp_path, monkeypatch), state())


@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
@pytest.mark.parametrize(
    "renamed",
    [
        lambda key: f"_orig_mod.{key}",
        lambda key: f"module._orig_mod.{key}",
        lambda key: f"_orig_mod.module.{key}",
        lambda key: key.replace("visual.", "visual._orig_mod."),
        lambda key: f"clip.{key}",
    ],
)
def test_names_that_wrappers_changed(
    renamed: Callable[[str], str], suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By torch.compile, of the whole model or of a tower, by DDP, or by a class around it."""
    file, named = tmp_path / f"w.{suffix}", {renamed(k): v for k, v in state().items()}
    save_file(named, file) if suffix == "safetensors" else torch.save({"state_dict": named}, file)
    assert is_loaded(obey(fault_of(file), tmp_path, monkeypatch), state())


def test_shards_of_one_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = list(state().items())
    for number in (0, 1):
        shard = dict(tensors[number * 9 : None if number else 9])
        save_file(shard, tmp_path / f"model-0000{number + 1}-of-00002.safetensors")
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {}}')
    for name in ("model-00001-of-00002.safetensors", "model.safetensors.index.json"):
        made = obey(fault_of(tmp_path / name), tmp_path, monkeypatch)
        assert is_loaded(made, state())
        made.unlink()


def test_halves_are_loaded_as_floats(tmp_path: Path) -> None:
    halved = {key: value.bfloat16() for key, value in state().items()}
    save_file(halved, tmp_path / "w.safetensors")
    assert is_loaded(tmp_path / "w.safetensors", {k: v.float() for k, v in halved.items()})


def test_a_header_whose_length_looks_like_a_pickle(tmp_path: Path) -> None:
    """The first byte of a pickle is 0x80, and that of one safetensors file in 32, too."""
    file = tmp_path / "w.safetensors"
    for filling in range(0, 4096, 8):
        file.write_bytes(save(state(), {"note": "x" * filling}))
        if file.read_bytes()[0] == 0x80:
            break
    assert file.read_bytes()[0] == 0x80
    assert is_loaded(file, state())


class Settings:
    """An object of a class that the reader does not have, or does not trust."""


def test_objects_that_may_run_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({"state_dict": state(), "settings": Settings()}, tmp_path / "trained.pt")
    message = fault_of(tmp_path / "trained.pt")
    assert "test_weights_faults.Settings" in message
    assert is_loaded(obey(message, tmp_path, monkeypatch), state())


def test_content_of_another_kind(tmp_path: Path) -> None:
    torch.save([torch.zeros(3)], tmp_path / "list.pt")
    assert "list" in fault_of(tmp_path / "list.pt")
    save_file({"vision_model.embeddings.class_embedding": torch.zeros(3)}, tmp_path / "a.bin")
    (tmp_path / "a.bin").rename(tmp_path / "model.safetensors")
    assert "config.json" in fault_of(tmp_path / "model.safetensors")


def test_another_architecture_is_counted_in_full(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    words = (
        (r"(\d+) of its tensors are of another shape \(.*visual", {"width": 64}),
        (r"(\d+) of its tensors are missing \(visual\.transformer\.resblocks\.2", {"layers": 2}),
        (r"(\d+) of its tensors are not expected \(visual\.transformer\.resblocks\.3",
         {"layers": 4}),
        (r"(\d+) of its tensors are not expected \(.*ls_1\.gamma", {"ls_init_value": 0.5}),
    )  # fmt: skip
    expected = tiny_clip(0).state_dict()
    for pattern, changes in words:
        tensors = state(**changes)
        save_file(tensors, path)
        found = re.search(pattern, fault_of(path))
        assert found is not None
        differing = {
            key
            for key in {*tensors, *expected}
            if key not in tensors
            or key not in expected
            or tensors[key].shape != expected[key].shape
        }
        assert int(found[1]) == len(differing)


def test_the_architecture_that_a_file_fits_is_named() -> None:
    with torch.device("meta"):
        import open_clip

        for name in ("ViT-B-16", "ViT-L-14", "ViT-B-16-SigLIP"):
            config = open_clip.get_model_config(name)
            custom = config.pop("custom_text", False)
            module = (open_clip.CustomTextCLIP if custom else open_clip.CLIP)(**config)
            fitting = fitting_architectures(module.state_dict())
            if name != "ViT-B-16-SigLIP":
                assert name in fitting
            elif find_spec("transformers") is None:  # without it this one is not listed
                assert fitting == []
            else:
                assert fitting
                assert all(fit.startswith(name) for fit in fitting)
    assert fitting_architectures({}) == []


def test_a_file_for_an_open_clip_name(tmp_path: Path) -> None:
    from legrad import load_model

    (tmp_path / "w.pt").write_bytes(LFS)
    with pytest.raises(ValueError, match="Git LFS"):
        load_model("ViT-S-32-alt", str(tmp_path / "w.pt"), device="cpu")
