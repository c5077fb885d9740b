"""Estimate what a run costs before it starts: the arithmetic of docs/scaling.md."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from legrad.models.catalog import Architecture

SUSTAINED_FLOPS = 20e12
"""Assumed speed of one GPU: about that of an L4 with a ViT in bf16. Not measured here."""
BYTES_PER_GET = 50 * 2**20
"""s3fs reads a stream in pieces of this size."""
REQUESTS_PER_PART = 2  # a look at the lease, and the part
_FORWARD, _PER_MAP = 1.13, 0.047  # forward passes; fitted to the table in the README
_BLOCKS, _DEPTH = 2, 12  # blocks explained and blocks of the model (ViT-B-16) in that table


@dataclass(frozen=True)
class Costs:
    """Estimated costs of a whole run.

    Attributes:
        flops: floating-point operations of the vision tower, maps included; a multiply and an add
            are two.
        gpu_hours: hours of one GPU at `SUSTAINED_FLOPS`.
        decode_hours: hours of one core, extrapolated from the first images; None if none of them
            could be decoded.
        gets: approximate number of read requests to the storage.
        puts: approximate number of write requests.
    """

    flops: float
    gpu_hours: float
    decode_hours: float | None
    gets: int
    puts: int

    @property
    def cores_per_gpu(self) -> float | None:
        """Number of cores that decode images as fast as one GPU explains them."""
        return None if self.decode_hours is None else self.decode_hours / self.gpu_hours


def forward_flops(arch: Architecture, image_size: tuple[int, int]) -> float:
    """Operations of one image in the vision tower: 24 T D^2 + 4 T^2 D for each block."""
    height, width = (s // p for s, p in zip(image_size, arch.patch_size, strict=True))
    tokens = height * width + 1
    return arch.layers * (24.0 * tokens * arch.width**2 + 4.0 * tokens**2 * arch.width)


def passes(arch: Architecture, maps: int, layers: int | None) -> float:
    """Cost of explaining an image in forward passes.

    Args:
        arch: architecture of the model.
        maps: number of maps of the image.
        layers: number of blocks that are explained; None: two.
    """
    return _FORWARD + _PER_MAP * maps * ((layers or _BLOCKS) / _BLOCKS) * (_DEPTH / arch.layers)


def estimate(
    per_image: float,
    rows: int,
    decode_seconds: float | None,
    file_sizes: Sequence[int],
    parts: int,
) -> Costs:
    """Add up the costs of a run.

    Args:
        per_image: floating-point operations of one image.
        rows: number of images.
        decode_seconds: time to decode one image on one core.
        file_sizes: size in bytes of every input file.
        parts: number of Parquet files in the output.
    """
    flops = per_image * rows
    return Costs(
        flops=flops,
        gpu_hours=flops / SUSTAINED_FLOPS / 3600,
        decode_hours=None if decode_seconds is None else decode_seconds * rows / 3600,
        gets=sum(max(1, math.ceil(size / BYTES_PER_GET)) for size in file_sizes),
        puts=REQUESTS_PER_PART * parts,
    )
