"""What a run costs before it is made: the arithmetic of docs/scaling.md."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from legrad.models.catalog import Architecture

SUSTAINED_FLOPS = 20e12
"""Assumed of one GPU: about what an L4 gives a ViT in bf16. Not measured here."""
BYTES_PER_GET = 50 * 2**20
"""s3fs reads a stream in pieces of this size."""
REQUESTS_PER_PART = 6  # pending ids, data, commit (copy and delete), and looking at the lease twice
_FORWARD, _PER_MAP = 1.13, 0.047  # passes; fit to the table of the README (ViT-B-16, two blocks)
_BLOCKS, _DEPTH = 2, 12  # of that table


@dataclass(frozen=True)
class Costs:
    """Of a whole run.

    Attributes:
        flops: of the vision tower, maps included; a multiply and an add are two.
        gpu_hours: at `SUSTAINED_FLOPS`.
        decode_hours: of one core, from the time the first images took here; None where none could
            be decoded.
        gets, puts: requests to the stores, about.
        bytes_written: of the output.
    """

    flops: float
    gpu_hours: float
    decode_hours: float | None
    gets: int
    puts: int
    bytes_written: int

    @property
    def cores_per_gpu(self) -> float | None:
        """Cores that decode as fast as one GPU explains."""
        return None if self.decode_hours is None else self.decode_hours / self.gpu_hours


def forward_flops(arch: Architecture, image_size: tuple[int, int]) -> float:
    """Of one image through the vision tower's blocks: 24 T D^2 + 4 T^2 D a block."""
    height, width = (s // p for s, p in zip(image_size, arch.patch_size, strict=True))
    tokens = height * width + 1
    return arch.layers * (24.0 * tokens * arch.width**2 + 4.0 * tokens**2 * arch.width)


def passes(arch: Architecture, maps: int, layers: int | None) -> float:
    """Cost of explaining an image in forward passes.

    Args:
        arch: of the model.
        maps: of an image.
        layers: how many blocks are explained; None: two.
    """
    return _FORWARD + _PER_MAP * maps * ((layers or _BLOCKS) / _BLOCKS) * (_DEPTH / arch.layers)


def estimate(
    per_image: float,
    rows: int,
    decode_seconds: float | None,
    file_sizes: Sequence[int],
    parts: int,
    bytes_written: int,
) -> Costs:
    """Add up a run.

    Args:
        per_image: floating-point operations of an image.
        rows: images.
        decode_seconds: of an image on one core.
        file_sizes: bytes of every input file.
        parts: Parquet files of the output.
        bytes_written: of the output.
    """
    flops = per_image * rows
    return Costs(
        flops=flops,
        gpu_hours=flops / SUSTAINED_FLOPS / 3600,
        decode_hours=None if decode_seconds is None else decode_seconds * rows / 3600,
        gets=sum(max(1, math.ceil(size / BYTES_PER_GET)) for size in file_sizes),
        puts=REQUESTS_PER_PART * parts,
        bytes_written=bytes_written,
    )
