"""Folders of the package transformers: features as its own, and what is refused.

`tests/golden/transformers` holds a tiny random model of each class as transformers wrote it, and
the features that it computed. Where transformers is installed, more of them are made and compared.
"""

import json
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from legrad import LeGrad, VisionLanguageModel, load_model
from legrad.models import catalog
from legrad.models.definition import define
from legrad.models.tokenizers import make_tokenizer
from legrad.models.transformers_folder import _CLIP_WORDS, OWN_TOKENIZER
from tests.builders import raw_images

GOLDEN = Path(__file__).parents[1] / "golden" / "transformers"
KINDS = ("clip", "siglip", "siglip2")
SIDE, PATCH, WORDS, CONTEXT = 16, 8, 60, 7
TOWER = {
    "hidden_size": 16, "intermediate_size": 36, "num_hidden_layers": 2, "num_attention_heads": 2
}  # fmt: skip


def text_ids(end: int = WORDS - 1) -> Tensor:
    ids = torch.randint(1, WORDS - 1, (3, CONTEXT), generator=torch.Generator().manual_seed(0))
    ids[:, 4] = end
    return ids


def made_by_transformers(kind: str, **changes: Any) -> Any:
    """A model of transformers with random weights."""
    transformers = pytest.importorskip("transformers")
    vision = TOWER | {"patch_size": PATCH} | changes
    vision |= {"num_patches": 4} if kind == "siglip2" else {"image_size": SIDE}
    words = {"vocab_size": WORDS, "max_position_embeddings": CONTEXT, "eos_token_id": WORDS - 1}
    text = TOWER | words | {"bos_token_id": 1} | changes
    name = {"clip": "CLIP", "siglip": "Siglip", "siglip2": "Siglip2"}[kind]
    more = {"projection_dim": 12} if kind == "clip" else {}
    config = getattr(transformers, f"{name}Config")(text_config=text, vision_config=vision, **more)
    torch.manual_seed(3)
    model = getattr(transformers, f"{name}Model")(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.4)
    return model


@torch.no_grad()
def their_features(model: Any, kind: str, pixels: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
    arguments: dict[str, Tensor] = {"pixel_values": pixels}
    if kind == "siglip2":  # it takes patches, in rows of (row, column, channel)
        grid = SIDE // PATCH
        cells = pixels.reshape(len(pixels), 3, grid, PATCH, grid, PATCH).permute(0, 2, 4, 3, 5, 1)
        arguments = {
            "pixel_values": cells.reshape(len(pixels), grid * grid, -1),
            "pixel_attention_mask": torch.ones(len(pixels), grid * grid, dtype=torch.long),
            "spatial_shapes": torch.full((len(pixels), 2), grid),
        }
    image = model.get_image_features(**arguments)
    text = model.get_text_features(input_ids=ids)
    # version 5 returns the whole output, earlier ones the features
    return getattr(image, "pooler_output", image), getattr(text, "pooler_output", text)


def our_features(model: VisionLanguageModel, ids: Tensor) -> tuple[Tensor, Tensor]:
    module: Any = model.model
    return model.encode_image(raw_images(0, 2, (SIDE, SIDE))), module.encode_text(ids)


def assert_alike(ours: tuple[Tensor, Tensor], theirs: tuple[Tensor, Tensor]) -> None:
    for own, their in zip(ours, theirs, strict=True):
        expected = F.normalize(their, dim=-1)
        assert torch.allclose(F.normalize(own, dim=-1), expected, atol=2e-5)
        assert (expected[0] - expected[1]).abs().max() > 1e-2  # else anything would pass


@pytest.mark.parametrize("kind", KINDS)
def test_features_are_those_that_transformers_computed(kind: str) -> None:
    model = load_model(str(GOLDEN / kind), device="cpu")
    said = load_file(GOLDEN / kind / "features.st")
    assert_alike(our_features(model, text_ids()), (said["image"], said["text"]))
    explained = LeGrad(model).explain(raw_images(0, 2, (SIDE, SIDE)), said["image"])
    assert explained.maps.shape == (2, 2, 2, 2)
    assert model.logit["scale"] == pytest.approx(float(said["scale"]), rel=1e-5)
    arch = catalog.architecture(str(GOLDEN / kind))
    assert (arch.layers, arch.width, arch.patch_size) == (2, 16, (PATCH, PATCH))
    assert arch.image_size == (SIDE, SIDE)
    assert arch.embed_dim == said["image"].shape[1]
    assert arch.family == ("CLIP" if kind == "clip" else "SigLIP")


@pytest.mark.parametrize("activation", ["gelu", "quick_gelu", "gelu_pytorch_tanh"])
@pytest.mark.parametrize("kind", KINDS)
def test_features_are_those_of_transformers(kind: str, activation: str, tmp_path: Path) -> None:
    theirs = made_by_transformers(kind, hidden_act=activation, layer_norm_eps=1e-3)
    theirs.save_pretrained(tmp_path)
    model = load_model(str(tmp_path), device="cpu")
    pixels = model.normalise(raw_images(0, 2, (SIDE, SIDE)))
    assert_alike(our_features(model, text_ids()), their_features(theirs, kind, pixels, text_ids()))


def test_the_end_of_a_text_may_be_any_token(tmp_path: Path) -> None:
    theirs = made_by_transformers("clip")
    theirs.text_model.eos_token_id = theirs.config.text_config.eos_token_id = 30
    theirs.text_model.config.eos_token_id = 30
    theirs.save_pretrained(tmp_path)
    ids = text_ids().clamp(max=29)
    ids[:, 2], ids[:, 4] = 45, 30
    model = load_model(str(tmp_path), device="cpu")
    pixels = model.normalise(raw_images(0, 2, (SIDE, SIDE)))
    assert_alike(our_features(model, ids), their_features(theirs, "clip", pixels, ids))


def copied(kind: str, folder: Path, **changes: Any) -> Path:
    """A folder with the golden weights and a changed config."""
    config = json.loads((GOLDEN / kind / "config.json").read_text())
    for key, value in changes.items():
        config[key] = config[key] | value if isinstance(config.get(key), dict) else value
    (folder / "config.json").write_text(json.dumps(config))
    save_file(load_file(GOLDEN / kind / "model.safetensors"), folder / "model.safetensors")
    return folder


def test_pixels_are_prepared_as_the_folder_says(tmp_path: Path) -> None:
    name = str(copied("clip", tmp_path))
    assert define(name).preprocessing["mean"][0] == pytest.approx(0.4815, abs=1e-4)
    about = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6], "resample": 2}
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": about}))
    model = load_model(name, device="cpu")
    assert (model.mean, model.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert model.preprocess.interpolation == "bilinear"
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"do_normalize": False}))
    assert define(name).preprocessing["std"] == [1.0, 1.0, 1.0]
    assert define(str(GOLDEN / "siglip")).preprocessing["mean"] == [0.5, 0.5, 0.5]


