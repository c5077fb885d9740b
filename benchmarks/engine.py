"""The engine against the published package, the plain forward pass and the machine.

``python -m benchmarks.engine``. Both sides of every ratio come from one run, on the same random
weights and threads; the published package runs in a process of its own, one image at a time.
"""

import argparse
import os
import platform
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import cast

import open_clip
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.measure import Cost, peak_bytes, rank_correlation, seconds, sgemm_rate
from benchmarks.picture import Rate, draw_rates
from benchmarks.published import as_published, run_published
from legrad import LeGrad, from_open_clip, from_timm
from legrad.models.catalog import architecture
from legrad.models.vision_language import VisionLanguageModel

MIB = 2**20
EQUAL = (("ViT-B-16", 224), ("ViT-B-16", 448), ("ViT-B-32", 224), ("ViT-B-32", 448))
BIG_CHUNK = 16
GIVE_BACK = {"MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072"}
"""For new processes: glibc gives freed arrays back at once, so that what is resident is in use."""


def main() -> None:
    """Print the tables of docs/method.md."""
    options = parse()
    torch.set_num_threads(options.threads)
    print(f"{processor()}, {options.threads} threads, torch {torch.__version__}, float32")
    rates = speed(options)
    if options.picture:
        size = f"{options.size} px, last {options.layers} blocks"
        title = f"{options.model}, {size}, float32, {options.threads} threads, one image at a time"
        draw_rates(rates, title, options.picture)
    memory(options)
    low_precision(options)
    if options.classifiers:
        classifiers(options)
    if options.published:
        equality(options)


def parse() -> argparse.Namespace:
    """Arguments of the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="ViT-B-16", help="any of `legrad models --all`")
    parser.add_argument("--size", type=int, help="input side in pixels; default the model's own")
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--queries", type=int, nargs="+", default=[1, 4, 16, 64, 256, 1024])
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8], help="images at once")
    parser.add_argument("--rounds", type=int, default=5, help="medians are of so many")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument(
        "--published-queries", type=int, nargs="+", default=[1, 4, 16, 64], help="it is slow"
    )
    parser.add_argument("--no-published", dest="published", action="store_false")
    parser.add_argument("--picture", type=Path, help="where to draw the rates, a .png file")
    parser.add_argument("--classifiers", action="store_true", help="time one beside ViT-B-16")
    parser.add_argument("--profile", action="store_true", help="where the time at 64 queries goes")
    options = parser.parse_args()
    arch = architecture(options.model)
    options.size = options.size or arch.image_size[0]
    options.published &= arch.family == "CLIP"  # the others differ on purpose: see legrad/towers
    return options


def speed(options: argparse.Namespace) -> list[Rate]:
    """Maps a second by number of queries, beside what bounds them; returns the first batch size."""
    model = random_model(options.model, options.size)
    cost = Cost(model, options.size, options.layers)
    pixels, directions = inputs(model, options.size, max(options.batch), max(options.queries))
    theirs: dict[int, float] = {}
    if options.published:
        theirs = run_published(
            model.model,
            options.model,
            pixels[:1],
            directions,
            layers=options.layers,
            equality=1,
            queries=options.published_queries,
            rounds=options.rounds,
        ).seconds
    legrad = LeGrad(model, options.layers)
    rate = sgemm_rate(cost, BIG_CHUNK, options.rounds)
    print(f"\n{options.model}, {options.size} px, last {options.layers} blocks")
    print(f"sgemm on the engine's shapes: {rate / 1e9:.0f} GFLOP/s")
    encode = cast(Callable[[Tensor], Tensor], model.model.encode_image)
    rates = []
    for count in options.batch:
        images = pixels[:count]
        with torch.no_grad():
            plain = seconds(partial(encode, images), options.rounds) / count
        print(
            f"\n{count} image(s) at once; a plain forward pass takes {plain * 1e3:.0f} ms an image "
            f"({cost.forward / plain / rate:.0%} of sgemm)"
        )
        print("queries | published maps/s | engine maps/s | ratio | forwards | GFLOP/s | of sgemm")
        print("---|---|---|---|---|---|---")
        for queries in options.queries:
            some = directions[:queries]
            took = seconds(partial(legrad.explain, images, some), options.rounds) / count
            slow = theirs.get(queries)
            achieved = cost.image(queries) / took
            if count == options.batch[0]:
                bound = queries * rate / cost.image(queries)
                rates.append(Rate(queries, queries / took, bound, slow and queries / slow))
            print(
                f"{queries} | {f'{queries / slow:.2f}' if slow else '-'} | {queries / took:.1f} | "
                f"{f'{slow / took:.1f}' if slow else '-'} | {took / plain:.2f} | "
                f"{achieved / 1e9:.0f} | {achieved / rate:.0%}"
            )
    again = sgemm_rate(cost, BIG_CHUNK, options.rounds)
    print(f"\nsgemm once more, at the end: {again / 1e9:.0f} GFLOP/s")
    if options.profile:
        profile(legrad, pixels[:1], directions[:64])
    return rates


def profile(legrad: LeGrad, pixels: Tensor, directions: Tensor) -> None:
    """Operators by the time they take."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
        legrad.explain(pixels, directions)
    print(seen.key_averages().table(sort_by="self_cpu_time_total", row_limit=15))


