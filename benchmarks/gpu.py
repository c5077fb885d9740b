"""Everything that a GPU changes, measured by one command in less than eight minutes.

``python -m benchmarks.gpu`` prints, for a model with random weights: maps and images per second by
precision, batch and number of queries, with and without ``torch.compile``, and the rate of the
device's matrix product for comparison; how far bf16 maps are from fp32 maps; operations in the loop
that make the host wait for the device; memory by number of queries; the cores that decoding needs;
the published package on the same device; and the whole pipeline on photographs, compared with a
bare loop. ``--device cpu`` runs all of it at small sizes, to check the script.
"""

import argparse
import io
import statistics
import tarfile
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from multiprocessing import get_context
from pathlib import Path

import torch

from benchmarks.engine import MIB, inputs, random_model
from benchmarks.measure import Cost, peak_bytes, rank_correlation
from benchmarks.photographs_speed import encoded, photograph
from benchmarks.pipeline import configuration, flow
from benchmarks.published import run_published
from legrad import LeGrad, from_open_clip
from legrad.heatmaps.codec import encode_maps
from legrad.method.explanation import Explanation
from legrad.models.vision_language import VisionLanguageModel
from legrad.preprocess import Preprocess
from pipeline.cluster.session import session
from pipeline.machine import cores
from pipeline.stages.decode import Decoding, decode

PRECISIONS = ("fp32", "tf32", "bf16")
_QUERIES_OF_A_RUN, _BATCH = 16, 64
_DECODING = Decoding(10**8)


@dataclass(frozen=True)
class Sizes:
    """Sizes of the measurements.

    Attributes:
        model: architecture of open_clip.
        side: input side in pixels.
        batches: numbers of images per batch.
        queries: numbers of queries.
        rounds: number of rounds, of which the median is taken.
        images: number of photographs for the pipeline.
    """

    model: str
    side: int
    batches: tuple[int, ...]
    queries: tuple[int, ...]
    rounds: int
    images: int


ON_GPU = Sizes("ViT-B-16", 224, (1, 16, 64, 256), (1, 16, 64, 256), 5, 2000)
ON_CPU = Sizes("ViT-B-32", 224, (1, 4), (1, 16), 1, 16)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print all tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--no-published", dest="published", action="store_false")
    options = parser.parse_args(arguments)
    device = torch.device(options.device)
    sizes = ON_GPU if device.type == "cuda" else ON_CPU
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    print(f"{name}, {cores()} cores, torch {torch.__version__}, {sizes.model} {sizes.side} px")
    began = time.perf_counter()
    model = moved(random_model(sizes.model, sizes.side), device)
    rates = print_rates(model, sizes, device)
    print_bf16(model, sizes)
    print_waits(model, sizes, device)
    print_memory(model, sizes, device)
    if options.published:
        print_published(model, sizes)
    print_decoding(rates)
    print_pipeline(model, sizes)
    print(f"\n{time.perf_counter() - began:.0f} s")


def moved(
    model: VisionLanguageModel, device: torch.device, precision: str = "fp32"
) -> VisionLanguageModel:
    """The model on a device, computing in a precision; ``tf32`` is fp32 to the model."""
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    return from_open_clip(
        model.model,
        device=device,
        precision="bf16" if precision == "bf16" else "fp32",
        image_size=model.preprocess.size[0],
    )


def timed(work: Callable[[], object], rounds: int) -> float:
    """Median seconds, with the device's work done, after one run to warm up."""
    seconds = []
    for _ in range(rounds + 1):
        began = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[1:])


def product_rate(device: torch.device, dtype: torch.dtype, rounds: int) -> float:
    """Operations a second of a large square matrix product."""
    side = 8192 if device.type == "cuda" else 1024
    left, right = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    return 2.0 * side**3 / timed(lambda: left @ right, 3 * rounds)


