"""Photographs in class folders or Parquet, and overlays of the drawn world pasted into them."""

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from legrad.mini.world import OVERLAYS
from legrad.mini.world.overlays import Frame, place_overlay

SIDE = 128
"""Side in pixels of a photograph with overlays, as the pipeline reads it."""
OPACITY = (0.25, 0.9)
"""Range of an overlay's opacity in a data set, times that of its drawing."""
_SPLIT_SEED = 20260
_IMAGE_NAMES = {".jpg", ".jpeg", ".png", ".webp"}
_SHORTEST = 32


@dataclass(frozen=True)
class Photographs:
    """N photographs of K classes.

    Attributes:
        pixels: uint8 (N, side, side, 3), RGB.
        labels: int (N,), index into ``classes``.
        classes: names.
    """

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]

    def take(self, rows: NDArray[np.int64]) -> "Photographs":
        """Some of them, in the order of the rows."""
        return Photographs(self.pixels[rows], self.labels[rows], self.classes)


def read_photographs(folder: Path, side: int = _SHORTEST) -> Photographs:
    """Read all photographs, squashed to squares.

    Args:
        folder: a folder for each class, or Parquet files with an ``image`` column (bytes, or a
            struct with ``bytes``) and a ``label`` column, as Hugging Face `datasets` writes them.
        side: side of the result in pixels.

    Raises:
        SystemExit: there are no photographs of at least two classes.
    """
    files = sorted(folder.rglob("*.parquet"))
    encoded = _of_parquet(files) if files else _of_folders(folder)
    classes = tuple(sorted({label for _, label in encoded}))
    if len(classes) < 2:
        raise SystemExit(
            f"{folder}: found {len(encoded)} photographs of {len(classes)} classes, expected class "
            "folders with images, or Parquet files with the columns image and label"
        )
    size = (side, side)
    pixels = np.empty((len(encoded), *size, 3), dtype=np.uint8)
    for row, (data, _) in enumerate(encoded):
        with Image.open(io.BytesIO(data)) as image:
            pixels[row] = np.asarray(image.convert("RGB").resize(size, Image.Resampling.BICUBIC))
    labels = np.array([classes.index(label) for _, label in encoded])
    return Photographs(pixels, labels, classes)


def _of_folders(folder: Path) -> list[tuple[bytes, str]]:
    paths = sorted(p for p in folder.glob("*/*") if p.suffix.lower() in _IMAGE_NAMES)
    return [(path.read_bytes(), path.parent.name) for path in paths]


def _of_parquet(files: Sequence[Path]) -> list[tuple[bytes, str]]:
    encoded = []
    for file in files:
        table = pq.read_table(file, columns=["image", "label"])
        features = json.loads((table.schema.metadata or {}).get(b"huggingface", b"{}"))
        label = features.get("info", {}).get("features", {}).get("label", {})
        names = label.get("names")
        for image, code in zip(table["image"].to_pylist(), table["label"].to_pylist(), strict=True):
            data = image["bytes"] if isinstance(image, dict) else image
            encoded.append((data, names[code] if names else str(code)))
    return encoded


def split(photographs: Photographs, held_out: float = 0.2) -> tuple[Photographs, Photographs]:
    """Photographs for training, and those that no training sees; always the same split."""
    order = np.random.default_rng(_SPLIT_SEED).permutation(len(photographs.labels))
    count = round(len(order) * held_out)
    return photographs.take(order[count:]), photographs.take(order[:count])


def draw_overlay(
    name: str, rng: np.random.Generator, opacity: tuple[float, float] = OPACITY
) -> Image.Image:
    """RGBA, `SIDE` x `SIDE`: an overlay in a random corner, its opacity drawn from a range."""
    corner = (bool(rng.integers(2)), bool(rng.integers(2)))
    layer = place_overlay(name, Frame(SIDE, corner, bool(rng.integers(2))), rng)
    drawn = rng.uniform(*opacity)
    layer.putalpha(layer.getchannel("A").point([round(v * drawn) for v in range(256)]))
    return layer


def pasted(
    pixels: NDArray[np.uint8], overlays: Sequence[str], rng: np.random.Generator
) -> tuple[Image.Image, dict[str, NDArray[np.bool_]]]:
    """A photograph enlarged to `SIDE` with overlays, and the ink of each, bool (`SIDE`, `SIDE`)."""
    image = Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    ink = {}
    for name in overlays:
        layer = draw_overlay(name, rng)
        image.paste(layer, (0, 0), layer)
        alpha = np.asarray(layer.getchannel("A"), dtype=np.float32)
        ink[name] = alpha > 0.5 * alpha.max()
    return image, ink


def overlay_pool(
    count: int, side: int, seed: int, opacity: tuple[float, float]
) -> NDArray[np.uint8]:
    """Overlays for training: uint8 (overlays, count, 4, side, side), colours times alpha."""
    pool = np.empty((len(OVERLAYS), count, 4, side, side), dtype=np.uint8)
    for kind, name in enumerate(OVERLAYS):
        rng = np.random.default_rng([seed, kind])
        for number in range(count):
            layer = draw_overlay(name, rng, opacity).convert("RGBa")
            small = layer.resize((side, side), Image.Resampling.BICUBIC)
            pool[kind, number] = np.asarray(small).transpose(2, 0, 1)
    return pool