def memory(options: argparse.Namespace) -> None:
    """Peak memory beyond the returned arrays, every number of queries in a fresh process."""
    os.environ.update(GIVE_BACK)
    print("\nqueries | peak beyond the returned arrays, MiB | returned, MiB")
    print("---|---|---")
    for queries in options.queries:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
            peak, returned = process.submit(
                memory_of, options.model, options.size, options.layers, queries, options.threads
            ).result()
        print(f"{queries} | {(peak - returned) / MIB:.0f} | {returned / MIB:.1f}")


def memory_of(name: str, size: int, layers: int, queries: int, threads: int) -> tuple[int, int]:
    """Bytes at the peak of one call, and of what it returns; for a process of its own."""
    torch.set_num_threads(threads)
    model = random_model(name, size)
    legrad = LeGrad(model, layers)
    pixels, directions = inputs(model, size, 4, queries)
    legrad.explain(pixels[:1], directions[:1])  # libraries allocate for good at their first use
    kept = []
    peak = peak_bytes(lambda: kept.append(legrad.explain(pixels, directions)))
    found = kept[0]
    return peak, found.maps.nbytes + found.scores.nbytes + found.image_features.nbytes


def low_precision(options: argparse.Namespace) -> None:
    """How far bf16 maps are from fp32 maps, and how fast they come."""
    exact = random_model(options.model, options.size)
    pixels, directions = inputs(exact, options.size, 4, 16)
    maps = LeGrad(exact, options.layers).explain(pixels, directions).maps.flatten(0, 1).flatten(1)
    print("\nprecision | relative L2, mean (max) | rank correlation, mean (min) | maps/s")
    print("---|---|---|---")
    legrad = LeGrad(from_open_clip(exact.model, precision="bf16"), options.layers)
    rough = legrad.explain(pixels, directions).maps.flatten(0, 1).flatten(1)
    error = (rough - maps).norm(dim=1) / maps.norm(dim=1)
    rank = rank_correlation(rough, maps)
    took = seconds(lambda: legrad.explain(pixels, directions), options.rounds)
    print(
        f"bf16 | {error.mean():.1e} ({error.max():.1e}) | "
        f"{rank.mean():.5f} ({rank.min():.5f}) | {len(maps) / took:.1f}"
    )


def classifiers(options: argparse.Namespace) -> None:
    """Maps a second of CLIP for texts, and of a classifier of the same size for its classes."""
    clip, most = random_model("ViT-B-16", 224), max(options.queries)
    pixels, directions = inputs(clip, 224, 1, most)
    torch.manual_seed(0)
    module = timm.create_model("vit_base_patch16_224", num_classes=most).eval()
    classifier = LeGrad(from_timm(module), options.layers)
    legrad = LeGrad(clip, options.layers)
    print("\nqueries | CLIP ViT-B-16 maps/s | classifier vit_base_patch16_224 maps/s")
    print("---|---|---")
    for queries in options.queries:
        texts = partial(legrad.explain, pixels, directions[:queries])
        classes = partial(classifier.explain, pixels, classes=range(queries))
        rates = [queries / seconds(explain, options.rounds) for explain in (texts, classes)]
        print(f"{queries} | {rates[0]:.1f} | {rates[1]:.1f}")


def equality(options: argparse.Namespace) -> None:
    """Largest difference of our maps and the published ones, both min-max-normalised."""
    print("\nmodel | size | largest difference of min-max-normalised maps")
    print("---|---|---")
    for name, size in EQUAL:
        model = random_model(name, size)
        pixels, directions = inputs(model, size, 2, 4)
        theirs = run_published(
            model.model,
            name,
            pixels,
            directions,
            layers=options.layers,
            equality=len(directions),
            queries=[],
            rounds=0,
        ).maps
        ours = LeGrad(model, options.layers).explain(pixels, directions).maps
        shown = as_published(ours, model.tower.patch_size[0])
        print(f"{name} | {size} | {(shown - theirs.view_as(shown)).abs().max():.1e}")


def random_model(name: str, size: int) -> VisionLanguageModel:
    """An architecture with the weights of seed 0; no trained ones are needed to take the time."""
    torch.manual_seed(0)
    module: nn.Module = open_clip.create_model(name, pretrained=None)
    return from_open_clip(module.eval(), name=name, image_size=size)


def inputs(
    model: VisionLanguageModel, size: int, images: int, queries: int
) -> tuple[Tensor, Tensor]:
    """Noise images (B, 3, size, size) and unit directions (Q, E) of seed 1."""
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randn(images, 3, size, size, generator=generator)
    rows = torch.randn(queries, model.tower.embed_dim, generator=generator)
    return pixels, F.normalize(rows, dim=-1)


def processor() -> str:
    """Name of the processor and number of cores."""
    lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {os.cpu_count()} cores"


if __name__ == "__main__":
    main()
