"""How fast a replica is, and which batch size suits its device."""

import time
from collections.abc import Callable, Iterable

import torch

SIZES = (8, 16, 32, 64, 128, 256)
WORTH = 1.05  # times faster, or the smaller size is kept: it needs less memory
Explain = Callable[[int], None]


def images_per_second(explain: Explain, size: int) -> float:
    """The rate of one batch, after a warm one.

    Args:
        explain: explains so many images, and waits for the device.
        size: of the batch.
    """
    explain(1)
    start = time.perf_counter()
    explain(size)
    return size / (time.perf_counter() - start)


def fastest(explain: Explain, sizes: Iterable[int] = SIZES) -> tuple[int, float]:
    """The batch size from which on larger ones gain little, or no longer fit; and its rate.

    Raises:
        torch.OutOfMemoryError: not even the first one fits.
    """
    best, rate = 0, 0.0
    for size in sizes:
        try:
            found = images_per_second(explain, size)
        except torch.OutOfMemoryError:
            if not best:
                raise
            torch.cuda.empty_cache()
            break
        if best and found < rate * WORTH:
            break
        best, rate = size, found
    return best, rate
