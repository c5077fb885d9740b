"""Models that open_clip does not know by name: JSON files, folders, repositories of the hub."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import fsspec
import huggingface_hub
import open_clip
import pytest
import timm
import torch
from safetensors.torch import save_file

from legrad import LeGrad, load_model
from legrad.models import catalog
from legrad.models.definition import OPEN_CLIP_CONFIG, define, hub_config, is_location
from legrad.models.timm_figures import TRUNKS
from legrad.models.tokenizers import make_tokenizer
from tests.builders import randomise, raw_images

TINY: Mapping[str, Any] = {
    "embed_dim": 32,
    "quick_gelu": True,
    "vision_cfg": {
        "image_size": 32, "layers": 2, "width": 48, "head_width": 12, "patch_size": 8
    },
    "text_cfg": {"context_length": 9, "width": 16, "heads": 2, "layers": 1},
}  # fmt: skip
PIXELS = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4], "interpolation": "bilinear"}


def tiny_module(seed: int = 0) -> torch.nn.Module:
    config = json.loads(json.dumps(TINY))
    return randomise(open_clip.CLIP(**config), seed)


def write_folder(folder: Path, config: Mapping[str, Any] = TINY) -> Path:
    folder.mkdir(exist_ok=True)
    about = {"model_cfg": config, "preprocess_cfg": PIXELS}
    (folder / OPEN_CLIP_CONFIG).write_text(json.dumps(about))
    state = {key: value.contiguous() for key, value in tiny_module().state_dict().items()}
    save_file(state, folder / "open_clip_model.safetensors")
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "tiny")


@pytest.mark.parametrize("prefix", ["", "local-dir:"])
def test_a_folder_gives_model_preprocessing_and_tokenizer(folder: Path, prefix: str) -> None:
    model = load_model(f"{prefix}{folder}", device="cpu", image_size=(32, 48))
    assert model.mean == (0.5, 0.4, 0.3)
    assert model.std == (0.2, 0.3, 0.4)
    assert model.preprocess.interpolation == "bilinear"
    assert model.tokenizer(["a dog"]).shape == (1, 9)
    pixels = raw_images(0, 2, (32, 32))
    theirs = tiny_module().eval()
    ours = load_model(str(folder), device="cpu")
    image = theirs.encode_image(ours.normalise(pixels), normalize=True)
    assert torch.allclose(ours.encode_image(pixels), image, atol=1e-5)
    tokens = open_clip.get_tokenizer(f"local-dir:{folder}")(["a dog", "snow"])
    text = theirs.encode_text(tokens, normalize=True)
    assert torch.allclose(ours.encode_text(["a dog", "snow"]), text, atol=1e-5)
    assert LeGrad(ours).explain(pixels, text).maps.shape == (2, 2, 4, 4)


@pytest.mark.filterwarnings("ignore:.*does not say how pixels")
def test_the_same_parts_wherever_they_are(folder: Path, tmp_path: Path) -> None:
    whole = load_model(str(folder), device="cpu")
    memory = fsspec.filesystem("memory")
    memory.pipe("/models/tiny.json", json.dumps(TINY).encode())
    weights = str(folder / "open_clip_model.safetensors")
    for name in ("memory://models/tiny.json", str(folder / OPEN_CLIP_CONFIG)):
        model = load_model(name, weights, device="cpu")
        assert model.digest == whole.digest
        assert model.grid == (4, 4)
    assert model.mean == whole.mean  # the second file says it
    moved = folder.rename(tmp_path / "moved")
    assert define(str(moved)).digest == define(f"local-dir:{moved}").digest


def test_other_weights_than_the_folders_own(folder: Path, tmp_path: Path) -> None:
    torch.save(tiny_module(1).state_dict(), tmp_path / "tuned.pt")
    tuned = load_model(str(folder), str(tmp_path / "tuned.pt"), device="cpu")
    assert tuned.digest != load_model(str(folder), device="cpu").digest


def test_figures_without_torch(folder: Path) -> None:
    arch = catalog.architecture(str(folder))
    assert (arch.image_size, arch.patch_size) == ((32, 32), (8, 8))
    assert (arch.layers, arch.width, arch.embed_dim, arch.family) == (2, 48, 32, "CLIP")


def test_a_tokenizer_in_the_folder_comes_before_its_name(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = TINY["text_cfg"] | {"hf_tokenizer_name": "owner/words"}
    write_folder(folder, TINY | {"text_cfg": text})
    used = []
    monkeypatch.setattr("legrad.models.tokenizers.find_spec", lambda name: True)
    monkeypatch.setattr(
        "open_clip.tokenizer.HFTokenizer",
        lambda source, **settings: used.append((source, settings["context_length"])),
    )
    make_tokenizer(str(folder))
    before = define(str(folder)).digest
    (folder / "tokenizer.json").write_text("{}")
    make_tokenizer(str(folder))
    make_tokenizer(str(folder), "owner/other")
    assert used == [("owner/words", 9), (str(folder), 9), ("owner/other", 9)]
    assert define(str(folder)).digest != before


def test_a_repository_of_the_hub(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(repo_id: str, filename: str, **_: Any) -> str:
        assert repo_id == "org/tiny"
        path = folder / filename
        if not path.exists():
            raise FileNotFoundError(filename)
        return str(path)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    monkeypatch.setattr("open_clip.pretrained.hf_hub_download", download)
    hub_config.cache_clear()
    model = load_model("hf-hub:org/tiny", device="cpu")
    assert model.digest == load_model(str(folder), device="cpu").digest
    assert model.mean == (0.5, 0.4, 0.3)
    (folder / "open_clip_model.safetensors").unlink()
    with pytest.raises(ValueError, match="weights cannot be read"):
        load_model("hf-hub:org/tiny", device="cpu")
    hub_config.cache_clear()


def test_without_a_connection_the_hub_is_replaced_by_a_folder(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match="hf download org/absent --local-dir FOLDER"):
        load_model("hf-hub:org/absent")


def test_what_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no such folder.*hf-hub:ORG/NAME"):
        define("org/name")
    with pytest.raises(ValueError, match="Did you mean ViT-B-32"):
        define("ViT-B/32")
    with pytest.raises(ValueError, match="no such file"):
        define(str(tmp_path / "absent.json"))
    with pytest.raises(ValueError, match=OPEN_CLIP_CONFIG):
        define(f"local-dir:{tmp_path}")
    with pytest.raises(ValueError, match="needs pretrained="):
        load_model(str(folder / OPEN_CLIP_CONFIG))
    with pytest.raises(ValueError, match="only names of open_clip have tags"):
        load_model(str(folder), "openai")
    (tmp_path / "part.json").write_text(json.dumps({"embed_dim": 3, "vision_cfg": {}}))
    with pytest.raises(ValueError, match="lacks text_cfg"):
        define(str(tmp_path / "part.json"))
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(ValueError, match=r"broken\.json: not a readable JSON file"):
        define(str(tmp_path / "broken.json"))
    odd = TINY | {"vision_cfg": TINY["vision_cfg"] | {"colour": 3}}
    (tmp_path / "odd.json").write_text(json.dumps(odd))
    with pytest.raises(ValueError, match=r"open_clip cannot build it.*colour"):
        load_model(str(tmp_path / "odd.json"), str(folder / "open_clip_model.safetensors"))


def test_several_weights_files_in_a_folder(folder: Path) -> None:
    usual = folder / "open_clip_model.safetensors"
    usual.rename(folder / "a.safetensors")
    assert define(str(folder)).weights_files() == (folder / "a.safetensors",)
    (folder / "b.pt").write_bytes(b"")
    with pytest.raises(ValueError, match=r"a\.safetensors, b\.pt"):
        define(str(folder)).weights_files()


def test_names_and_locations(tmp_path: Path) -> None:
    for name in ("ViT-B-32", "mini", "hf-hub:org/name", "ViT-B-33"):
        assert not is_location(name)
    for name in ("a.json", "s3://b/a.json", "models/tiny", "local-dir:tiny", str(tmp_path)):
        assert is_location(name)


PLAIN = ("vit_tiny", "vit_small", "vit_base_patch16_224", "vit_base_patch16_384",
         "vit_base_patch16_clip", "vit_base_patch32_224", "vit_large_patch16_224")  # fmt: skip


@pytest.mark.parametrize("name", [name for name in TRUNKS if name.startswith(PLAIN)])
def test_figures_of_trunks_that_only_published_configs_name(name: str) -> None:
    with torch.device("meta"):
        trunk = timm.create_model(name)
    trunk.reset_classifier(0)
    facts = TRUNKS[name]
    assert (facts.layers, facts.width) == (len(trunk.blocks), trunk.embed_dim)
    assert facts.parameters == sum(p.numel() for p in trunk.parameters())


@pytest.mark.filterwarnings("ignore:.*does not say how pixels")
def test_a_plain_timm_tower_as_in_biomedclip(tmp_path: Path) -> None:
    vision = {"timm_model_name": "vit_tiny_patch16_224", "timm_pool": "", "image_size": 224}
    config = TINY | {"vision_cfg": vision, "custom_text": True}
    (tmp_path / "tiny.json").write_text(json.dumps(config))
    module = open_clip.CustomTextCLIP(32, vision, dict(TINY["text_cfg"]), quick_gelu=True).eval()
    torch.save(module.state_dict(), tmp_path / "tiny.pt")
    model = load_model(str(tmp_path / "tiny.json"), str(tmp_path / "tiny.pt"), device="cpu")
    pixels = raw_images(0, 1, (224, 224))
    image = module.encode_image(model.normalise(pixels), normalize=True)
    assert torch.allclose(model.encode_image(pixels), image, atol=1e-5)
    assert LeGrad(model).explain(pixels, image).maps.shape == (1, 1, 14, 14)
