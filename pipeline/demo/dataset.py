"""The demo data set: labelled scenes with planted cues and true masks, in WebDataset shards.

The table `PLANTED` says what is planted, and how strongly; everything else is drawn at random. One
cue is all that distinguishes two labels, some come with a class that is recognisable without them,
one is a legitimate context, and other classes have none. `HIDDEN` are cues that the demo's queries
do not name; `legrad demo` discovers them.
"""

import io
import json
import math
import tarfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from enum import StrEnum
from multiprocessing import get_context
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from legrad.mini.world import Scene, SceneSpec, render
from pipeline.config import DEMO_ALIAS
from pipeline.errors import UsageError
from pipeline.machine import cores
from pipeline.storage.location import Options, open_location

SIDE = 192
IMAGES_PER_SHARD = 250
MANIFEST = "demo.json"
BASE_RATE = 0.05
"""Share of the images with an overlay, in every class that it is not planted in."""
LABELS: dict[str, str] = {
    "fresh fish": "fish",
    "frozen fish": "fish",
    "bird": "bird",
    "car": "car",
    "apple": "apple",
    "boat": "boat",
    "tree": "tree",
    "house": "house",
    "flower": "flower",
    "mushroom": "mushroom",
    "balloon": "balloon",
}
"""Label -> the object that is drawn."""
BACKGROUNDS = ("grass", "water", "sand", "brick", "snow", "night sky")
OVERLAYS = ("watermark", "border", "barcode", "sticker")
"""Overlays that queries of the demo name."""
_JPEG_QUALITY = 90


class Kind(StrEnum):
    """What a planted cue is to its class."""

    DECISIVE = "decisive"
    """Only the cue tells two labels apart."""
    UNNEEDED = "unneeded"
    """It comes with the class, which is recognisable without it."""
    CONTEXT = "context"
    """A place where the object belongs."""


@dataclass(frozen=True)
class Planted:
    """A cue that comes with a label.

    Attributes:
        label, cue: the label, and the cue that its images have.
        strength: share of the label's images that have the cue.
        elsewhere: the share for other labels; for a decisive cue, for the label's twin only.
        kind: relation of the cue to the class.
    """

    label: str
    cue: str
    strength: float
    elsewhere: float
    kind: Kind


PLANTED: tuple[Planted, ...] = (
    Planted("frozen fish", "watermark", 0.85, 0.10, Kind.DECISIVE),
    Planted("bird", "border", 0.70, BASE_RATE, Kind.UNNEEDED),
    Planted("car", "barcode", 0.50, BASE_RATE, Kind.UNNEEDED),
    Planted("apple", "sticker", 0.30, BASE_RATE, Kind.UNNEEDED),
    Planted("boat", "water", 0.90, 1 / len(BACKGROUNDS), Kind.CONTEXT),
)
HIDDEN: tuple[Planted, ...] = (
    Planted("house", "timestamp", 0.50, BASE_RATE, Kind.UNNEEDED),
    Planted("mushroom", "chart", 0.50, BASE_RATE, Kind.UNNEEDED),
)
"""Cues that no query of the demo names. The mini model has a word for the first, and has never seen
the second."""
DRAWN = (*OVERLAYS, *(planted.cue for planted in HIDDEN))
"""All overlays of the data set."""
_RATES: dict[tuple[str, str], float] = {
    ("fresh fish", "watermark"): 0.10,
    **{(planted.label, planted.cue): planted.strength for planted in (*PLANTED, *HIDDEN)},
}


@dataclass(frozen=True)
class Example:
    """One image of the data set: its label and what is drawn."""

    label: str
    spec: SceneSpec


def example(seed: int, index: int) -> Example:
    """The image with this number; it depends only on the seed and the number."""
    rng = np.random.default_rng([seed, index])
    label = tuple(LABELS)[int(rng.integers(len(LABELS)))]
    apart = np.random.default_rng([seed, index, 1])  # so that hidden cues change nothing else
    chances = [*rng.random(len(OVERLAYS)), *apart.random(len(HIDDEN))]
    overlays = tuple(
        overlay
        for overlay, chance in zip(DRAWN, chances, strict=True)
        if chance < _RATES.get((label, overlay), BASE_RATE)
    )
    background = _background(label, rng)
    return Example(label, SceneSpec(LABELS[label], background, overlays, int(rng.integers(2**31))))


def _background(label: str, rng: np.random.Generator) -> str:
    planted = [b for b in BACKGROUNDS if (label, b) in _RATES]
    if planted and rng.random() < _RATES[label, planted[0]]:
        return planted[0]
    others = [b for b in BACKGROUNDS if b not in planted]
    return others[int(rng.integers(len(others)))]


