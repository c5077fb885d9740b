"""The engine against the oracle: every tower, layer count, image size, precision and chunking."""

import copy
import shutil
from functools import partial
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn

from legrad import Explanation, LeGrad, from_open_clip
from legrad.towers import ClipTower
from tests.builders import TOWERS as KINDS
from tests.builders import images, raw_images, tiny_clip, unit_directions
from tests.legrad.compare import rank_correlation, relative_error
from tests.oracle import oracle_maps

TOWERS: dict[str, dict[str, Any]] = {
    **KINDS,
    "one_head": {"heads": 1},
    "narrow_mlp": {"mlp_ratio": 1.5},
    "oblong": {"image_size": (24, 48)},
    "custom_text": {"custom_text": True},
}
TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-4}
BATCH, QUERIES = 3, 4


def explain(model: nn.Module, pixels: Tensor, directions: Tensor, **kwargs: Any) -> Explanation:
    return LeGrad(from_open_clip(model), **kwargs).explain(pixels, directions)


def check(model: nn.Module, pixels: Tensor, directions: Tensor, layers: int) -> None:
    """Maps, scores and features of the engine against the oracle, in the model's dtype."""
    dtype = pixels.dtype
    seen = explain(model, pixels, directions, layers=layers)
    maps, scores, features = oracle_maps(model, pixels, directions, layers)
    assert seen.maps.dtype == dtype
    assert seen.maps.min() >= 0
    assert seen.layers == layers
    assert relative_error(seen.maps, maps) <= TOLERANCE[dtype]
    torch.testing.assert_close(seen.scores.double(), scores, atol=TOLERANCE[dtype], rtol=0)
    torch.testing.assert_close(
        seen.image_features.double(), features, atol=TOLERANCE[dtype], rtol=0
    )


@pytest.mark.parametrize(
    ("layers", "dtype"), [(1, torch.float64), (3, torch.float64), (2, torch.float32)]
)
@pytest.mark.parametrize("tower", TOWERS)
def test_towers_and_layers(tower: str, layers: int, dtype: torch.dtype) -> None:
    model = tiny_clip(0, **TOWERS[tower], dtype=dtype)
    size = tuple(model.visual.image_size)
    pixels, directions = images(1, BATCH, size, dtype), unit_directions(2, QUERIES, dtype=dtype)
    check(model, pixels, directions, layers)


