"""Extreme images and directions, and what is refused."""

import json
from dataclasses import replace
from typing import Any

import open_clip
import pytest
import torch
from open_clip.model import _build_vision_tower
from torch import Tensor, nn

from legrad import LeGrad, UnsupportedModelError, from_open_clip, load_model
from legrad.models import catalog
from legrad.models.catalog import architecture
from legrad.models.definition import config_files
from legrad.models.timm_figures import TRUNKS, WITHOUT_TOKENS
from legrad.preprocess import Preprocess
from legrad.towers import Tower, tower_of
from tests.builders import TINY_TEXT, images, tiny_clip, tokenize, unit_directions
from tests.legrad.compare import relative_error
from tests.oracle import oracle_maps


@pytest.fixture(scope="module")
def engine() -> LeGrad:
    return LeGrad(from_open_clip(tiny_clip(0), tokenizer=tokenize))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("value", [0, 1, 127, 255])
def test_constant_images_are_finite(value: int, dtype: torch.dtype) -> None:
    engine = LeGrad(from_open_clip(tiny_clip(0, dtype=dtype)))
    pixels = torch.full((2, 3, 32, 32), value, dtype=torch.uint8)
    seen = engine.explain(pixels, unit_directions(2, 3, dtype=dtype))
    for tensor in (seen.maps, seen.scores, seen.image_features):
        assert tensor.isfinite().all()
    assert seen.maps.min() >= 0


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("scale", [0.0, 1e-6, 1e6, 1e12])
def test_extreme_pixels_and_directions_are_finite(scale: float, precision: str) -> None:
    model = from_open_clip(tiny_clip(0, dtype=torch.float32), precision=precision)
    pixels = scale * images(1, 2, dtype=torch.float32)
    if precision == "fp16":
        pixels = pixels.clamp(-1e4, 1e4)  # the tower itself overflows beyond
    directions = unit_directions(2, 3, dtype=torch.float32) * torch.tensor([[1e-20], [1], [1e20]])
    seen = LeGrad(model).explain(pixels, directions)
    for tensor in (seen.maps, seen.scores, seen.image_features):
        assert tensor.isfinite().all()
    assert seen.maps.amax(dim=(0, 2, 3)).diff().min() > 0


def test_identical_tokens_are_finite() -> None:
    """A tower whose tokens are all constant: every LayerNorm sees a variance of zero."""
    model = tiny_clip(0)
    with torch.no_grad():
        for name in ("class_embedding", "positional_embedding"):
            getattr(model.visual, name).zero_()
        model.visual.ln_pre.weight.zero_()
        model.visual.ln_pre.bias.zero_()
    seen = LeGrad(from_open_clip(model)).explain(images(1, 1), unit_directions(2, 2))
    assert seen.maps.isfinite().all()
    assert seen.scores.isfinite().all()


def test_a_tower_that_embeds_to_zero_is_finite() -> None:
    model = tiny_clip(0)
    with torch.no_grad():
        model.visual.proj.zero_()
    seen = LeGrad(from_open_clip(model)).explain(images(1, 1), unit_directions(2, 2))
    assert seen.maps.abs().max() == 0
    assert seen.scores.abs().max() == 0


def test_a_zero_direction_gives_zero_maps(engine: LeGrad) -> None:
    directions = torch.cat([torch.zeros(1, 32).double(), unit_directions(2, 1)])
    seen = engine.explain(images(1, 2), directions)
    assert seen.maps[:, 0].abs().max() == 0
    assert seen.scores[:, 0].abs().max() == 0
    assert seen.maps[:, 1].amax(dim=(-2, -1)).min() > 0


