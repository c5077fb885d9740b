"""(image, query) pairs in chunks that fit a bound on memory."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

CPU_BYTES = 64 * 2**20
CUDA_BYTES = 2**30
CACHE_BYTES = 8 * 2**20
"""Bound on the T x T products, which are written, clamped and summed: a CPU needs them in cache."""


@dataclass(frozen=True)
class Budget:
    """How much is worked on at once.

    Attributes:
        numbers: numbers in the MLP and gradient arrays.
        pairs: (image, query) pairs of a chunk, at least one.
        products: numbers in the T x T arrays; one head is worked on even if it needs more.
    """

    numbers: int
    pairs: int
    products: int


def budget(
    chunk_bytes: int, tokens: int, widths: int, number: torch.dtype, device: torch.device
) -> Budget:
    """Split a bound in bytes: half for the MLP and gradient arrays, at most half for the products.

    Args:
        chunk_bytes: the bound.
        tokens: T.
        widths: numbers per token and pair, F + D.
        number: dtype of the arrays.
        device: device on which they are allocated.
    """
    half = chunk_bytes // 2 // number.itemsize
    products = half if device.type == "cuda" else min(half, CACHE_BYTES // number.itemsize)
    return Budget(half, max(1, half // (tokens * widths)), products)


@dataclass(frozen=True)
class Chunk:
    """Consecutive images, and equally many queries for each.

    Attributes:
        images: the b consecutive images.
        queries: (b, q) int64, the queries' indices for each image.
        many: whether these are all queries of one image, which has many.
    """

    images: slice
    queries: Tensor
    many: bool = False


def default_bytes(device: torch.device) -> int:
    """Default bound on a chunk: on a CPU small enough for the caches, larger on a GPU."""
    return CUDA_BYTES if device.type == "cuda" else CPU_BYTES


def chunks(
    shape: tuple[int, int],
    selected: Tensor | None,
    pairs: int,
    device: torch.device,
    many: int | None = None,
) -> list[Chunk]:
    """Split all selected pairs into chunks.

    Args:
        shape: (B, Q).
        selected: (B, Q) bool, or None for all.
        pairs: largest number of pairs in a chunk.
        device: device of `Chunk.queries`.
        many: an image with at least so many queries is a chunk of its own; None: no image is.
    """
    images, queries = shape
    if selected is None:
        rows = torch.arange(queries).expand(images, queries)
        runs = [(0, rows)]
    else:
        runs = list(_runs(selected.cpu()))
    return [
        Chunk(slice(start, start + len(part)), part.to(device, non_blocking=True), large)
        for first, rows in runs
        for large in (many is not None and rows.shape[1] >= many,)
        for start, part in _cut(first, rows, rows.shape[1] if large else pairs)
    ]


def _runs(selected: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Consecutive images with equally many queries: (first image, (b, q) queries)."""
    counts = selected.sum(dim=1).tolist()
    start = 0
    for stop in range(1, len(counts) + 1):
        if stop == len(counts) or counts[stop] != counts[start]:
            if counts[start]:
                queries = selected[start:stop].nonzero()[:, 1]
                yield start, queries.view(stop - start, counts[start])
            start = stop


def _cut(first: int, rows: Tensor, pairs: int) -> Iterator[tuple[int, Tensor]]:
    at_once = min(rows.shape[1], pairs)
    images = max(1, pairs // at_once)
    for start in range(0, len(rows), images):
        for part in rows[start : start + images].split(at_once, dim=1):
            yield first + start, part
