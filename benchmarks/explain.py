"""Closed form against automatic differentiation: ``python -m benchmarks.explain``.

Both sides compute the same maps (checked here) of the same batch on the same threads. The baseline
is LeGrad as published: attention matrices kept as graph leaves, one backward pass a query.
"""

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable

import open_clip
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from legrad import LeGrad
from legrad.models import VisionLanguageModel, from_open_clip

ROUNDS = 3


def attend(block: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """A block with its attention matrix as a leaf: (output, attention)."""
    attn = block.attn
    batch, count, width = x.shape
    qkv = F.linear(block.ln_1(x), attn.in_proj_weight, attn.in_proj_bias)
    q, k, v = qkv.reshape(batch, count, 3, attn.num_heads, -1).permute(2, 0, 3, 1, 4)
    attention = (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(-1)
    attention = attention.detach().requires_grad_()
    mixed = (attention @ v).transpose(1, 2).reshape(batch, count, width)
    x = x + block.ls_1(attn.out_proj(mixed))
    return x + block.ls_2(block.mlp(block.ln_2(x))), attention


def by_autograd(model: VisionLanguageModel, pixels: Tensor, texts: Tensor, layers: int) -> Tensor:
    """Maps (B, Q, h, w) by one backward pass a query and layer."""
    visual = model.model.visual
    with torch.no_grad():
        tokens = model.tower.tokens(pixels)
        for block in visual.transformer.resblocks[:-layers]:
            tokens = block(tokens)
    total: list[Tensor | float] = [0.0] * len(texts)
    for block in visual.transformer.resblocks[-layers:]:
        tokens, attention = attend(block, tokens.detach())
        feature = F.normalize(visual.ln_post(tokens.mean(dim=1)) @ visual.proj, dim=-1)
        for q, text in enumerate(texts):
            score = (feature @ text).sum()
            (gradient,) = torch.autograd.grad(score, attention, retain_graph=True)
            total[q] = total[q] + gradient.clamp(min=0).mean(dim=(1, 2))
    maps = torch.stack([torch.as_tensor(t) for t in total], dim=1)[:, :, 1:]
    return maps.detach().reshape(len(pixels), len(texts), *model.grid)


def seconds(work: Callable[[], object]) -> float:
    """Median of a few runs, after one that warms up."""
    work()
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> None:
    """Print images a second of both sides and their ratio, by number of queries."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="ViT-B-16")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--queries", type=int, nargs="+", default=[1, 8, 32, 128])
    options = parser.parse_args()
    torch.manual_seed(0)
    module = open_clip.create_model(options.model, pretrained=None)
    for parameter in module.parameters():  # the baseline, too, wants gradients of attention only
        parameter.requires_grad_(False)
    model = from_open_clip(module.eval())
    legrad = LeGrad(model, options.layers)
    size = model.preprocess.size
    pixels = torch.randn(options.batch, 3, *size)
    threads = torch.get_num_threads()
    print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, {threads} threads"
    )
    print(f"{options.model}, batch {options.batch}, last {options.layers} blocks, float32")
    with torch.no_grad():
        forward = seconds(lambda: module.encode_image(pixels))
    print(f"forward alone: {options.batch / forward:.2f} images/s")
    print(f"{'queries':>8} {'autograd':>10} {'closed form':>12} {'ratio':>6} {'difference':>11}")
    for count in options.queries:
        texts = F.normalize(torch.randn(count, module.visual.proj.shape[1]), dim=-1)
        theirs = by_autograd(model, pixels, texts, options.layers)
        ours = legrad.explain(pixels, texts).maps
        difference = float(((ours - theirs).abs().amax((2, 3)) / theirs.amax((2, 3))).max())
        slow = seconds(lambda t=texts: by_autograd(model, pixels, t, options.layers))
        fast = seconds(lambda t=texts: legrad.explain(pixels, t))
        print(
            f"{count:8d} {options.batch / slow:10.2f} {options.batch / fast:12.2f} "
            f"{slow / fast:6.1f} {difference:11.1e}"
        )


if __name__ == "__main__":
    main()