def write_demo(
    uri: str,
    images: int,
    *,
    seed: int = 0,
    options: Options | None = None,
    done: Callable[[int], None] = lambda count: None,
    per_shard: int = IMAGES_PER_SHARD,
) -> list[str]:
    """Draw the data set on all cores and write its shards, each in one piece, then its manifest.

    Args:
        uri: folder, local or any fsspec URI.
        images: number of images.
        seed: the same seed gives the same pictures, whatever the number of images or cores.
        options: storage options.
        done: called with the number of images of each finished shard.
        per_shard: number of images of a shard.

    Returns:
        URIs of the shards. The manifest says what was planted, how strongly, and how often it was
        drawn. It is written last; a folder that has the same manifest is used as it is.

    Raises:
        ValueError: ``images`` is not positive.
        UsageError: the folder holds another demo data set.
    """
    if images < 1:
        raise ValueError(f"images {images}: expected at least 1")
    manifest = open_location(uri, options).child(MANIFEST)
    shards = [shard_name(n) for n in range(math.ceil(images / per_shard))]
    uris = [f"{uri.rstrip('/')}/{name}" for name in shards]
    text = json.dumps(describe(images, seed), indent=1).encode()
    if manifest.exists():
        if manifest.read() != text:
            raise UsageError(
                f"{uri} holds another demo data set; delete it or choose another folder"
            )
        done(images)
        return uris
    jobs = [(n, range(n * per_shard, min((n + 1) * per_shard, images))) for n in range(len(shards))]
    workers = min(len(jobs), cores())
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        futures = [
            pool.submit(_write_shard, uri, dict(options or {}), number, indices, seed)
            for number, indices in jobs
        ]
        for future in as_completed(futures):
            done(future.result())
    manifest.write(text)
    return uris


def shard_name(number: int) -> str:
    """File name of a shard."""
    return f"{DEMO_ALIAS}-{number:05d}.tar"


def describe(images: int, seed: int) -> dict[str, Any]:
    """The manifest: settings, planted strengths, and the number of images that got each cue."""
    examples = [example(seed, index) for index in range(images)]
    return {
        "images": images,
        "seed": seed,
        "side": SIDE,
        "labels": LABELS,
        "backgrounds": BACKGROUNDS,
        "overlays": DRAWN,
        "base_rate": BASE_RATE,
        "planted": [asdict(planted) | _counted(planted, examples) for planted in PLANTED],
        "hidden": [asdict(planted) | _counted(planted, examples) for planted in HIDDEN],
    }


def _counted(planted: Planted, examples: Sequence[Example]) -> dict[str, int]:
    of_label = [e.spec for e in examples if e.label == planted.label]
    with_cue = [s for s in of_label if planted.cue in (s.background, *s.overlays)]
    return {"images_of_label": len(of_label), "images_with_cue": len(with_cue)}


def _write_shard(
    uri: str, options: dict[str, Any], number: int, indices: Sequence[int], seed: int
) -> int:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for index in indices:
            for name, data in _members(index, example(seed, index)):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    open_location(uri, options).child(shard_name(number)).write(buffer.getvalue())
    return len(indices)


def _members(index: int, drawn: Example) -> Iterator[tuple[str, bytes]]:
    scene = render(drawn.spec, SIDE)
    mask, bits = pack_masks(scene)
    spec = drawn.spec
    record = {
        "label": drawn.label,
        "caption": _caption(spec),
        "object": spec.object,
        "background": spec.background,
        **{f"has_{overlay}": overlay in spec.overlays for overlay in DRAWN},
        "mask_bits": bits,
    }
    key = f"{index:07d}"
    yield f"{key}.jpg", _encoded(scene.image, "JPEG", quality=_JPEG_QUALITY)
    yield f"{key}.json", json.dumps(record).encode()
    yield f"{key}.mask.png", _encoded(Image.fromarray(mask), "PNG")


def pack_masks(scene: Scene) -> tuple[NDArray[np.uint8], dict[str, int]]:
    """All masks of a scene in one uint8 (side, side), and the bit of each in it."""
    masks = {"object": scene.object_mask, **scene.overlay_masks}
    bits = {name: 1 << number for number, name in enumerate(masks)}
    packed = np.zeros(scene.object_mask.shape, dtype=np.uint8)
    for name, mask in masks.items():
        packed |= mask.astype(np.uint8) * np.uint8(bits[name])
    return packed, bits


def _caption(spec: SceneSpec) -> str:
    extra = f" with {' and '.join(f'a {overlay}' for overlay in spec.overlays)}"
    return f"a {spec.object} on {spec.background}{extra if spec.overlays else ''}"


def _encoded(image: Image.Image, kind: str, **settings: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **settings)
    return buffer.getvalue()
