"""More queries than the basis needs: the same maps as from the oracle, in bounded memory."""

from typing import Any

import pytest
import torch
from torch import Tensor

from legrad import LeGrad, from_open_clip, from_timm
from legrad.method.block_gradient import FoldedBlock, Scratch, Trace
from legrad.method.chunks import chunks
from legrad.method.direction_basis import basis_relevance, fewest_queries
from tests.builders import TOWERS, images, tiny_clip, unit_directions
from tests.legrad.compare import relative_error
from tests.legrad.test_classifiers import build
from tests.oracle import oracle_maps

QUERIES = 50
ONE_TOKEN = 2 * 32 * (192 + 2 * 48) * 8
"""Least `chunk_bytes` for which a token of a tiny model, E 32, F 192, D 48, fits."""


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Queries and bytes of scratch of every call."""
    calls: list[tuple[int, int]] = []

    def spy(
        folded: FoldedBlock, traced: Trace, g_basis: Tensor, directions: Tensor, scratch: Scratch
    ) -> Tensor:
        arrays = (scratch.hidden, scratch.gradient, scratch.products)
        calls.append((len(directions), sum(array.nbytes for array in arrays)))
        return basis_relevance(folded, traced, g_basis, directions, scratch)

    monkeypatch.setattr("legrad.method.relevance.basis_relevance", spy)
    return calls


@pytest.mark.parametrize("chunk_bytes", [ONE_TOKEN, 5 * ONE_TOKEN + 1, None])
@pytest.mark.parametrize("tower", TOWERS)
def test_maps_of_many_queries(
    tower: str, chunk_bytes: int | None, seen: list[tuple[int, int]]
) -> None:
    model, size = tiny_clip(0, **TOWERS[tower]), (24, 40)
    pixels, directions = images(1, 2, size), 7 * unit_directions(2, QUERIES)
    legrad = LeGrad(from_open_clip(model), 2, chunk_bytes=chunk_bytes)
    expected, _, _ = oracle_maps(model, pixels, directions, 2)
    assert relative_error(legrad.explain(pixels, directions).maps, expected) <= 1e-6
    assert [queries for queries, _ in seen] == [QUERIES] * 4  # 2 images, 2 blocks


@pytest.mark.parametrize("queries", [QUERIES, 1000])
def test_memory_does_not_grow_with_queries(queries: int, seen: list[tuple[int, int]]) -> None:
    legrad = LeGrad(from_open_clip(tiny_clip(0)), 1, chunk_bytes=3 * ONE_TOKEN)
    legrad.explain(images(1, 2), unit_directions(2, queries))
    assert [count for count, _ in seen] == [queries] * 2
    assert max(size for _, size in seen) <= 3 * ONE_TOKEN


def test_a_token_that_does_not_fit_is_not_attempted(seen: list[tuple[int, int]]) -> None:
    legrad = LeGrad(from_open_clip(tiny_clip(0)), 1, chunk_bytes=ONE_TOKEN - 1)
    legrad.explain(images(1, 2), unit_directions(2, QUERIES))
    assert not seen


def test_images_with_few_and_with_many_queries(seen: list[tuple[int, int]]) -> None:
    legrad = LeGrad(from_open_clip(tiny_clip(0)))
    pixels, directions = images(1, 4), unit_directions(2, 60)
    mask = torch.zeros(4, 60, dtype=torch.bool)
    mask[0, 5:], mask[1, 3:9], mask[3] = True, True, True
    maps = legrad.explain(pixels, directions, select=mask).maps
    assert sorted(count for count, _ in seen) == [55, 55, 60, 60]
    apart = torch.cat([legrad.explain(pixels, part).maps for part in directions.split(20)], dim=1)
    assert relative_error(maps[mask], apart[mask]) <= 1e-12
    assert maps[~mask].isnan().all()


@pytest.mark.parametrize("tokens", [1, 6, 12])
def test_a_full_chunk_of_few_queries_beside_many(tokens: int, seen: list[tuple[int, int]]) -> None:
    """The scratch has other proportions for few than for many."""
    legrad = LeGrad(from_open_clip(tiny_clip(0)), chunk_bytes=tokens * ONE_TOKEN)
    pixels, directions = images(1, 12), unit_directions(2, 60)
    mask = torch.zeros(12, 60, dtype=torch.bool)
    mask[:11, :40], mask[11] = True, True
    maps = legrad.explain(pixels, directions, select=mask).maps
    assert {count for count, _ in seen} == {60}
    apart = torch.cat([legrad.explain(pixels, part).maps for part in directions.split(20)], dim=1)
    assert relative_error(maps[mask], apart[mask]) <= 1e-12


@pytest.mark.parametrize("name", ["vit_base_patch16_224", "eva02_base_patch14_448"])
def test_classifiers(name: str, seen: list[tuple[int, int]]) -> None:
    """The second has blocks that are differentiated by autograd, which have no basis."""
    model: Any = from_timm(build(name))
    width = model.tower.embed_dim
    pixels, directions = images(1, 2), unit_directions(2, 400, width)
    legrad = LeGrad(model, 2)
    maps = legrad.explain(pixels, directions).maps
    assert bool(seen) == (name == "vit_base_patch16_224")
    apart = torch.cat([legrad.explain(pixels, part).maps for part in directions.split(20)], dim=1)
    assert relative_error(maps, apart) <= 1e-12


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_is_as_near_as_for_single_queries(precision: str) -> None:
    model = tiny_clip(0, dtype=torch.float32)
    pixels, directions = images(1, 2, dtype=torch.float32), unit_directions(2, QUERIES).float()
    exact = LeGrad(from_open_clip(model)).explain(pixels, directions).maps.flatten(2)
    rough = LeGrad(from_open_clip(model, precision=precision))  # type: ignore[arg-type]
    together = rough.explain(pixels, directions).maps.flatten(2)
    apart = torch.cat([rough.explain(pixels, part).maps for part in directions.split(10)], dim=1)
    error, usual = (
        maps.flatten(2).sub(exact).norm(dim=2) / exact.norm(dim=2) for maps in (together, apart)
    )
    assert error.mean() <= 2 * usual.mean()


def test_from_how_many_queries_the_basis_needs_fewer_operations() -> None:
    embed_dim, hidden = 512, 3072
    fewest = fewest_queries(embed_dim, hidden)
    assert fewest is not None
    assert embed_dim * hidden + fewest * embed_dim < fewest * hidden
    assert fewest < 768
    assert fewest_queries(768, 768) is None
    assert fewest_queries(768, 512) is None


def test_an_image_with_many_queries_is_a_chunk() -> None:
    plan = chunks((2, 9), None, 4, torch.device("cpu"), many=9)
    assert [(chunk.many, tuple(chunk.queries.shape)) for chunk in plan] == [(True, (1, 9))] * 2
    plan = chunks((2, 8), None, 4, torch.device("cpu"), many=9)
    assert [(chunk.many, tuple(chunk.queries.shape)) for chunk in plan] == [(False, (1, 4))] * 4
