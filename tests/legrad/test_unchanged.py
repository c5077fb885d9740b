"""Explaining leaves the model as it was: weights, outputs, flags and hooks."""

import copy
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from legrad import LeGrad, from_open_clip
from tests.builders import images, raw_images, tiny_clip, tokenize, unit_directions

HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
    "_state_dict_hooks",
    "_load_state_dict_pre_hooks",
)
Act = Callable[[nn.Module], Any]


def explain(model: nn.Module, pixels: Tensor, **kwargs: Any) -> None:
    wrapped = from_open_clip(model, tokenizer=tokenize, **kwargs)
    LeGrad(wrapped, layers=3).explain(pixels, wrapped.encode_text(["a dog", "snow"]))


def explain_with_wrong_width(model: nn.Module) -> None:
    engine = LeGrad(from_open_clip(model))
    with pytest.raises(ValueError, match="directions"):
        engine.explain(images(1, 2), unit_directions(2, 2, 31))


def explain_wrong_pixels(model: nn.Module) -> None:
    engine = LeGrad(from_open_clip(model))
    with pytest.raises(ValueError, match="pixels"):
        engine.explain(images(1, 2, (32, 33)), unit_directions(2, 2))


def explain_and_break_inside(model: nn.Module) -> None:
    """The second explained block fails, in the middle of the forward pass."""
    engine = LeGrad(from_open_clip(model), layers=2)
    engine._relevance.layers[1] = None  # type: ignore[attr-defined]
    with pytest.raises(AttributeError):
        engine.explain(images(1, 2), unit_directions(2, 2))


ACTS: dict[str, Act] = {
    "native": lambda model: explain(model, images(1, 2)),
    "larger": lambda model: explain(model, images(1, 2, (48, 64))),
    "bytes": lambda model: explain(model, raw_images(1, 2)),
    "bf16": lambda model: explain(model, raw_images(1, 2), precision="bf16"),
    "selected": lambda model: LeGrad(from_open_clip(model)).explain(
        images(1, 2), unit_directions(2, 2), select=lambda scores: scores > 0
    ),
    "encode_image": lambda model: from_open_clip(model).encode_image(raw_images(1, 2)),
    "digest": lambda model: from_open_clip(model).digest,
    "wrong_width": explain_with_wrong_width,
    "wrong_pixels": explain_wrong_pixels,
    "broken_inside": explain_and_break_inside,
}


def flags(model: nn.Module) -> dict[str, Any]:
    """All that a careless explainer changes besides weights."""
    seen: dict[str, Any] = {}
    for name, module in model.named_modules():
        seen[name] = (
            type(module),
            module.training,
            sorted(vars(module)),
            tuple(len(getattr(module, hooks)) for hooks in HOOKS),
            [key for key, value in vars(module).items() if callable(value)],
        )
    for name, parameter in model.named_parameters():
        seen[f"{name} parameter"] = (
            id(parameter),
            parameter.data_ptr(),
            parameter.requires_grad,
            parameter.grad is None,
            parameter.dtype,
            parameter.shape,
        )
    return seen


@torch.no_grad()
def outputs(model: nn.Module) -> list[Tensor]:
    text = tokenize(["a dog on snow"])
    pixels = images(5, 2, dtype=model.visual.proj.dtype)
    return [model.encode_image(pixels), model.encode_text(text)]


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_weights_outputs_and_flags(act: str, dtype: torch.dtype) -> None:
    model = tiny_clip(0, ls_init_value=0.5, dtype=dtype)
    for index, parameter in enumerate(model.parameters()):
        parameter.requires_grad_(index % 3 != 0)
    before = copy.deepcopy(model.state_dict())
    outputs_before, flags_before = outputs(model), flags(model)
    ACTS[act](model)
    after = model.state_dict()
    assert list(after) == list(before)
    for name, tensor in before.items():
        assert torch.equal(after[name], tensor), name
    for left, right in zip(outputs(model), outputs_before, strict=True):
        assert torch.equal(left, right)
    assert flags(model) == flags_before


@pytest.mark.parametrize("training", [True, False])
def test_training_flag(training: bool) -> None:
    model = tiny_clip(0).train(training)
    model.visual.transformer.resblocks[1].train(not training)
    before = flags(model)
    explain(model, images(1, 2))
    assert flags(model) == before


def test_gradients_still_flow_afterwards() -> None:
    model = tiny_clip(0)
    explain(model, images(1, 2))
    assert torch.is_grad_enabled()
    model.encode_image(images(1, 2)).square().sum().backward()
    assert all(p.grad is not None for p in model.visual.parameters())


def test_inputs_are_not_written_to() -> None:
    model = tiny_clip(0)
    pixels, directions = images(1, 2), unit_directions(2, 2)
    kept = pixels.clone(), directions.clone()
    LeGrad(from_open_clip(model)).explain(pixels, directions)
    assert torch.equal(pixels, kept[0])
    assert torch.equal(directions, kept[1])
    select = torch.tensor([[True, False], [False, True]])
    LeGrad(from_open_clip(model)).explain(pixels, directions, select=select)
    assert select.tolist() == [[True, False], [False, True]]


def test_results_hold_no_graph() -> None:
    model = tiny_clip(0)
    directions = unit_directions(2, 2).requires_grad_()
    seen = LeGrad(from_open_clip(model)).explain(images(1, 2), directions)
    for tensor in (seen.maps, seen.scores, seen.image_features):
        assert not tensor.requires_grad


def test_explaining_twice_gives_the_same() -> None:
    engine = LeGrad(from_open_clip(tiny_clip(0)))
    pixels, directions = images(1, 2), unit_directions(2, 2)
    first = engine.explain(pixels, directions)
    engine.explain(images(3, 1, (48, 16)), directions[:1])
    second = engine.explain(pixels, directions)
    assert torch.equal(first.maps, second.maps)
    assert torch.equal(first.scores, second.scores)


def test_two_engines_in_two_threads_agree_with_one() -> None:
    model = from_open_clip(tiny_clip(0))
    engines = LeGrad(model), LeGrad(model)
    pixels, directions = [images(seed, 3) for seed in (1, 2)], unit_directions(2, 5)
    alone = [engines[0].explain(batch, directions).maps for batch in pixels]
    with ThreadPoolExecutor(2) as pool:
        for engine_of in ((0, 1), (0, 0)):  # of their own, and a shared one
            calls = [
                pool.submit(engines[engine].explain, batch, directions)
                for _ in range(10)
                for engine, batch in zip(engine_of, pixels, strict=True)
            ]
            for number, call in enumerate(calls):
                assert torch.equal(call.result().maps, alone[number % 2])
