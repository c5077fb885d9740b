"""The oracle against finite differences through open_clip's own modules."""

import copy
from typing import Any

import open_clip
import pytest
import torch
from torch import Tensor, nn

from tests.builders import (
    TOWERS,
    attention_entropy,
    images,
    randomise,
    tiny_clip,
    unit_directions,
)
from tests.legrad.compare import relative_error
from tests.oracle import oracle_maps, states

SMALL = {"width": 16, "heads": 2, "layers": 2, "image_size": (16, 16), "embed_dim": 8}


class FixedAttention(nn.Module):
    """Stands in for nn.MultiheadAttention with a given attention matrix (heads,T,T)."""

    def __init__(self, attn: nn.MultiheadAttention, attention: Tensor) -> None:
        super().__init__()
        self.attn, self.attention = attn, attention

    def forward(self, q: Tensor, k: Tensor, v: Tensor, **_: Any) -> tuple[Tensor, None]:
        width = self.attn.embed_dim
        weight, bias = self.attn.in_proj_weight[-width:], self.attn.in_proj_bias[-width:]
        values = (v @ weight.T + bias).unflatten(-1, (self.attn.num_heads, -1))
        mixed = torch.einsum("hij,bjhd->bihd", self.attention, values)
        return self.attn.out_proj(mixed.flatten(2)), None


def score_of(visual: nn.Module, block: nn.Module, x: Tensor, direction: Tensor) -> float:
    pooled = visual.ln_post(block(x).mean(dim=1))
    feature = torch.nn.functional.normalize(pooled @ visual.proj, dim=-1)
    return float(feature[0] @ direction)


@torch.no_grad()
def finite_difference_map(
    visual: nn.Module, image: Tensor, direction: Tensor, layers: int
) -> Tensor:
    """The definition of LeGrad, every derivative a central difference."""
    step = 1e-5
    total = torch.zeros(visual.positional_embedding.shape[0], dtype=torch.float64)
    x = visual._embeds(image[None])
    blocks = list(visual.transformer.resblocks)
    for index, block in enumerate(blocks):
        after = block(x)
        if index >= len(blocks) - layers:
            normed = block.ln_1(x)
            attention = block.attn(normed, normed, normed, average_attn_weights=False)[1][0]
            probe = copy.deepcopy(block)
            probe.attn = FixedAttention(block.attn, attention)
            assert torch.allclose(probe(x), after, atol=1e-12)
            gradient = torch.zeros_like(attention)
            for entry in range(attention.numel()):
                scores = []
                for sign in (1, -1):
                    moved = attention.clone()
                    moved.view(-1)[entry] += sign * step
                    probe.attn.attention = moved
                    scores.append(score_of(visual, probe, x, direction))
                gradient.view(-1)[entry] = (scores[0] - scores[1]) / (2 * step)
            total += gradient.clamp(min=0).mean(dim=(0, 1))
        x = after
    return total[1:].reshape(visual.grid_size)


@pytest.mark.parametrize("tower", ["gelu", "quick_gelu", "layer_scale", "average_then_norm"])
def test_maps_equal_finite_differences(tower: str) -> None:
    model = tiny_clip(3, **SMALL, **TOWERS[tower])
    pixels, directions = images(4, 1, (16, 16)), unit_directions(5, 2, 8)
    for layers in (1, 2):
        maps, _, _ = oracle_maps(model, pixels, directions, layers)
        for query, direction in enumerate(directions):
            expected = finite_difference_map(model.visual, pixels[0], direction, layers)
            assert relative_error(maps[:, query], expected[None]) < 1e-7


@pytest.mark.parametrize("tower", TOWERS)
def test_features_are_the_models_own(tower: str) -> None:
    model = tiny_clip(0, **TOWERS[tower])
    pixels, directions = images(1, 2), unit_directions(2, 3)
    maps, scores, features = oracle_maps(model, pixels, directions, 1)
    own = model.encode_image(pixels, normalize=True)
    assert torch.allclose(features, own, atol=1e-12)
    assert torch.allclose(scores, own @ directions.T, atol=1e-12)
    assert maps.shape == (2, 3, 4, 4)
    assert maps.dtype == torch.float64


