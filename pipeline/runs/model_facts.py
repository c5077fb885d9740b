"""What a run needs to know of its model, and its manifest records."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from legrad.preprocess import Preprocess


@dataclass(frozen=True)
class Prepared:
    """What a run needs to know of its model before it starts; made once, on a worker.

    Attributes:
        grid: (h, w) of the maps.
        layers: how many last blocks are explained.
        digest: SHA-256 of the weights.
        preprocess: of the model, for the decode stage.
        text_features: (Q, E) float32 directions, in the order of the queries.
        tokenizer: digest of a tokenizer that was named; None for the model's own.
        logit: scale and bias that the model makes a logit of a cosine with.
        query_digests: SHA-256 of the files behind those queries that are made of files.
        warnings: what the model had to say of the queries.
        images_per_second: of one replica, on a batch of noise.
        batch_size: as set, or as found on the device.
    """

    grid: tuple[int, int]
    layers: int
    digest: str
    tokenizer: str | None
    logit: dict[str, float | None]
    preprocess: Preprocess
    text_features: NDArray[np.float32]
    query_digests: dict[str, str]
    warnings: tuple[str, ...]
    images_per_second: float
    batch_size: int