def print_rates(model: VisionLanguageModel, sizes: Sizes, device: torch.device) -> float:
    """Rates by precision, batch and queries; returns the best images a second with 16 queries."""
    cost = Cost(model, sizes.side, 2)
    pixels, directions = inputs(model, sizes.side, max(sizes.batches), max(sizes.queries))
    pixels, directions = pixels.to(device), directions.to(device)
    best = 0.0
    for precision in PRECISIONS if device.type == "cuda" else ("fp32", "bf16"):
        current = moved(model, device, precision)
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        peak = product_rate(device, dtype, sizes.rounds)
        print(f"\n{precision}: matrix product {peak / 1e12:.2f} TFLOP/s")
        print("batch | queries | images/s | maps/s | share of its rate | compiled: maps/s")
        print("---|---|---|---|---|---")
        engines = [LeGrad(current)]
        if device.type == "cuda":
            engines.append(LeGrad(current, compiled=True))
        for batch in sizes.batches:
            for queries in sizes.queries:
                images, some = pixels[:batch], directions[:queries]
                took = [
                    timed(partial(each.explain, images, some), sizes.rounds) for each in engines
                ]
                rate = batch / took[0]
                if queries == _QUERIES_OF_A_RUN:
                    best = max(best, rate)
                compiled = f"{batch * queries / took[1]:.0f}" if len(took) > 1 else "-"
                print(
                    f"{batch} | {queries} | {rate:.1f} | {rate * queries:.0f} | "
                    f"{cost.image(queries) * rate / peak:.0%} | {compiled}",
                    flush=True,
                )
    return best


def print_bf16(model: VisionLanguageModel, sizes: Sizes) -> None:
    """Relative error and rank correlation of bf16 maps against fp32 maps."""
    pixels, directions = inputs(model, sizes.side, 4, 16)
    exact, rough = (
        LeGrad(moved(model, model.device, precision)).explain(pixels, directions).maps
        for precision in ("fp32", "bf16")
    )
    exact, rough = (maps.float().cpu().flatten(0, 1).flatten(1) for maps in (exact, rough))
    error, rank = (rough - exact).norm(dim=1) / exact.norm(dim=1), rank_correlation(rough, exact)
    print(
        f"\nbf16 against fp32: relative error {error.mean():.1e} (at most {error.max():.1e}), "
        f"rank correlation {rank.mean():.5f} (at least {rank.min():.5f})"
    )


def print_waits(model: VisionLanguageModel, sizes: Sizes, device: torch.device) -> None:
    """Operations of a batch that make the host wait."""
    if device.type != "cuda":
        print("\noperations that make the host wait: not measured on the CPU")
        return
    legrad = LeGrad(moved(model, device, "bf16"))
    noise = torch.randint(0, 256, (16, 3, sizes.side, sizes.side), dtype=torch.uint8)
    directions = inputs(model, sizes.side, 1, 16)[1].to(device)
    legrad.explain(noise, directions)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        legrad.explain(noise, directions)
        torch.cuda.set_sync_debug_mode("default")
    waits = [str(each.message) for each in caught if "synchron" in str(each.message)]
    print(f"\noperations in a batch that make the host wait: {len(waits)}", *waits, sep="\n  ")


def print_memory(model: VisionLanguageModel, sizes: Sizes, device: torch.device) -> None:
    """Memory beyond what is returned, by number of queries."""
    legrad = LeGrad(moved(model, device, "bf16"))
    pixels, directions = inputs(model, sizes.side, max(sizes.batches), max(sizes.queries))
    pixels, directions = pixels.to(device), directions.to(device)
    print(f"\nbf16, {len(pixels)} images: queries | peak beyond the returned arrays, MiB\n---|---")
    for queries in sizes.queries:
        explain = partial(legrad.explain, pixels, directions[:queries])
        print(f"{queries} | {peak_beyond(explain, device) / MIB:.0f}")


def peak_beyond(explain: Callable[[], Explanation], device: torch.device) -> float:
    """Bytes at the peak of a call beyond what was there before and what it returns."""
    if device.type == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        returned = explain()
        peak = torch.cuda.max_memory_allocated() - before
    else:
        kept: list[Explanation] = []
        peak = peak_bytes(lambda: kept.append(explain()))
        (returned,) = kept
    return peak - returned.maps.nbytes - returned.scores.nbytes - returned.image_features.nbytes