def test_maps_depend_on_image_text_layer_and_place() -> None:
    model = tiny_clip(0)
    pixels, directions = images(1, 2), unit_directions(2, 2)
    one, two = (oracle_maps(model, pixels, directions, layers)[0] for layers in (1, 2))
    assert one.min() >= 0
    assert (two > one).all()
    for left, right in ((one[0], one[1]), (one[:, 0], one[:, 1]), (one, two)):
        assert relative_error(left, right) > 0.05
    assert (one.std(dim=(-2, -1)) / one.mean(dim=(-2, -1))).min() > 0.05


@pytest.mark.parametrize(
    "parameter",
    [
        "class_embedding",
        "positional_embedding",
        "proj",
        "conv1.weight",
        *(f"{norm}.{kind}" for norm in ("ln_pre", "ln_post") for kind in ("weight", "bias")),
        *(
            f"transformer.resblocks.2.{name}"
            for name in (
                *("ln_1.weight", "ln_1.bias", "ln_2.weight", "ln_2.bias"),
                *("attn.in_proj_weight", "attn.in_proj_bias"),
                *("attn.out_proj.weight", "attn.out_proj.bias"),
                *("mlp.c_fc.weight", "mlp.c_fc.bias", "mlp.c_proj.weight", "mlp.c_proj.bias"),
                *("ls_1.gamma", "ls_2.gamma"),
            )
        ),
    ],
)
def test_every_parameter_moves_the_map(parameter: str) -> None:
    """An engine that left one out would be found."""
    model = tiny_clip(0, ls_init_value=0.5)
    pixels, directions = images(1, 1), unit_directions(2, 1)
    before, _, _ = oracle_maps(model, pixels, directions, 1)
    weights = model.visual.get_parameter(parameter)
    with torch.no_grad():
        factor = torch.linspace(0.5, 0.9, weights.numel(), dtype=weights.dtype)
        weights.mul_(factor.reshape(weights.shape))  # uneven: normalising undoes one common factor
    after, _, _ = oracle_maps(model, pixels, directions, 1)
    assert relative_error(after, before) > 1e-3


def test_attention_is_far_from_uniform() -> None:
    for tower in TOWERS.values():
        assert attention_entropy(tiny_clip(0, **tower), images(1, 2)) < 0.8


def test_entropy_of_uniform_attention_is_one() -> None:
    model = tiny_clip(0)
    with torch.no_grad():
        for block in model.visual.transformer.resblocks:
            block.attn.in_proj_weight.zero_()
            block.attn.in_proj_bias.zero_()
    assert attention_entropy(model, images(1, 1)) == pytest.approx(1)


def test_attention_equals_open_clips() -> None:
    visual = tiny_clip(0).visual
    (image,) = images(1, 1)
    with torch.no_grad():
        for state in states(visual, image):
            normed = state.block.ln_1(state.tokens[None])
            own = state.block.attn(normed, normed, normed, average_attn_weights=False)[1][0]
            assert torch.allclose(state.attention, own, atol=1e-12)


def test_builder_leaves_no_default_parameter() -> None:
    model = tiny_clip(0, ls_init_value=0.5)
    for name, parameter in model.visual.named_parameters():
        assert parameter.std() > 0, name
    assert isinstance(model, open_clip.CLIP)


def test_builder_is_reproducible() -> None:
    left, right, other = tiny_clip(0), tiny_clip(0), tiny_clip(1)
    for name, parameter in left.named_parameters():
        assert torch.equal(parameter, right.get_parameter(name))
        assert not torch.equal(parameter, other.get_parameter(name))
    assert randomise(other, 0).logit_scale != left.logit_scale
