"""What decoding large photographs costs, and what decoding them at a reduced scale changes.

    python -m benchmarks.photographs_speed

Two photographs (of scikit-learn) are enlarged, with noise that falls off as in photographs, to 500
pixels, 2 and 12 megapixels, and written as JPEG, PNG and WebP. The decode stage brings them to
224 px in full (``exact``) and at the reduced scale (``fast``), beside a bare loop of Pillow that
decodes and resizes. It counts CPU time of one core, and prints the fastest of several rounds.
Then tars of such photographs are read from disk and from an S3 server on this machine and decoded
by the read and decode stages of a run, with all that they store of an image, beside a bare loop of
fsspec, tarfile and Pillow over the same tar. CPU time leaves out the wait for the storage. Then a
model explains both kinds of pixels: rank correlation of the maps of the same image, and difference
of the scores, beside what bf16 changes. Without ``--pretrained`` its weights are random.
"""

import argparse
import io
import tarfile
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.stats import spearmanr
from sklearn.datasets import load_sample_images

from benchmarks.engine import random_model
from legrad import LeGrad, load_model
from legrad.method.explanation import Explanation
from legrad.models import catalog
from legrad.models.vision_language import VisionLanguageModel
from legrad.preprocess import Preprocess
from pipeline.config import SourceConfig
from pipeline.progress.progress import Reporter
from pipeline.sources.datasource import open_source
from pipeline.stages.decode import Decoder, Decoding, decode
from tests.integration.s3 import s3_server

SIZES = ((500, 375), (1000, 750), (2048, 1536), (4000, 3000))
KINDS = ("JPEG", "PNG", "WEBP")
_QUALITY, _NOISE = 90, 8.0
_QUERIES = ("a temple", "a flower", "a watermark", "water")
_MEGAPIXELS_PER_TAR = 24
_EXACT, _FAST = Decoding(10**8, fast=False), Decoding(10**8, fast=True)


def photograph(number: int, size: tuple[int, int]) -> Image.Image:
    """A photograph of a size, with noise whose amplitude falls off as 1 / frequency.

    Args:
        number: 0 or 1.
        size: (width, height) in pixels.
    """
    width, height = size
    image = Image.fromarray(load_sample_images().images[number])
    large = np.asarray(image.resize(size, Image.Resampling.BICUBIC), np.float32)
    across, down = np.fft.rfftfreq(width)[None], np.fft.fftfreq(height)[:, None]
    amplitude = 1 / np.maximum(np.hypot(across, down), 1 / max(size))
    rng = np.random.default_rng(number)
    waves = rng.normal(size=(*amplitude.shape, 2)) @ np.array([1, 1j])
    noise = np.fft.irfft2(amplitude * waves, s=(height, width))
    noisy = large + _NOISE * (noise / noise.std())[..., None]
    return Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))


def encoded(image: Image.Image, kind: str) -> bytes:
    """The contents of a file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **({} if kind == "PNG" else {"quality": _QUALITY}))
    return buffer.getvalue()


def bare(data: bytes, preprocess: Preprocess) -> NDArray[np.uint8]:
    """Decode and resize with Pillow alone."""
    height, width = preprocess.size
    with Image.open(io.BytesIO(data)) as image:
        resized = image.convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(resized)


def fastest(turns: int, *works: Callable[[], object]) -> list[float]:
    """The least CPU seconds of each piece of work, in turns."""
    seconds = [[] for _ in works]  # type: list[list[float]]
    for _ in range(turns):
        for work, times in zip(works, seconds, strict=True):
            began = time.process_time()
            work()
            times.append(time.process_time() - began)
    return [min(times) for times in seconds]


def pixels(data: bytes, preprocess: Preprocess, decoding: Decoding) -> NDArray[np.uint8]:
    """uint8 (3, height, width)."""
    decoded = decode(data, preprocess, decoding)
    return np.frombuffer(decoded.pixels or b"", np.uint8).reshape(3, *preprocess.size)


def print_speed(turns: int) -> None:
    """A row for each format and size."""
    preprocess = Preprocess((224, 224))
    print(
        "images per second and core\n                  bare Pillow    exact     fast   fast/exact"
    )
    for kind in KINDS:
        for size in SIZES:
            files = [encoded(photograph(number, size), kind) for number in (0, 1)]
            works = (
                lambda files=files: [bare(data, preprocess) for data in files],
                lambda files=files: [decode(data, preprocess, _EXACT) for data in files],
                lambda files=files: [decode(data, preprocess, _FAST) for data in files],
            )
            loop, exact, fast = (len(files) / each for each in fastest(turns, *works))
            name = f"{kind} {size[0]} x {size[1]}"
            print(
                f"{name:17} {loop:11.1f} {exact:8.1f} {fast:8.1f} {fast / exact:9.2f}", flush=True
            )


def print_reading(turns: int, folder: Path) -> None:
    """A row for each format and size: read and decode together, from both storages."""
    (folder / "s3").mkdir()
    with s3_server(folder / "s3") as options:
        fsspec.filesystem("s3", **options).mkdir("photographs")
        print("\nread from a tar and decoded, images per second of CPU time")
        print("                  disk: bare    exact     fast   S3: bare    exact     fast")
        for kind in KINDS:
            for size in SIZES:
                count = max(2, round(_MEGAPIXELS_PER_TAR * 1e6 / (size[0] * size[1])))
                data = _tar([encoded(photograph(number, size), kind) for number in (0, 1)], count)
                name, works = f"{kind} {size[0]} x {size[1]}", []
                for root, storage in ((str(folder), {}), ("s3://photographs", options)):
                    uri = f"{root}/{name.replace(' ', '')}.tar"
                    with fsspec.open(uri, "wb", **storage) as stream:
                        stream.write(data)
                    works += [
                        lambda uri=uri, storage=storage: _bare_loop(uri, storage),
                        lambda uri=uri, storage=storage: _stages(uri, storage, "exact"),
                        lambda uri=uri, storage=storage: _stages(uri, storage, "fast"),
                    ]
                bare, exact, fast, *s3 = (count / each for each in fastest(turns, *works))
                print(
                    f"{name:17} {bare:11.1f} {exact:8.1f} {fast:8.1f}"
                    f" {s3[0]:10.1f} {s3[1]:8.1f} {s3[2]:8.1f}",
                    flush=True,
                )


def _tar(files: Sequence[bytes], count: int) -> bytes:
    """A tar in which some files take turns as images, as many as ``count``."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for number in range(count):
            member = tarfile.TarInfo(f"{number:06d}.jpg")
            member.size = len(files[number % len(files)])
            tar.addfile(member, io.BytesIO(files[number % len(files)]))
    return buffer.getvalue()