@pytest.mark.parametrize("size", [(48, 48), (16, 56), (56, 8), (24, 24)])
@pytest.mark.parametrize("native", [(32, 32), (24, 48)])
def test_foreign_image_sizes(native: tuple[int, int], size: tuple[int, int]) -> None:
    model = tiny_clip(0, image_size=native)
    pixels, directions = images(1, 2, size), unit_directions(2, 3)
    seen = explain(model, pixels, directions)
    assert seen.maps.shape == (2, 3, size[0] // 8, size[1] // 8)
    check(model, pixels, directions, 2)


def test_foreign_size_equals_a_module_that_open_clip_resized() -> None:
    model = tiny_clip(0, dtype=torch.float32)
    resized = tiny_clip(1, image_size=(48, 64), dtype=torch.float32)
    state = copy.deepcopy(model.state_dict())
    wrapped = {f"visual.{k}": v for k, v in model.visual.state_dict().items()}
    open_clip.model.resize_pos_embed(wrapped, resized)
    state.update(wrapped)
    resized.load_state_dict(state)
    pixels = images(1, 2, (48, 64), torch.float32)
    directions = unit_directions(2, 2, dtype=torch.float32)
    left, right = explain(model, pixels, directions), explain(resized, pixels, directions)
    assert relative_error(left.maps, right.maps) <= 1e-4
    expected = resized.encode_image(pixels, normalize=True)
    torch.testing.assert_close(left.image_features, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("grid", [(6, 8), (2, 7), (3, 3)])
@torch.no_grad()
def test_positions_are_interpolated_as_timm_does(grid: tuple[int, int]) -> None:
    visual = tiny_clip(0, dtype=torch.float32).visual
    seen = ClipTower(visual).positional_embedding(grid)
    expected = resample_abs_pos_embed(visual.positional_embedding[None], list(grid))[0]
    torch.testing.assert_close(seen, expected)


@pytest.mark.parametrize("tower", TOWERS)
@torch.no_grad()
def test_scores_and_features_are_the_models_own(tower: str) -> None:
    model = tiny_clip(0, **TOWERS[tower])
    size = tuple(model.visual.image_size)
    pixels, directions = images(1, BATCH, size), unit_directions(2, QUERIES)
    seen = explain(model, pixels, directions)
    own = model.encode_image(pixels, normalize=True)
    torch.testing.assert_close(seen.image_features, own, atol=1e-12, rtol=0)
    torch.testing.assert_close(seen.scores, own @ directions.T, atol=1e-12, rtol=0)


@pytest.mark.parametrize("chunk_bytes", [1, 100_000, 400_000])
def test_chunks_change_nothing(chunk_bytes: int) -> None:
    model = tiny_clip(0)
    pixels, directions = images(1, 5), unit_directions(2, 7)
    whole = explain(model, pixels, directions, layers=3, chunk_bytes=2**40)
    parts = explain(model, pixels, directions, layers=3, chunk_bytes=chunk_bytes)
    assert relative_error(parts.maps, whole.maps) <= 1e-12
    assert torch.equal(parts.scores, whole.scores)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_bytes_equal_normalised_floats(dtype: torch.dtype) -> None:
    model = tiny_clip(0, dtype=dtype)
    mean, std = (0.2, 0.5, 0.7), (0.3, 0.2, 0.1)
    engine = LeGrad(from_open_clip(model, mean=mean, std=std))
    raw, directions = raw_images(1, 2), unit_directions(2, 2, dtype=dtype)
    per_channel = [torch.tensor(v, dtype=torch.float64)[:, None, None] for v in (mean, std)]
    floats = ((raw.double() / 255 - per_channel[0]) / per_channel[1]).to(dtype)
    left, right = engine.explain(raw, directions), engine.explain(floats, directions)
    assert relative_error(left.maps, right.maps) <= TOLERANCE[dtype]
    torch.testing.assert_close(left.scores, right.scores, atol=TOLERANCE[dtype], rtol=0)


def test_one_image_and_query_equals_its_place_in_a_batch() -> None:
    model = tiny_clip(0)
    pixels, directions = images(1, BATCH), unit_directions(2, QUERIES)
    whole = explain(model, pixels, directions)
    for image in range(BATCH):
        for query in range(QUERIES):
            alone = explain(model, pixels[image][None], directions[query][None])
            expected = whole.maps[image, query][None, None]
            assert relative_error(alone.maps, expected) <= 1e-12


def test_default_layers_is_two_or_all_there_are() -> None:
    assert LeGrad(from_open_clip(tiny_clip(0))).layers == 2
    assert LeGrad(from_open_clip(tiny_clip(0, layers=1))).layers == 1


def low_precision(device: str, precision: str) -> tuple[float, float, Explanation]:
    """Smallest rank correlation with float32, largest relative error, and the explanation."""
    model = tiny_clip(0, width=64, image_size=(64, 64), dtype=torch.float32).to(device)
    pixels = images(1, 4, (64, 64), torch.float32)
    directions = unit_directions(2, 6, dtype=torch.float32)
    exact = explain(model, pixels, directions, layers=2)
    engine = LeGrad(from_open_clip(model, precision=precision), layers=2)
    rough = engine.explain(pixels, directions)
    left, right = (e.maps.cpu().flatten(0, 1).flatten(1) for e in (rough, exact))
    ranks = [rank_correlation(a, b) for a, b in zip(left, right, strict=True)]
    return min(ranks), relative_error(rough.maps, exact.maps), rough


def test_bf16_autocast_on_the_cpu() -> None:
    rank, error, rough = low_precision("cpu", "bf16")
    assert rough.maps.dtype == torch.float32
    assert rough.maps.isfinite().all()
    assert rough.maps.min() >= 0
    lengths = rough.image_features.norm(dim=-1)
    torch.testing.assert_close(lengths, torch.ones_like(lengths), atol=1e-5, rtol=0)
    assert rank > 0.99
    assert 1e-4 < error < 0.05  # above the float32 tolerance: autocast did take place


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_low_precision_holds_directions_of_any_length(precision: str) -> None:
    """Gradients of 1e-9 would be zero in half precision: they are scaled."""
    engine = LeGrad(from_open_clip(tiny_clip(0, dtype=torch.float32), precision=precision))
    pixels, directions = images(1, 2, dtype=torch.float32), unit_directions(2, 2).float()
    unit, short = (engine.explain(pixels, length * directions).maps for length in (1, 1e-9))
    assert relative_error(short * 1e9, unit) <= 1e-3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_weights(dtype: torch.dtype) -> None:
    model = tiny_clip(0, dtype=torch.float32)
    pixels, directions = images(1, 2, dtype=torch.float32), unit_directions(2, 2).float()
    exact = explain(model, pixels, directions)
    rough = explain(copy.deepcopy(model).to(dtype), pixels, directions)
    assert rough.maps.dtype == rough.scores.dtype == torch.float32
    assert 1e-4 < relative_error(rough.maps, exact.maps) < 0.1


@pytest.mark.parametrize("backend", ["eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compiled_equals_eager(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Backend "eager" traces the code and compiles nothing, which takes a second."""
    if backend == "inductor" and shutil.which("g++") is None:
        pytest.skip("torch.compile needs a C++ compiler on the CPU")
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    model = tiny_clip(0, dtype=torch.float32)
    pixels, directions = images(1, 3, dtype=torch.float32), unit_directions(2, 5).float()
    eager = explain(model, pixels, directions, layers=1)
    compiled = explain(model, pixels, directions, layers=1, compiled=True)
    assert relative_error(compiled.maps, eager.maps) <= 1e-5


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_equals_cpu() -> None:
    model = tiny_clip(0, dtype=torch.float32)
    raw, directions = raw_images(1, BATCH), unit_directions(2, QUERIES, dtype=torch.float32)
    cpu = explain(model, raw, directions)
    engine = LeGrad(from_open_clip(copy.deepcopy(model), device="cuda"))
    cuda = engine.explain(raw, directions)
    assert cuda.maps.is_cuda
    assert relative_error(cuda.maps.cpu(), cpu.maps) <= 1e-3
    np.testing.assert_allclose(cuda.scores.cpu(), cpu.scores, atol=1e-4)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_autocast_on_cuda(precision: str) -> None:
    rank, error, rough = low_precision("cuda", precision)
    assert rough.maps.isfinite().all()
    assert rough.maps.min() >= 0
    assert rank > 0.98
    assert error < 0.1
