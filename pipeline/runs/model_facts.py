"""Facts about the model that a run needs and that its manifest records."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from legrad.preprocess import Preprocess


@dataclass(frozen=True)
class Prepared:
    """Facts about the model that are determined once, on a worker, before a run starts.

    Attributes:
        grid: (height, width) of the maps, in cells.
        layers: number of last transformer blocks that are explained.
        digest: SHA-256 of the weights.
        preprocess: preprocessing of the model, for the decode stage.
        text_features: (Q, E) float32, the directions of the queries in configuration order.
        definition: see `legrad.models.published.definition_digest`.
        tokenizer: digest of the tokenizer named in the settings; None for the model's own.
        logit: scale and bias that turn a cosine into the model's logit; None for a classifier,
            whose scores are logits.
        query_digests: SHA-256 of the files of each query that is made from files.
        warnings: warnings about the queries that arose while they were encoded.
        images_per_second: speed of one replica, measured on a batch of noise.
        batch_size: images per batch, as set or as determined on the device.
    """

    grid: tuple[int, int]
    layers: int
    digest: str
    definition: str | None
    tokenizer: str | None
    logit: dict[str, float | None] | None
    preprocess: Preprocess
    text_features: NDArray[np.float32]
    query_digests: dict[str, str]
    warnings: tuple[str, ...]
    images_per_second: float
    batch_size: int
