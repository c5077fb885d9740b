"""What decoding large photographs costs, and what decoding them at a reduced scale changes.

    python -m benchmarks.photographs_speed

Two photographs (of scikit-learn) are enlarged, with noise that falls off as in photographs, to 500
pixels, 2 and 12 megapixels, and written as JPEG, PNG and WebP. The decode stage brings them to
224 px in full (``exact``) and at the reduced scale (``fast``), beside a bare loop of Pillow that
decodes and resizes. It counts CPU time of one core, and prints the fastest of several rounds.
Then a model explains both kinds of pixels: rank correlation of the maps of the same image, and
difference of the scores, beside what bf16 changes. Without ``--pretrained`` its weights are random.
"""

import argparse
import io
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace

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
from pipeline.stages.decode import Decoding, decode

SIZES = ((500, 375), (1000, 750), (2048, 1536), (4000, 3000))
KINDS = ("JPEG", "PNG", "WEBP")
_QUALITY, _NOISE = 90, 8.0
_QUERIES = ("a temple", "a flower", "a watermark", "water")
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
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--model", default="ViT-B-32")
    parser.add_argument("--pretrained", help="tag or file of weights; random weights without it")
    options = parser.parse_args(arguments)
    print_speed(options.turns)
    print_difference(options.model, options.pretrained)


if __name__ == "__main__":
    main()