def _bare_loop(uri: str, options: Mapping[str, Any]) -> None:
    """Read a tar with fsspec and tarfile, decode and resize with Pillow."""
    preprocess = Preprocess((224, 224))
    with (
        fsspec.open(uri, "rb", **options) as stream,
        tarfile.open(fileobj=stream, mode="r|") as tar,
    ):
        for member in tar:
            content = tar.extractfile(member)
            assert content is not None
            bare(content.read(), preprocess)


def _stages(uri: str, options: Mapping[str, Any], decoding: str) -> None:
    """Read and decode a tar by the stages of a run, in this process."""
    config = SourceConfig.model_validate(
        {"format": "webdataset", "uri": uri, "options": options, "decode": decoding}
    )
    stage = Decoder(
        Preprocess((224, 224)),
        Decoding.of_source(config),
        {},
        store_captions=True,
        reporter=Reporter(),
        store_properties=True,
    )
    for task in open_source(config).get_read_tasks(1):
        for table in task():
            assert set(stage(table)["status"].to_pylist()) == {"ok"}


def print_difference(name: str, pretrained: str | None) -> None:
    """Pixels, maps and scores of both ways, a row for each size that can be reduced."""
    model = load(name, pretrained)
    height, width = model.preprocess.size
    print(f"\n{name}, {width} x {height}: change by fast decoding, and by bf16")
    print("               pixels: mean, max   maps: least rank correlation   scores: most change")
    for size in SIZES[1:]:
        files = [encoded(photograph(number, size), "JPEG") for number in (0, 1)]
        exact, fast = (
            np.stack([pixels(data, model.preprocess, each) for data in files])
            for each in (_EXACT, _FAST)
        )
        levels = np.abs(exact.astype(int) - fast)
        before = explained(model, exact)
        changes = [explained(model, fast), explained(replace(model, precision="bf16"), exact)]
        ranks = [f"{least_correlation(before.maps, each.maps):.5f}" for each in changes]
        scores = [f"{(before.scores - each.scores).abs().max():.5f}" for each in changes]
        print(
            f"{size[0]} x {size[1]:5} {levels.mean():12.2f} {levels.max():5}"
            f" {', '.join(ranks):>30} {', '.join(scores):>24}"
        )


def load(name: str, pretrained: str | None) -> VisionLanguageModel:
    """A model, with random weights if it has no others."""
    if pretrained or name == "mini":
        return load_model(name, pretrained)
    return random_model(name, catalog.architecture(name).image_size[0])


def explained(model: VisionLanguageModel, images: NDArray[np.uint8]) -> Explanation:
    """Maps and scores of uint8 images (N, 3, height, width)."""
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # words that the mini model never saw
        return LeGrad(model).explain(torch.from_numpy(images), model.encode_text(list(_QUERIES)))


def least_correlation(first: torch.Tensor, second: torch.Tensor) -> float:
    """The least rank correlation between maps (N, Q, h, w) of the same image and query."""
    flat = (each.float().flatten(2).flatten(0, 1).numpy() for each in (first, second))
    return min(float(spearmanr(a, b).statistic) for a, b in zip(*flat, strict=True))


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--model", default="ViT-B-32")
    parser.add_argument("--pretrained", help="tag or file of weights; random weights without it")
    options = parser.parse_args(arguments)
    print_speed(options.turns)
    with tempfile.TemporaryDirectory(prefix="legrad-") as folder:
        print_reading(options.turns, Path(folder))
    print_difference(options.model, options.pretrained)


if __name__ == "__main__":
    main()
