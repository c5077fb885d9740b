"""Classifiers by name, checkpoint, folder and function, as users hold them."""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from legrad import Classifier, LeGrad, UnsupportedModelError, from_timm, load_classifier
from legrad.models.checkpoints import read_names
from tests.builders import raw_images
from tests.legrad.test_classifiers import CLASSES, build
from tests.towers import TRUNK, reduced

GOLDEN = Path(__file__).parents[1] / "golden" / "transformers" / "classifiers"
KINDS = ("vit", "deit", "siglip")
NAME = "vit_small_patch16_224"
ANIMALS = ["cat", "dog", "eel", "fox", "gnu"]


@pytest.fixture(autouse=True)
def small() -> Iterator[None]:
    with reduced(TRUNK):
        yield


def pixels(side: int = 32) -> Tensor:
    return raw_images(0, 2, (side, side))


def own_logits(module: nn.Module, classifier: Classifier) -> Tensor:
    with torch.no_grad():
        return module(classifier.normalise(pixels()))


def assert_loaded(classifier: Classifier, module: nn.Module) -> None:
    expected = own_logits(module, classifier)
    torch.testing.assert_close(classifier.logits(pixels()), expected, atol=1e-5, rtol=1e-5)


def test_a_plain_training_scripts_checkpoint(tmp_path: Path) -> None:
    """``DataParallel``, own number of classes, optimiser and class names beside the weights."""
    module = build(NAME, dtype=torch.float32)
    optimiser = torch.optim.AdamW(module.parameters())
    state = nn.DataParallel(module).state_dict()
    content = {"model": state, "optimizer": optimiser.state_dict(), "epoch": 3, "classes": ANIMALS}
    torch.save(content, tmp_path / "last.pth")
    classifier = load_classifier(NAME, str(tmp_path / "last.pth"))
    assert classifier.classes == tuple(ANIMALS)
    assert_loaded(classifier, module)
    seen = LeGrad(classifier).explain(pixels(), classes=["dog", 4])
    assert seen.maps.shape == (2, 2, 4, 4)
    torch.testing.assert_close(seen.scores, classifier.logits(pixels())[:, [1, 4]])


@pytest.mark.skipif(torch.__version__ < "2.7", reason="torch refuses other objects before 2.7")
def test_a_checkpoint_of_timms_training_script(tmp_path: Path) -> None:
    module = build(NAME, dtype=torch.float32)
    averaged = build(NAME, seed=1, dtype=torch.float32)
    args = argparse.Namespace(
        mean=[0.1, 0.2, 0.3], std=[0.4, 0.5, 0.6], crop_pct=0.8, num_classes=CLASSES, img_size=40
    )
    content = {"state_dict": module.state_dict(), "state_dict_ema": averaged.state_dict()}
    torch.save(content | {"arch": NAME, "args": args, "metric": 71.0}, tmp_path / "best.pth.tar")
    classifier = load_classifier(NAME, str(tmp_path / "best.pth.tar"))
    assert_loaded(classifier, module)
    assert classifier.mean == (0.1, 0.2, 0.3)
    assert classifier.classes == ("0", "1", "2", "3", "4")
    shown = classifier.preprocess
    assert (shown.size, shown.mode, shown.crop) == ((40, 40), "center_crop", 0.8)
    averaged_too = load_classifier(NAME, f"{tmp_path}/best.pth.tar#state_dict_ema")
    assert_loaded(averaged_too, averaged)


def test_other_wrappers(tmp_path: Path) -> None:
    module = build(NAME, dtype=torch.float32)
    state = module.state_dict()
    save_file(state, tmp_path / "plain.safetensors")
    torch.save(state, tmp_path / "plain.pt")
    torch.save(
        {"model_state": {f"module._orig_mod.{k}": v for k, v in state.items()}}, tmp_path / "c.pt"
    )
    lightning = {f"model.{k}": v for k, v in state.items()} | {"loss.weight": torch.ones(5)}
    torch.save({"state_dict": lightning, "hyper_parameters": {"lr": 0.1}}, tmp_path / "l.ckpt")
    for file in ("plain.safetensors", "plain.pt", "c.pt"):
        assert_loaded(load_classifier(NAME, str(tmp_path / file)), module)
    with pytest.warns(UserWarning, match=r"1 tensors .*left out: loss\.weight"):
        assert_loaded(load_classifier(NAME, str(tmp_path / "l.ckpt")), module)


