"""Chunks of (image, query) pairs, and maps of some pairs only."""

import weakref
from typing import Any

import pytest
import torch
from torch import Tensor

from legrad import LeGrad, from_open_clip
from legrad.method.block_gradient import FoldedBlock, Scratch, Trace, block_relevance, trace
from legrad.method.chunks import chunks
from legrad.method.explainer import Explanation
from legrad.queries.selection import Selection
from legrad.towers import PlainBlock
from tests.builders import images, tiny_clip, unit_directions
from tests.legrad.compare import relative_error

B, Q = 5, 7
CPU = torch.device("cpu")


def explain(**kwargs: Any) -> Explanation:
    engine = LeGrad(from_open_clip(tiny_clip(0)), chunk_bytes=kwargs.pop("chunk_bytes", None))
    return engine.explain(images(1, B), unit_directions(2, Q), **kwargs)


def random_mask(share: float) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand((B, Q), generator=generator) < share


@pytest.mark.parametrize("share", [0.0, 0.15, 0.9, 1.0])
@pytest.mark.parametrize("pairs", [1, 3, 7, 8, 1000])
def test_chunks_hold_every_pair_once(pairs: int, share: float) -> None:
    mask = random_mask(share)
    seen = torch.zeros(B, Q, dtype=torch.int)
    for chunk in chunks((B, Q), mask, pairs, CPU):
        assert chunk.queries.numel() <= pairs
        rows = seen[chunk.images]
        assert len(rows) == len(chunk.queries)
        rows.scatter_add_(1, chunk.queries, torch.ones_like(chunk.queries, dtype=torch.int))
    assert torch.equal(seen, mask.int())


def test_whole_images_share_a_chunk() -> None:
    shapes = [tuple(chunk.queries.shape) for chunk in chunks((B, Q), None, 2 * Q + 1, CPU)]
    assert shapes == [(2, Q), (2, Q), (1, Q)]
    shapes = [tuple(chunk.queries.shape) for chunk in chunks((2, Q), None, 4, CPU)]
    assert shapes == [(1, 4), (1, 3)] * 2


@pytest.mark.parametrize("queries", [16, 45])  # with more of them see test_many_queries
@pytest.mark.parametrize("chunk_bytes", [1, 10**6, 4 * 10**6])
def test_memory_of_a_chunk_is_bounded_whatever_the_number_of_queries(
    chunk_bytes: int, queries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """17 tokens, 192 hidden and 48 wide: a pair takes 17 (192 + 48) 8 bytes, a head 17 17 8."""
    seen: list[tuple[int, int]] = []

    def spy(folded: FoldedBlock, traced: Trace, g_z: Tensor, scratch: Scratch) -> Tensor:
        arrays = (scratch.hidden, scratch.gradient, scratch.products)
        seen.append((g_z.shape[0] * g_z.shape[1], sum(a.nbytes for a in arrays)))
        return block_relevance(folded, traced, g_z, scratch)

    monkeypatch.setattr("legrad.method.relevance.block_relevance", spy)
    model = from_open_clip(tiny_clip(0))
    LeGrad(model, 1, chunk_bytes=chunk_bytes).explain(images(1, 2), unit_directions(2, queries))
    assert sum(pairs for pairs, _ in seen) == 2 * queries
    least = 17 * (192 + 48) * 8 + 17 * 17 * 8
    assert max(size for _, size in seen) <= max(chunk_bytes, least)
    fit = max(1, chunk_bytes // 2 // 32640)
    at_once = min(queries, fit)  # of an image; whole images share a chunk
    assert max(pairs for pairs, _ in seen) == at_once * min(2, fit // at_once)


def test_one_blocks_trace_is_held_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[weakref.ref[Trace]] = []

    def spy(block: PlainBlock, folded: FoldedBlock, x: Tensor) -> tuple[Tensor, Trace]:
        assert all(seen() is None for seen in made)
        tokens, seen = trace(block, folded, x)
        made.append(weakref.ref(seen))
        return tokens, seen

    monkeypatch.setattr("legrad.method.relevance.trace", spy)
    LeGrad(from_open_clip(tiny_clip(0)), 3).explain(images(1, 2), unit_directions(2, 3))
    assert len(made) == 3


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("chunk_bytes", [1, 200_000, None])
def test_a_mask_leaves_maps_out_and_nothing_else(share: float, chunk_bytes: int | None) -> None:
    mask, whole = random_mask(share), explain()
    some = explain(select=mask, chunk_bytes=chunk_bytes)
    assert torch.equal(some.selected, mask)
    assert whole.selected.all()
    assert torch.equal(some.scores, whole.scores)
    assert torch.equal(some.image_features, whole.image_features)
    assert some.maps[~mask].isnan().all()
    if mask.any():
        assert relative_error(some.maps[mask], whole.maps[mask]) <= 1e-12


def test_a_rule_sees_the_scores_that_are_returned() -> None:
    seen: list[Tensor] = []

    def positive(scores: Tensor) -> Tensor:
        seen.append(scores)
        return scores > 0

    some = explain(select=positive)
    assert torch.equal(seen[0], some.scores)
    assert torch.equal(some.selected, some.scores > 0)
    assert torch.equal(some.maps.isfinite().all(dim=(-2, -1)), some.selected)


@pytest.mark.parametrize("mask", [torch.ones(B, Q), torch.ones(Q, B).bool(), torch.ones(B).bool()])
def test_masks_that_are_refused(mask: Tensor) -> None:
    with pytest.raises(ValueError, match=r"select: expected bool \(5, 7\) \(images, queries\)"):
        explain(select=mask)


CLASSES = (True, True, False, True, False, True, False)
OTHERS = ~torch.tensor(CLASSES)


def selected(selection: Selection) -> Tensor:
    return explain(select=selection.select([None] * B)).selected


@pytest.mark.parametrize("k", [1, 2, 4, 9])
def test_best_classes(k: int) -> None:
    found = explain(select=Selection("top_k", CLASSES, k=k).select([None] * B))
    assert found.selected[:, OTHERS].all()
    classes, scores = found.selected[:, ~OTHERS], found.scores[:, ~OTHERS]
    assert (classes.sum(dim=1) == min(k, 4)).all()
    least, rest = scores.masked_fill(~classes, 9), scores.masked_fill(classes, -9)
    assert (least.amin(dim=1) >= rest.amax(dim=1)).all()


def test_classes_above_a_bar() -> None:
    scores = explain().scores
    bar = float(scores[:, ~OTHERS].median())
    mask = selected(Selection("above", CLASSES, threshold=bar))
    assert torch.equal(mask, OTHERS | (scores >= bar))
    assert 0 < mask[:, ~OTHERS].sum() < mask[:, ~OTHERS].numel()


def test_the_images_own_class() -> None:
    selection = Selection("own_label", CLASSES, {"dog": 0, "cat": 5})
    labels = ["cat", "dog", None, "cow", "dog"]
    assert selection.own(labels) == [5, 0, -1, -1, 0]
    mask = explain(select=selection.select(labels)).selected
    expected = OTHERS.repeat(B, 1)
    for image, query in ((0, 5), (1, 0), (4, 0)):
        expected[image, query] = True
    assert torch.equal(mask, expected)


def test_all_and_unknown_modes() -> None:
    assert Selection("all", CLASSES).select([None]) is None
    with pytest.raises(ValueError, match="maps 'best': expected one of"):
        Selection("best", CLASSES)  # type: ignore[arg-type]