@pytest.mark.parametrize("length", [1e-3, 0.5, 7.0, 1e4])
def test_maps_and_scores_are_linear_in_a_directions_length(engine: LeGrad, length: float) -> None:
    pixels, directions = images(1, 2), unit_directions(2, 3)
    unit, scaled = engine.explain(pixels, directions), engine.explain(pixels, length * directions)
    assert relative_error(scaled.maps, length * unit.maps) <= 1e-12
    torch.testing.assert_close(scaled.scores, length * unit.scores, atol=0, rtol=1e-10)
    torch.testing.assert_close(scaled.image_features, unit.image_features)


def test_a_difference_of_texts_is_a_direction() -> None:
    model = tiny_clip(0)
    directions = unit_directions(2, 2)
    contrast = (directions[0] - directions[1])[None]
    seen = LeGrad(from_open_clip(model)).explain(images(1, 2), contrast)
    maps, scores, _ = oracle_maps(model, images(1, 2), contrast, 2)
    assert relative_error(seen.maps, maps) <= 1e-6
    torch.testing.assert_close(seen.scores, scores)


def test_a_direction_and_its_opposite_have_different_maps(engine: LeGrad) -> None:
    """Only positive influence counts."""
    pixels, direction = images(1, 1), unit_directions(2, 1)
    left, right = engine.explain(pixels, direction), engine.explain(pixels, -direction)
    torch.testing.assert_close(left.scores, -right.scores)
    assert relative_error(left.maps, right.maps) > 0.05


@pytest.mark.parametrize(
    ("pixels", "words"),
    [
        (
            torch.zeros(3, 32, 32),
            r"pixels: expected \(B, 3, height, width\) and B > 0, found \(3, 32, 32\)",
        ),
        (torch.zeros(1, 1, 32, 32), r"found \(1, 1, 32, 32\)"),
        (torch.zeros(1, 32, 32, 3), r"found \(1, 32, 32, 3\)"),
        (torch.zeros(1, 3, 32, 36), r"pixels are 32 x 36: expected multiples of the patch, 8 x 8"),
        (torch.zeros(1, 3, 4, 32), "pixels are 4 x 32"),
        (torch.zeros(1, 3, 0, 32), "pixels are 0 x 32"),
    ],
)
def test_wrong_pixels(engine: LeGrad, pixels: Tensor, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        engine.explain(pixels, unit_directions(2, 1))


@pytest.mark.parametrize(
    ("directions", "words"),
    [
        (
            torch.zeros(32),
            r"directions: expected \(Q, 32\) for 'custom' and Q > 0, found \(32,\)",
        ),
        (torch.zeros(2, 31), r"expected \(Q, 32\) for 'custom' and Q > 0, found \(2, 31\)"),
        (torch.zeros(32, 2), r"found \(32, 2\)"),
        (torch.zeros(1, 2, 32), r"found \(1, 2, 32\)"),
    ],
)
def test_wrong_directions(engine: LeGrad, directions: Tensor, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        engine.explain(images(1, 1), directions)


@pytest.mark.parametrize("layers", [0, -1, 4])
def test_layers_out_of_range(layers: int) -> None:
    model = from_open_clip(tiny_clip(0), name="tiny")
    with pytest.raises(ValueError, match=f"layers={layers}: expected 1 to 3, .* of 'tiny'"):
        LeGrad(model, layers=layers)


def test_one_text_is_not_a_list(engine: LeGrad) -> None:
    with pytest.raises(TypeError, match="not one string"):
        engine.model.encode_text("a dog")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("RN50", "a convolutional vision tower"),
        ("RN50x4-quickgelu", "a convolutional vision tower"),
        ("convnext_base_w", "timm vision tower 'convnext_base': ConvNeXt is convolutional"),
        ("MobileCLIP-S1", "'fastvit_mci1': FastViT is convolutional but for its last stage"),
        ("swin_base_patch4_window7_224", "Swin attends within windows"),
        ("ViTamin-L", "ViTamin has convolutional stages and gated MLPs"),
    ],
)
def test_unsupported_towers_are_told_before_anything_is_built(name: str, reason: str) -> None:
    architecture("ViT-B-32")
    with pytest.raises(UnsupportedModelError, match=f"{reason}.*supported are.*ViT-B-32.*mini"):
        load_model(name, "weights.safetensors")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("ViT-B/32", "Did you mean ViT-B-32"),
        ("vit-b-16", "Did you mean ViT-B-16"),
        ("vit-b-32", "ViT-B-32"),
        ("ViT-L-41", "ViT-L-14"),
        ("completely different", "open_clip.$"),
    ],
)
def test_unknown_names(name: str, hint: str) -> None:
    with pytest.raises(UnsupportedModelError, match=f"no model is called '{name}'.*{hint}"):
        load_model(name, "openai")


