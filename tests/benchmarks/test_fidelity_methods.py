"""The rivals of the bench, each against its formula over the oracle's attentions in float64."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from benchmarks.fidelity.methods import (
    Centre,
    DenseSimilarity,
    Gae,
    GradCam,
    Ours,
    Random,
    RawAttention,
    Rollout,
    methods,
)
from legrad.models.load import from_open_clip
from legrad.models.vision_language import VisionLanguageModel
from legrad.queries.distinct import residual
from tests.builders import TOWERS, images, tiny_clip, unit_directions
from tests.oracle import _image_feature, _norm, block_output, oracle_maps, states

COUNT = 3
GRID = (4, 4)


@pytest.fixture(scope="module", params=["quick_gelu", "layer_scale", "average"])
def model(request: pytest.FixtureRequest) -> VisionLanguageModel:
    return from_open_clip(tiny_clip(5, **TOWERS[request.param]))


@pytest.fixture(scope="module")
def inputs() -> tuple[Tensor, Tensor]:
    return images(1, COUNT), unit_directions(2, COUNT)


def _attentions(
    visual: nn.Module, image: Tensor, text: Tensor
) -> tuple[list[Tensor], list[Tensor]]:
    """Attentions (H, T, T) of every block of the unmodified module, and their gradients."""
    with torch.enable_grad():
        blocks = list(states(visual, image))
        last = blocks[-1]
        tokens = block_output(last.block, last.tokens, last.attention)
        found = [state.attention for state in blocks]
        gradients = torch.autograd.grad(_image_feature(visual, tokens) @ text, found)
    return [a.detach() for a in found], list(gradients)


def _row(visual: nn.Module, matrix: Tensor) -> Tensor:
    """Of one (T, T), what the pooled token gets from each patch."""
    return matrix[1:, 1:].mean(dim=0) if visual.pool_type == "avg" else matrix[0, 1:]


def _raw(visual: nn.Module, found: Sequence[Tensor], gradients: Sequence[Tensor]) -> Tensor:
    return _row(visual, found[-1].mean(dim=0))


def _rollout(visual: nn.Module, found: Sequence[Tensor], gradients: Sequence[Tensor]) -> Tensor:
    mixed = [(a.mean(dim=0) + torch.eye(a.shape[-1])) / 2 for a in found]
    return _row(visual, torch.linalg.multi_dot(mixed[::-1]))


def _gradcam(visual: nn.Module, found: Sequence[Tensor], gradients: Sequence[Tensor]) -> Tensor:
    heads = [
        _row(visual, a) * _row(visual, g).mean()
        for a, g in zip(found[-1], gradients[-1], strict=True)
    ]
    return torch.stack(heads).mean(dim=0).relu()


def _gae(visual: nn.Module, found: Sequence[Tensor], gradients: Sequence[Tensor]) -> Tensor:
    product = torch.eye(found[0].shape[-1], dtype=torch.float64)
    for a, g in zip(found, gradients, strict=True):
        product = (torch.eye(len(product)) + torch.relu(a * g).mean(dim=0)) @ product
    return _row(visual, product)


RIVALS = {RawAttention: _raw, Rollout: _rollout, GradCam: _gradcam, Gae: _gae}


@pytest.mark.parametrize("kind", RIVALS)
def test_a_rival_follows_its_formula(
    model: VisionLanguageModel, inputs: tuple[Tensor, Tensor], kind: type
) -> None:
    pixels, texts = inputs
    visual = model.model.visual
    maps = kind(model)(pixels, texts)
    assert maps.shape == (COUNT, *GRID)
    for image, text, heat in zip(pixels, texts, maps, strict=True):
        expected = RIVALS[kind](visual, *_attentions(visual, image, text))
        torch.testing.assert_close(heat.flatten(), expected, rtol=1e-9, atol=1e-12)


def test_dense_similarity_lets_the_last_block_mix_nothing(
    model: VisionLanguageModel, inputs: tuple[Tensor, Tensor]
) -> None:
    pixels, texts = inputs
    visual = model.model.visual
    maps = DenseSimilarity(model)(pixels, texts)
    for image, text, heat in zip(pixels, texts, maps, strict=True):
        with torch.no_grad():
            last = list(states(visual, image))[-1]
            tokens = block_output(last.block, last.tokens, torch.eye(17, dtype=torch.float64))
            features = _norm(visual.ln_post, tokens[1:]) @ visual.proj
        expected = torch.cosine_similarity(features, text[None])
        torch.testing.assert_close(heat.flatten(), expected, rtol=1e-9, atol=1e-12)


def test_two_patches_by_hand() -> None:
    attention = torch.tensor([[[[0.5, 0.3, 0.2], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6]]]])
    gradient = torch.tensor([[[[1.0, 2.0, -1.0], [0.0, 0.0, 0.0], [1.0, 1.0, 1.0]]]])

    def fixed(kind: type) -> torch.Tensor:
        method = kind(from_open_clip(tiny_clip(5)))  # pools the class token
        method.attentions = lambda pixels: ([attention], None)
        method.gradients = lambda pixels, texts: ([attention], [gradient])
        return method(torch.zeros(1, 3, 8, 16), torch.zeros(1, 32)).flatten()

    torch.testing.assert_close(fixed(RawAttention), torch.tensor([0.3, 0.2]))
    torch.testing.assert_close(fixed(Rollout), torch.tensor([0.15, 0.1]))
    torch.testing.assert_close(fixed(GradCam), torch.tensor([0.15, 0.1]))  # the mean of 2 and -1
    torch.testing.assert_close(fixed(Gae), torch.tensor([0.6, 0.0]))


def test_ours_is_the_product_for_each_image_and_its_own_text(
    model: VisionLanguageModel, inputs: tuple[Tensor, Tensor]
) -> None:
    pixels, texts = inputs
    expected = oracle_maps(model.model, pixels, texts, 2)[0]
    torch.testing.assert_close(Ours(model, 2)(pixels, texts), torch.einsum("iihw->ihw", expected))
    others = unit_directions(9, 5)
    rows = [residual(text.numpy(), others.numpy()) for text in texts]
    distinct = torch.from_numpy(np.stack(rows))
    torch.testing.assert_close(
        Ours(model, 2, others)(pixels, texts), Ours(model, 2)(pixels, distinct)
    )


def test_ours_suppresses_what_a_text_without_meaning_lights(
    model: VisionLanguageModel, inputs: tuple[Tensor, Tensor]
) -> None:
    pixels, texts = inputs
    baseline = unit_directions(4, 1)
    plain = torch.einsum("iihw->ihw", oracle_maps(model.model, pixels, texts, 2)[0])
    hot = oracle_maps(model.model, pixels, baseline, 2)[0][:, 0].flatten(1)
    low, high = hot.min(dim=1, keepdim=True).values, hot.max(dim=1, keepdim=True).values
    zeroed = ((hot - low) / (high - low) > 0.8).view_as(plain)
    assert zeroed.any()
    expected = plain.masked_fill(zeroed, 0).float()
    torch.testing.assert_close(Ours(model, 2, None, baseline[0])(pixels, texts), expected)


def test_every_method_gives_a_map_and_leaves_the_model_as_it_was(
    model: VisionLanguageModel, inputs: tuple[Tensor, Tensor]
) -> None:
    pixels, texts = inputs
    before = model.encode_image(pixels)
    found = methods(model, unit_directions(9, 5), unit_directions(4, 1)[0])
    names = [method.name for method in found]
    assert len(set(names)) == len(names) == 16
    for method in found:
        maps = method(pixels, texts)
        assert maps.shape == (COUNT, *GRID)
        assert maps.isfinite().all()
    assert torch.equal(model.encode_image(pixels), before)


def test_the_two_baselines_know_nothing_of_the_image() -> None:
    texts = unit_directions(2, COUNT)
    noise = Random(GRID)(images(1, COUNT), texts)
    assert noise.unique().numel() == noise.numel()
    centre = Centre(GRID)(images(1, COUNT), texts)
    assert torch.equal(centre[0], centre[1])
    assert torch.equal(centre[0], centre[0].flip(0))
    assert torch.equal(centre[0], centre[0].T)
    assert (centre[0, 1:3, 1:3] > centre[0, 0, 0]).all()
