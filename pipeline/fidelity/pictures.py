"""The images of an evaluation: drawn from a source, with their labels and masks."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from legrad.image_files import open_image
from legrad.preprocess import Preprocess
from legrad.queries.query import Query, Role
from pipeline.config import RunConfig, SourceConfig
from pipeline.errors import RunError, UsageError
from pipeline.fidelity.segmentation import Mask
from pipeline.schema import Status
from pipeline.sources.datasource import open_source, read_rows
from pipeline.stages.decode import Decoding, decode
from pipeline.storage.location import open_location

_SMALL = Preprocess((8, 8))
_LEAST_INK = 127


@dataclass(frozen=True)
class Picture:
    """An encoded image.

    Attributes:
        data: its bytes.
        own: number of the query of its class, -1 if it has none.
        masks: number of a query -> (height, width) where the image shows what the query names.
    """

    data: bytes
    own: int
    masks: Mapping[int, Mask]


@dataclass(frozen=True)
class Inputs:
    """Inputs of a model.

    Attributes:
        pixels: uint8 (N, 3, height, width).
        sizes: (width, height) of the upright originals.
    """

    pixels: NDArray[np.uint8]
    sizes: list[tuple[int, int]]

    @classmethod
    def of(
        cls, pictures: Sequence[Picture], preprocess: Preprocess, source: SourceConfig
    ) -> "Inputs":
        """Decode images for a model."""
        decoding, shape = Decoding.of_source(source), (3, *preprocess.size)
        decoded = [decode(picture.data, preprocess, decoding) for picture in pictures]
        pixels = [np.frombuffer(d.pixels or b"", np.uint8).reshape(shape) for d in decoded]
        return cls(np.stack(pixels), [(d.width or 0, d.height or 0) for d in decoded])


def draw_pictures(config: RunConfig, count: int, masks: str | None) -> tuple[list[Picture], int]:
    """Random images of a configuration's source, and the number that could not be decoded.

    Args:
        config: its source is sampled, unless it has a sample or a limit of its own.
        count: number of images.
        masks: see `pipeline.fidelity.evaluate.Wanted`.

    Raises:
        UsageError: a mask has another size than its image.
        RunError: no image can be decoded.
    """
    source = config.source
    if source.sample is None and source.limit is None and source.only is None:
        classes = sum(query.role is Role.CLASS for query in config.queries)
        every = count if source.format == "webdataset" else -(-count // classes)
        source = source.model_copy(update={"sample": every})
    rows = list(_rows(source))
    order = np.random.default_rng(source.sample_seed).permutation(len(rows))[:count]
    chosen = [rows[number] for number in sorted(order.tolist())]
    pictures = []
    for row in chosen:
        decoded = decode(row.get("bytes") or b"", _SMALL, Decoding.of_source(source))
        if row["status"] == Status.OK and decoded.status == Status.OK:
            label = row.get("label") if row.get("labels") is None else row["labels"]
            size = (decoded.width or 0, decoded.height or 0)
            drawn = {} if masks is None else _masks(masks, row["key"], size, config.queries)
            own = config.selection.own([label])[0]
            pictures.append(Picture(row["bytes"], own, drawn))
    if not pictures:
        raise RunError(f"none of {len(chosen)} images of the source could be decoded")
    return pictures, len(chosen) - len(pictures)


def _rows(source: SourceConfig) -> Iterator[dict[str, Any]]:
    opened = open_source(source)
    return itertools.chain.from_iterable(read_rows(opened.source, u) for u in opened.units)


def _masks(
    folder: str, key: str, size: tuple[int, int], queries: Sequence[Query]
) -> dict[int, Mask]:
    """By number of the query, the masks of an image of this size that are in the folder."""
    masks: dict[int, Mask] = {}
    for number, query in enumerate(queries):
        uri = f"{folder.rstrip('/')}/{query.name}/{PurePosixPath(key).stem}.png"
        location = open_location(uri)
        if not location.exists():
            continue
        with open_image(location.read()) as drawn:
            mask = np.asarray(drawn.convert("L")) > _LEAST_INK
        if mask.shape != size[::-1]:
            raise UsageError(
                f"{uri}: expected a mask of {size[0]} x {size[1]} pixels, as its image has, "
                f"found {mask.shape[1]} x {mask.shape[0]}"
            )
        if mask.any():
            masks[number] = mask
    return masks