class Opaque(nn.Module):
    """A model whose vision tower is something else."""

    def __init__(self, visual: nn.Module) -> None:
        super().__init__()
        self.visual = visual


def small_tower(**vision: Any) -> nn.Module:
    return tiny_clip(0, **vision).visual


def resnet() -> nn.Module:
    config = {"layers": (1, 1, 1, 1), "width": 8, "image_size": 32, "head_width": 8}
    return open_clip.CLIP(16, config, dict(TINY_TEXT)).visual


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: nn.Linear(2, 2), "the vision tower is a Linear"),
        (resnet, "the vision tower is a ModifiedResNet"),
        (lambda: small_tower(attentional_pool="parallel", attn_pooler_heads=4), "does not pool"),
        (lambda: small_tower(attentional_pool=True, pool_type="avg"), "of which no single query"),
        (lambda: small_tower(pool_type="none"), "does not pool its tokens"),
        (lambda: small_tower(qk_norm=True), "blocks of type CustomResidualAttentionBlock"),
    ],
)
def test_unsupported_modules(make: Any, reason: str) -> None:
    visual = make()
    with pytest.raises(UnsupportedModelError, match=f"{reason}.*supported are"):
        tower_of(visual)
    with pytest.raises(UnsupportedModelError, match=reason):
        from_open_clip(Opaque(visual))


def test_an_activation_without_derivative() -> None:
    model = tiny_clip(0)
    model.visual.transformer.resblocks[2].mlp.gelu = nn.SiLU()
    with pytest.raises(UnsupportedModelError, match="activation SiLU"):
        LeGrad(from_open_clip(model)).explain(images(1, 1), unit_directions(2, 1))


def meta_tower(embed_dim: int, vision: dict[str, Any]) -> Tower | None:
    """The adapter of a tower without memory; None if no family covers it."""
    with torch.device("meta"):
        visual = _build_vision_tower(embed_dim, vision)
    try:
        return tower_of(visual)
    except UnsupportedModelError:
        return None