def print_published(model: VisionLanguageModel, sizes: Sizes) -> None:
    """The published package, which takes one image at a time, on the same device in fp32."""
    noise, directions = inputs(model, sizes.side, 1, _QUERIES_OF_A_RUN)
    pixels = noise.to(model.device)
    theirs = run_published(
        model.model,
        sizes.model,
        pixels,
        directions,
        layers=2,
        equality=1,
        queries=[_QUERIES_OF_A_RUN],
        rounds=sizes.rounds,
    ).seconds[_QUERIES_OF_A_RUN]
    legrad = LeGrad(moved(model, model.device))
    ours = timed(partial(legrad.explain, pixels, directions), sizes.rounds)
    print(
        f"\none image, {_QUERIES_OF_A_RUN} queries, fp32: published package "
        f"{_QUERIES_OF_A_RUN / theirs:.1f} maps/s, engine {_QUERIES_OF_A_RUN / ours:.1f} maps/s"
    )


def print_decoding(rate: float) -> None:
    """Cores that decode as fast as the device explains."""
    print(f"\ndecoding for {rate:.0f} images/s ({_QUERIES_OF_A_RUN} queries): ms an image | cores")
    print("---|---")
    for size in ((500, 375), (2048, 1536)):
        data, preprocess = encoded(photograph(0, size), "JPEG"), Preprocess((224, 224))
        took = timed(partial(decode, data, preprocess, _DECODING), 5)
        print(f"JPEG {size[0]} x {size[1]}: {took * 1e3:.1f} | {rate * took:.1f}")


def print_pipeline(model: VisionLanguageModel, sizes: Sizes) -> None:
    """The flow on photographs beside a loop that only decodes, explains and encodes."""
    with tempfile.TemporaryDirectory() as folder, session():
        shards = write_photographs(Path(folder), sizes.images)
        precision = "bf16" if model.device.type == "cuda" else "fp32"
        chosen = [f"model.precision={precision}", "source.alias=photographs", "source.carry={}"]
        config = configuration(Path(folder), shards, sizes.model, *chosen)
        rate, _ = flow(config, Path(folder, "out"))
        loop = bare_loop(moved(model, model.device, precision), shards, len(config.queries))
    print(
        f"\n{sizes.images} photographs of 500 x 375, {len(config.queries)} queries, {precision}: "
        f"pipeline {rate:.1f} images/s with the start of its actors, bare loop {loop:.1f} without "
        f"any start ({rate / loop:.2f})"
    )


def write_photographs(folder: Path, images: int) -> list[str]:
    """Tars of up to 250 JPEG files."""
    files = [encoded(photograph(number, (500, 375)), "JPEG") for number in (0, 1)]
    shards = []
    for first in range(0, images, 250):
        shards.append(str(folder / f"{first:06d}.tar"))
        with tarfile.open(shards[-1], "w") as tar:
            for number in range(first, min(first + 250, images)):
                info = tarfile.TarInfo(f"{number:06d}.jpg")
                info.size = len(files[number % 2])
                tar.addfile(info, io.BytesIO(files[number % 2]))
    return shards


def bare_loop(model: VisionLanguageModel, shards: Sequence[str], queries: int) -> float:
    """Images a second of one loop, fed by a process for each core."""
    legrad = LeGrad(model)
    directions = inputs(model, model.preprocess.size[0], 1, queries)[1].to(model.device)
    height, width = model.preprocess.size
    with ProcessPoolExecutor(cores(), mp_context=get_context("spawn")) as pool:
        list(pool.map(abs, range(cores())))  # the processes have started
        files = [data for shard in shards for data in members(shard)]
        legrad.explain(torch.zeros(1, 3, height, width, dtype=torch.uint8), directions)
        began = time.perf_counter()
        decoded = pool.map(partial(pixels_of, preprocess=model.preprocess), files, chunksize=8)
        while rows := list(islice(decoded, _BATCH)):
            pixels = torch.frombuffer(bytearray(b"".join(rows)), dtype=torch.uint8)
            explained = legrad.explain(pixels.view(-1, 3, height, width), directions)
            encode_maps(explained.maps.float().cpu().numpy())
        return len(files) / (time.perf_counter() - began)


def members(shard: str) -> Iterator[bytes]:
    """Contents of a tar's members."""
    with tarfile.open(shard) as tar:
        for member in tar:
            stream = tar.extractfile(member)
            if stream is not None:
                yield stream.read()


def pixels_of(data: bytes, preprocess: Preprocess) -> bytes:
    """Pixels of an image at the model's input size."""
    return decode(data, preprocess, _DECODING).pixels or b""


if __name__ == "__main__":
    main()