def test_positions_of_another_input_size(tmp_path: Path) -> None:
    larger = build(NAME, dtype=torch.float32)
    larger.set_input_size((48, 48))
    save_file(larger.state_dict(), tmp_path / "w.safetensors")
    classifier = load_classifier(NAME, str(tmp_path / "w.safetensors"))
    assert classifier.preprocess.size == (48, 48)
    assert load_classifier(NAME, f"{tmp_path}/w.safetensors", image_size=32).grid == (4, 4)


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    state = build(NAME, dtype=torch.float32).state_dict()
    file = str(tmp_path / "w.safetensors")
    less = {key: value for key, value in state.items() if key != "blocks.1.norm1.bias"}
    save_file(less | {"extra": torch.ones(2)}, file)
    with pytest.raises(ValueError, match=r"1 .*missing \(blocks\.1\.norm1\.bias\).*\(extra\)"):
        load_classifier(NAME, file)
    save_file({key: value for key, value in state.items() if "head" not in key}, file)
    with pytest.raises(ValueError, match=r"no class head \(head\.weight\)"):
        load_classifier(NAME, file)
    save_file(state, file)
    with pytest.raises(ValueError, match="5 classes, found 2 names"):
        load_classifier(NAME, file, classes=["a", "b"])
    with pytest.raises(ValueError, match=r"head\.weight is 5 x 48, expected 7 x 48"):
        load_classifier(NAME, file, num_classes=7)
    with pytest.raises(ValueError, match="class 'owl'"):
        LeGrad(load_classifier(NAME, file)).explain(pixels(), classes=["owl"])
    torch.save(build(NAME), tmp_path / "whole.pt")
    with pytest.raises(ValueError, match=r"VisionTransformer, and a file .* can run code"):
        load_classifier(NAME, str(tmp_path / "whole.pt"))
    torch.save({"a": {"w": state["head.weight"]}, "b": 1}, tmp_path / "odd.pt")
    with pytest.raises(ValueError, match="none of the usual names; found a"):
        load_classifier(NAME, str(tmp_path / "odd.pt"))
    with pytest.raises(UnsupportedModelError, match=r"did you mean.*vit_small_patch16_224"):
        load_classifier("vit_smal_patch16_224", file)


def test_names_of_classes(tmp_path: Path) -> None:
    for name in reversed(ANIMALS):
        (tmp_path / "train" / name).mkdir(parents=True)
    (tmp_path / "names.txt").write_text("\n".join(ANIMALS))
    (tmp_path / "names.json").write_text(json.dumps(ANIMALS))
    (tmp_path / "index.json").write_text(json.dumps({n: i for i, n in enumerate(ANIMALS)}))
    (tmp_path / "label.json").write_text(json.dumps({str(i): n for i, n in enumerate(ANIMALS)}))
    for file in ("train", "names.txt", "names.json", "index.json", "label.json"):
        assert read_names(str(tmp_path / file)) == tuple(ANIMALS)
    for wrong in ({"0": "a", "2": "b"}, ["a", "a"], [], "word"):
        (tmp_path / "wrong.json").write_text(json.dumps(wrong))
        with pytest.raises(ValueError, match="classes in"):
            read_names(str(tmp_path / "wrong.json"))


def test_a_function_that_returns_a_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_models.py").write_text(
        "import timm, torch\n"
        "def net():\n"
        "    torch.manual_seed(5)\n"
        f"    return timm.create_model({NAME!r}, num_classes=5)\n"
        "def wrong():\n"
        "    return 3\n"
        "def other():\n"
        "    module = net()\n"
        "    forward = module.forward\n"
        "    module.forward = lambda x: forward(x) + 1\n"
        "    return module\n"
    )
    monkeypatch.chdir(tmp_path)
    classifier = load_classifier("my_models:net", classes=ANIMALS)
    assert_loaded(classifier, classifier.model)
    assert not classifier.model.training
    module = build(NAME, dtype=torch.float32)
    save_file(module.state_dict(), tmp_path / "w.safetensors")
    assert_loaded(load_classifier("my_models:net", "w.safetensors"), module)
    for name, why in (("wrong", "returned a int"), ("absent", "has no attribute 'absent'")):
        with pytest.raises(ValueError, match=why):
            load_classifier(f"my_models:{name}")
    with pytest.raises(UnsupportedModelError, match="computes other logits"):
        load_classifier("my_models:other")


def test_a_module_in_memory() -> None:
    module = build(NAME, dtype=torch.float32)
    classifier = from_timm(nn.DataParallel(module), classes=ANIMALS, resize="squash")
    assert classifier.preprocess.mode == "squash"
    assert_loaded(classifier, module)
    with pytest.raises(ValueError, match=r"model\.eval\(\)"):
        from_timm(module.train())
    with pytest.raises(UnsupportedModelError, match="num_classes above 0"):
        from_timm(timm.create_model(NAME, num_classes=0).eval())


