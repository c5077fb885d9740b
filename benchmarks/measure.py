"""Time, memory and number of operations of the engine."""

import gc
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from legrad.method.direction_basis import fewest_queries
from legrad.models.vision_language import VisionLanguageModel
from legrad.towers import PlainBlock, Tower
from legrad.towers.eva import InnerNormBlock


def seconds(work: Callable[[], object], rounds: int) -> float:
    """Median seconds of several runs, after one to warm up."""
    work()
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def peak_bytes(work: Callable[[], object]) -> int:
    """Peak resident memory during the work, minus what was resident before (Linux)."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
    before = _resident("VmRSS")
    kept = work()
    after = _resident("VmHWM")
    del kept
    return after - before


def _resident(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


class Cost:
    """Floating-point operations of a tower; a multiply-add counts as two.

    The forward pass needs, per block and image, 4 D^2 T + m D F T + 2 T^2 D, where the MLP has
    m = 2 matrices, or 3 if it is gated. The gradient adds, per explained block and pair of image
    and query, D F T + T^2 D in closed form, D^2 T + m D F T + T^2 D by autograd, and T D with a
    pooler (D F more if that has an MLP). From `fewest_queries` on, the gradient by way of a basis
    takes E D F T per block and image, and E D T + T^2 D per pair. LayerNorms, activations, stems
    and the head are left out, and so is the cost of a pooler's query, which is paid once for all
    layers and images.
    """

    def __init__(self, model: VisionLanguageModel, size: int, layers: int) -> None:
        tower = model.tower
        block = tower.blocks[-1]
        self.hidden, self.width = block.hidden, tower.width
        patch_h, patch_w = tower.patch_size
        patches = (size // patch_h) * (size // patch_w)
        self.tokens = patches + tower.prefix
        d, f, t = self.width, self.hidden, self.tokens
        embed = 3 * patch_h * patch_w * d * patches
        gated = isinstance(block, InnerNormBlock) and hasattr(block.module.mlp, "fc1_g")
        mlp = (3 if gated else 2) * d * f * t
        self.forward = 2.0 * (len(tower.blocks) * (4 * d * d * t + mlp + 2 * t * t * d) + embed)
        self.pair = 2.0 * layers * self._pair(tower, mlp)
        closed = tower.pooler is None and isinstance(block, PlainBlock)
        e = tower.embed_dim
        self.fewest = fewest_queries(e, f) if closed else None
        self.basis = 2.0 * layers * e * d * f * t
        self.pair_of_many = 2.0 * layers * (e * d * t + t * t * d)

    def _pair(self, tower: Tower, mlp: int) -> int:
        d, f, t = self.width, self.hidden, self.tokens
        if tower.pooler is not None:
            after = 0 if tower.pooler.mlp is None else int(tower.pooler.mlp.up.weight.numel())
            return after + t * int(tower.pooler.out.in_features)
        if isinstance(tower.blocks[-1], PlainBlock):
            return d * f * t + t * t * d
        return d * d * t + mlp + t * t * d

    def image(self, queries: int) -> float:
        """Operations for one image: one forward pass, and the gradients of all queries."""
        if self.fewest is not None and queries >= self.fewest:
            return self.forward + self.basis + queries * self.pair_of_many
        return self.forward + queries * self.pair


def sgemm_rate(cost: Cost, pairs: int, rounds: int, dtype: torch.dtype = torch.float32) -> float:
    """Operations per second of this machine for the engine's product (D, F) @ (F, pairs T)."""
    left = torch.randn(cost.width, cost.hidden).to(dtype)
    right = torch.randn(pairs * cost.tokens, cost.hidden).to(dtype).T
    out = torch.empty(cost.width, pairs * cost.tokens, dtype=dtype)
    operations = 2.0 * cost.width * cost.hidden * pairs * cost.tokens
    return operations / seconds(lambda: torch.mm(left, right, out=out), 5 * rounds)


def rank_correlation(left: Tensor, right: Tensor) -> Tensor:
    """Spearman's rank correlation of each row of two (n, cells) arrays."""
    ranks = [values.argsort(dim=1).argsort(dim=1).double() for values in (left, right)]
    a, b = (rank - rank.mean(dim=1, keepdim=True) for rank in ranks)
    correlation: Tensor = (a * b).sum(dim=1) / (a.norm(dim=1) * b.norm(dim=1))
    return correlation
