"""Time, memory and cost of what the engine does."""

import gc
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from legrad.model import VisionLanguageModel


def seconds(work: Callable[[], object], rounds: int) -> float:
    """Median of a few runs, after one that warms up."""
    work()
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def peak_bytes(work: Callable[[], object]) -> int:
    """Highest resident memory during the work beyond what was resident before (Linux)."""
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
    """Floating-point operations of a CLIP tower, two for a multiply-add.

    Forward, a block and image: 4 D^2 T + 2 D F T + 2 T^2 D; the engine adds, an explained block and
    (image, query) pair, D F T + T^2 D. LayerNorms, activations and the head are left out.
    """

    def __init__(self, model: VisionLanguageModel, size: int, layers: int) -> None:
        tower = model.tower
        up = tower.blocks[0].up
        self.hidden, self.width = up.weight.shape
        patch_h, patch_w = tower.patch_size
        patches = (size // patch_h) * (size // patch_w)
        self.tokens = patches + 1
        d, f, t = self.width, self.hidden, self.tokens
        embed = 3 * patch_h * patch_w * d * patches
        block = 4 * d * d * t + 2 * d * f * t + 2 * t * t * d
        self.forward = 2.0 * (len(tower.blocks) * block + embed)
        self.pair = 2.0 * layers * (d * f * t + t * t * d)

    def image(self, queries: int) -> float:
        """Operations of one image: one forward pass and every query."""
        return self.forward + queries * self.pair


def sgemm_rate(cost: Cost, pairs: int, rounds: int, dtype: torch.dtype = torch.float32) -> float:
    """Operations a second of the machine on the engine's own product, (D, F) @ (F, pairs T)."""
    left = torch.randn(cost.width, cost.hidden).to(dtype)
    right = torch.randn(pairs * cost.tokens, cost.hidden).to(dtype).T
    out = torch.empty(cost.width, pairs * cost.tokens, dtype=dtype)
    operations = 2.0 * cost.width * cost.hidden * pairs * cost.tokens
    return operations / seconds(lambda: torch.mm(left, right, out=out), 5 * rounds)


def rank_correlation(left: Tensor, right: Tensor) -> Tensor:
    """Spearman's of every row of two (n, cells) arrays."""
    ranks = [values.argsort(dim=1).argsort(dim=1).double() for values in (left, right)]
    a, b = (rank - rank.mean(dim=1, keepdim=True) for rank in ranks)
    return (a * b).sum(dim=1) / (a.norm(dim=1) * b.norm(dim=1))
