"""Whether everything runs on the GPU, checked without one.

Fake CUDA tensors have a device and a shape, but no numbers. An operator that mixes them with a CPU
tensor fails, and so does code that reads a number of one, which on a real GPU would wait for all
work before it.
"""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from legrad import LeGrad, from_open_clip
from legrad.models import catalog
from legrad.preprocess import Preprocess
from tests.builders import tiny_clip
from tests.towers import kinds

SIDE, QUERIES = 32, 2

pytestmark = pytest.mark.skipif(
    torch.__version__.startswith("2.4.") and not torch.cuda.is_available(),
    reason="torch 2.4 aborts where fake CUDA tensors with gradients meet no driver",
)


def on_cuda(module: nn.Module) -> nn.Module:
    """The module with fake weights on a GPU; under a `FakeTensorMode`."""
    for part in module.modules():
        for name, value in part.named_parameters(recurse=False):
            part.register_parameter(name, nn.Parameter(like(value)))
        for name, value in part.named_buffers(recurse=False):
            part.register_buffer(name, like(value))
    return module


def like(tensor: Tensor) -> Tensor:
    return torch.empty(tensor.shape, dtype=tensor.dtype, device="cuda")


def engine(model: nn.Module, chunk_bytes: int | None = None) -> LeGrad:
    return LeGrad(from_open_clip(on_cuda(model)), chunk_bytes=chunk_bytes)


def inputs(width: int, side: int = SIDE) -> tuple[Tensor, Tensor]:
    pixels = torch.empty(2, 3, side, side, dtype=torch.uint8, device="cuda")
    return pixels, torch.empty(QUERIES, width, device="cuda")


@pytest.mark.parametrize(
    ("name", "chunk_bytes"),
    [
        ("ViT-B-32", None),
        ("ViT-B-32", 1),
        ("coca_ViT-B-32", 1),
        ("ViT-B-16-SigLIP", None),
        ("PE-Core-B-16", None),
    ],
)
def test_nothing_is_read_back_and_nothing_stays_on_the_cpu(
    name: str, chunk_bytes: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For every kind of closed form; autograd, which other blocks take, needs a real device."""
    monkeypatch.setattr(catalog, "_lacking", lambda text: None)  # no texts are encoded here
    kind = kinds([name])[0]
    model = kind.build(dtype=torch.float32)
    with FakeTensorMode():
        found = engine(model, chunk_bytes).explain(*inputs(kind.embed_dim, kind.side))
        for tensor in (found.maps, found.scores, found.image_features, found.selected):
            assert tensor.device == torch.device("cuda:0")
    assert found.maps.shape[:2] == (2, QUERIES)


def test_another_size_and_padding() -> None:
    """Positions are interpolated on the device; cells of padding are marked there."""
    model = tiny_clip(0, dtype=torch.float32)
    with FakeTensorMode():
        whole = from_open_clip(on_cuda(model))
        legrad = LeGrad(replace(whole, preprocess=Preprocess((48, 64), "pad")))
        pixels = torch.empty(2, 3, 48, 64, device="cuda")
        found = legrad.explain(pixels, inputs(32)[1], sizes=[(60, 40), (40, 60)])
        assert found.maps.is_cuda
        assert found.maps.shape == (2, QUERIES, 6, 8)


def careless(kind: str) -> Callable[..., Tensor]:
    """Relevance with a mistake of this kind."""

    def relevance(folded: object, seen: object, g_z: Tensor, scratch: object) -> Tensor:
        del folded, seen, scratch
        if kind == "reads a number":
            return g_z * g_z.abs().max().item()
        return g_z * torch.ones(g_z.shape, device="cpu")

    return relevance


@pytest.mark.parametrize(
    ("kind", "error", "words"),
    [
        ("reads a number", DataDependentOutputException, "local_scalar_dense"),
        ("a tensor on the CPU", RuntimeError, "cuda:0 and cpu"),
    ],
)
def test_carelessness_is_noticed(
    kind: str, error: type[Exception], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("legrad.method.relevance.block_relevance", careless(kind))
    model = tiny_clip(0, dtype=torch.float32)
    with FakeTensorMode(), pytest.raises(error, match=words):
        engine(model).explain(*inputs(32))