def test_catalog_and_towers_agree_about_all_of_open_clips_models(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What the config file says is what the built tower says (on the meta device: no memory).

    Listed timm towers are built in test_catalog.py; of the others, one of each kind is built here.
    Models that differ in their texts alone share a tower.
    """
    monkeypatch.setattr(catalog, "_lacking", lambda text: None)  # towers do not depend on texts
    accepted = 0
    towers: dict[str, Tower | None] = {}
    kinds = dict.fromkeys(WITHOUT_TOKENS, 0)
    for name in config_files():
        config = open_clip.get_model_config(name)
        vision = config["vision_cfg"]
        trunk = vision.get("timm_model_name", "")
        kind = next((start for start in kinds if trunk.startswith(start)), None)
        if trunk in TRUNKS or (kind and kinds[kind]):
            continue
        if kind:
            kinds[kind] += 1
        key = json.dumps([config["embed_dim"], vision])
        if key not in towers:
            towers[key] = meta_tower(config["embed_dim"], vision)
        tower = towers[key]
        if tower is None:
            with pytest.raises(UnsupportedModelError):
                architecture(name)
            continue
        arch = architecture(name)
        assert arch.image_size == tower.native_size, name
        assert arch.width == tower.width, name
        assert arch.embed_dim == tower.embed_dim, name
        assert arch.patch_size == tower.patch_size, name
        assert arch.layers == len(tower.blocks), name
        accepted += 1
    assert accepted > 50
    assert all(kinds.values())


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"precision": "int8"}, "precision 'int8': expected one of"),
        ({"image_size": 100}, "image_size 100 x 100: expected multiples of the patch, 32 x 32"),
        ({"image_size": (224, 230)}, "image_size 224 x 230"),
        ({"image_size": 0}, "image_size 0 x 0"),
        ({"image_size": -32}, "image_size -32 x -32"),
        ({"pretrained": None}, "needs pretrained=: an open_clip tag such as"),
        ({"pretrained": "openia"}, "no such tag for 'ViT-B-32' .*tags: .*openai"),
        ({"pretrained": "/nowhere/weights.npz"}, "expected a file ending in .safetensors"),
    ],
)
def test_load_model_refuses(kwargs: dict[str, Any], words: str) -> None:
    arguments = {"pretrained": "openai"} | kwargs
    name = "ViT-S-32-alt" if "npz" in str(kwargs) else "ViT-B-32"
    with pytest.raises(ValueError, match=words):
        load_model(name, **arguments)


def test_from_open_clip_refuses_a_size_that_is_no_multiple_of_the_patch() -> None:
    with pytest.raises(ValueError, match="image_size 32 x 20: expected multiples of the patch"):
        from_open_clip(tiny_clip(0), image_size=(32, 20))


def test_the_mini_model_takes_no_weights() -> None:
    with pytest.raises(ValueError, match="mini model"):
        load_model("mini", "openai")


def test_grid_and_preprocessing_follow_the_image_size() -> None:
    model = from_open_clip(tiny_clip(0), image_size=(48, 16))
    assert model.grid == (6, 2)
    assert model.preprocess.size == (48, 16)
    assert from_open_clip(tiny_clip(0)).grid == (4, 4)
    assert from_open_clip(tiny_clip(0, image_size=(24, 48))).grid == (3, 6)


def test_boxes_lay_a_map_on_its_original() -> None:
    model = from_open_clip(tiny_clip(0))
    sizes = [(60, 40), (40, 60)]
    found = LeGrad(model).explain(images(1, 2), unit_directions(2, 1), sizes=sizes)
    assert found.boxes is not None
    assert found.boxes.tolist() == [[0, 0, 60, 40], [0, 0, 40, 60]]
    assert LeGrad(model).explain(images(1, 2), unit_directions(2, 1)).boxes is None
    with pytest.raises(ValueError, match="1 images, found 2"):
        LeGrad(model).explain(images(1, 1), unit_directions(2, 1), sizes=sizes)


def test_padding_has_no_heat() -> None:
    model = from_open_clip(tiny_clip(0))
    padded = replace(model, preprocess=Preprocess((32, 32), "pad"))
    pixels, directions = images(1, 3), unit_directions(2, 2)
    select = torch.tensor([[True, False]] * 3)
    sizes = [(64, 32), (32, 64), (10, 10)]
    whole = LeGrad(model).explain(pixels, directions)
    found = LeGrad(padded).explain(pixels, directions, select=select, sizes=sizes)
    assert found.maps[:, 1].isnan().all()
    for image, cells in enumerate([(slice(1, 3), slice(0, 4)), (slice(0, 4), slice(1, 3))]):
        heat = found.maps[image, 0]
        torch.testing.assert_close(heat[cells], whole.maps[image, 0][cells])
        assert heat.count_nonzero() == 8
    torch.testing.assert_close(found.maps[2, 0], whole.maps[2, 0])
    assert found.boxes is not None
    assert found.boxes[0].tolist() == [0, -16, 64, 48]
    with pytest.raises(ValueError, match="sizes="):
        LeGrad(padded).explain(pixels, directions)