def made_by_transformers(kind: str) -> Any:
    """A classifier of transformers with random weights, at the size of the stored ones."""
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 16, "intermediate_size": 36, "num_hidden_layers": 2}
    sizes |= {"num_attention_heads": 2, "image_size": 16, "patch_size": 8}
    names = {"id2label": dict(enumerate(ANIMALS))}
    name = {"vit": "ViT", "deit": "DeiT", "siglip": "Siglip"}[kind]
    arguments = {"vision_config": sizes} if kind == "siglip" else sizes
    config = getattr(transformers, f"{name}Config")(**arguments, **names)
    torch.manual_seed(3)
    model = getattr(transformers, f"{name}ForImageClassification")(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.4)
    return model


@torch.no_grad()
def their_logits(model: Any) -> Tensor:
    values: Tensor = model(pixel_values=(raw_images(0, 2, (16, 16)) / 255 - 0.5) / 0.5).logits
    return values


@pytest.mark.parametrize("kind", KINDS)
def test_folders_of_transformers(kind: str, tmp_path: Path) -> None:
    classifier = load_classifier(str(GOLDEN / kind))
    assert classifier.classes == tuple(ANIMALS)
    expected = load_file(GOLDEN / kind / "logits.st")["logits"]
    ours = classifier.logits(raw_images(0, 2, (16, 16)))
    torch.testing.assert_close(ours, expected, atol=1e-4, rtol=1e-4)
    model = made_by_transformers(kind)  # skipped where transformers is not installed
    model.save_pretrained(tmp_path)
    again = load_classifier(str(tmp_path)).logits(raw_images(0, 2, (16, 16)))
    torch.testing.assert_close(again, their_logits(model), atol=1e-4, rtol=1e-4)


def test_other_folders_of_transformers_are_refused(tmp_path: Path) -> None:
    config = json.loads((GOLDEN / "vit" / "config.json").read_text())
    config |= {"model_type": "dinov2", "architectures": ["Dinov2ForImageClassification"]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").write_bytes((GOLDEN / "vit/model.safetensors").read_bytes())
    with pytest.raises(UnsupportedModelError, match="Dinov2ForImageClassification"):
        load_classifier(str(tmp_path))


def test_the_image_processor_of_a_folder(tmp_path: Path) -> None:
    """DeiT's: 256 x 256, of which the middle 224 are cut out; and one by the shorter edge."""
    for file in ("config.json", "model.safetensors"):
        (tmp_path / file).write_bytes((GOLDEN / "deit" / file).read_bytes())
    said = {
        "size": {"height": 20, "width": 20}, "crop_size": {"height": 16, "width": 16},
        "do_center_crop": True, "image_mean": [0.1, 0.2, 0.3], "image_std": [1, 1, 1],
        "resample": 2,
    }  # fmt: skip
    processor = tmp_path / "preprocessor_config.json"
    processor.write_text(json.dumps(said))
    classifier = load_classifier(str(tmp_path))
    assert (classifier.preprocess.mode, classifier.preprocess.crop) == ("squash", 0.8)
    assert classifier.preprocess.interpolation == "bilinear"
    assert classifier.mean == (0.1, 0.2, 0.3)
    assert classifier.preprocess.box(200, 100) == pytest.approx((20, 10, 180, 90))
    processor.write_text(json.dumps(said | {"size": {"shortest_edge": 20}}))
    classifier = load_classifier(str(tmp_path))
    assert classifier.preprocess.mode == "center_crop"
    assert classifier.preprocess.box(200, 100) == pytest.approx((60, 10, 140, 90))


def test_a_folder_that_timm_saved(tmp_path: Path) -> None:
    from timm.models._hub import save_for_hf

    module = build(NAME, dtype=torch.float32)
    module.pretrained_cfg |= {"crop_pct": 0.7}
    save_for_hf(module, tmp_path, {"label_names": ANIMALS}, safe_serialization=True)
    classifier = load_classifier(str(tmp_path))
    assert classifier.classes == tuple(ANIMALS)
    assert classifier.preprocess.crop == 0.7
    assert_loaded(classifier, module)


def test_preprocessing_is_timms(tmp_path: Path) -> None:
    """The same pixels as timm's own transform, but for rounding to bytes in the middle."""
    from timm.data import create_transform

    module = build(NAME, dtype=torch.float32)
    classifier = from_timm(module, data_config={"crop_pct": 0.875, "interpolation": "bilinear"})
    data = {"input_size": (3, 32, 32), "crop_pct": 0.875, "interpolation": "bilinear"}
    transform = create_transform(**data, mean=(0.5,) * 3, std=(0.5,) * 3, is_training=False)
    ramp = torch.linspace(0, 255, 90 * 60).reshape(60, 90).to(torch.uint8).numpy()
    image = Image.fromarray(ramp).convert("RGB")
    ours = classifier.normalise(torch.from_numpy(classifier.preprocess(image))[None])[0]
    assert (ours - transform(image)).abs().mean() < 0.02