def test_shards_of_weights(tmp_path: Path) -> None:
    copied("siglip", tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    shards: dict[str, dict[str, Tensor]] = {"a.safetensors": {}, "b.safetensors": {}}
    where = {key: sorted(shards)[number % 2] for number, key in enumerate(tensors)}
    for key, shard in where.items():
        shards[shard][key] = tensors[key]
    for shard, held in shards.items():
        save_file(held, tmp_path / shard)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": where}))
    whole = load_model(str(GOLDEN / "siglip"), device="cpu")
    assert load_model(str(tmp_path), device="cpu").digest == whole.digest


def test_weights_that_do_not_fit_the_config(tmp_path: Path) -> None:
    name = str(copied("clip", tmp_path, text_config={"num_hidden_layers": 3}))
    with pytest.raises(ValueError, match=r"do not fit config\.json: .* missing \("):
        load_model(name, device="cpu")
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["visual_projection.weight"]
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"lack 'visual_projection\.weight'"):
        load_model(name, device="cpu")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"architectures": ["CLIPVisionModel"], "model_type": "clip_vision_model"}, "CLIPVision"),
        ({"architectures": ["CLIPForImageClassification"]}, "CLIPForImageClassification"),
        ({"architectures": None, "model_type": "blip"}, "blip"),
        ({"vision_config": {"hidden_act": "relu"}}, "relu"),
        ({"vision_config": {"hidden_act": "gelu"}}, "different activations"),
    ],
)
def test_what_is_not_covered_is_refused_by_name(
    changes: dict[str, Any], words: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=words):
        define(str(copied("clip", tmp_path, **changes)))


def test_files_that_say_a_tower_twice(tmp_path: Path) -> None:
    """As old versions of transformers wrote them; what the second leaves out has its default."""
    copied("clip", tmp_path, vision_config_dict={"hidden_size": 32}, text_config_dict=None)
    vision = define(str(tmp_path)).config["vision_cfg"]
    assert (vision["width"], vision["layers"], vision["patch_size"]) == (32, 12, 32)


def test_siglip_towers_that_differ_in_width(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="24 values"):
        define(str(copied("siglip", tmp_path, text_config={"projection_size": 24})))
    with pytest.raises(ValueError, match="no pooling head"):
        define(str(copied("siglip", tmp_path, vision_config={"vision_use_head": False})))


def test_clips_vocabulary_needs_no_transformers(tmp_path: Path) -> None:
    words: dict[str, int] = dict(open_clip.SimpleTokenizer().encoder)
    names = sorted(words, key=lambda word: words[word])
    theirs = [*names[:-2], "<|startoftext|>", "<|endoftext|>"]
    name = str(copied("clip", tmp_path, text_config={"vocab_size": len(theirs)}))
    for file, content in (
        ("tokenizer.json", {"model": {"vocab": {w: n for n, w in enumerate(theirs)}}}),
        ("vocab.json", {w: n for n, w in enumerate(theirs)}),
    ):
        (tmp_path / file).write_text(json.dumps(content))
        assert define(name).tokenizer_name is None
        assert make_tokenizer(name)(["a dog"]).shape == (1, CONTEXT)
    other = [*reversed(theirs[:5]), *theirs[5:]]
    (tmp_path / "vocab.json").write_text(json.dumps({w: n for n, w in enumerate(other)}))
    assert define(name).tokenizer_name == OWN_TOKENIZER
    assert len(_CLIP_WORDS) == 64


def test_a_tokenizer_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("legrad.models.tokenizers.find_spec", lambda name: True)
    with pytest.raises(ValueError, match="holds no tokenizer"):
        make_tokenizer(str(GOLDEN / "clip"))
