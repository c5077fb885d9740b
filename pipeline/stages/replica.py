"""One replica of the model: settings, batch size, and what the driver learns by loading it."""

import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import torch

from legrad.method.explainer import LeGrad
from legrad.models.load import load_model
from legrad.models.published import definition_digest
from legrad.models.tokenizers import tokenizer_digest
from legrad.models.vision_language import VisionLanguageModel
from legrad.queries.query import Query, encode_queries, query_digests
from legrad.queries.selection import Selection
from pipeline.config import ModelConfig
from pipeline.errors import UsageError
from pipeline.runs.model_facts import Prepared

BATCH_SIZES = (8, 16, 32, 64, 128, 256)
LEAST_GAIN = 1.05
"""A larger batch must be this many times faster; otherwise the smaller one saves memory."""
ExplainBatch = Callable[[int], None]
"""Explains a batch of so many images and waits for the device."""


@dataclass(frozen=True)
class ReplicaSettings:
    """How one replica runs.

    Attributes:
        model: which model, and how it prepares an image.
        device: torch device.
        threads: CPU threads of torch.
        batch_size: images per batch; None until `prepare` has measured it on the device.
        selection: which queries get a map.
    """

    model: ModelConfig
    device: str
    threads: int
    batch_size: int | None
    selection: Selection = field(default_factory=Selection)

    def load(self) -> VisionLanguageModel:
        """Load the model in this process.

        Raises:
            UsageError: the weights or the settings do not fit the model.
        """
        torch.set_num_threads(self.threads)
        model = self.model
        size = model.image_size
        try:
            return load_model(
                model.name,
                model.pretrained,
                image_size=size if size is None else (size[0], size[1]),
                device=self.device,
                precision=model.precision,
                resize=model.resize,
                tokenizer=model.tokenizer,
                tag=model.tag,
            )
        except ValueError as error:  # what `load_model` raises for arguments that do not fit
            raise UsageError(str(error)) from error


def prepare(settings: ReplicaSettings, queries: Sequence[Query]) -> Prepared:
    """Load the model, encode the queries, and measure a batch.

    Raises:
        UsageError: a query's file is missing or does not fit the model.
    """
    about = settings.model
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        model = settings.load()
        try:
            features, digests = encode_queries(model, queries), query_digests(queries)
        except (FileNotFoundError, ValueError) as error:
            raise UsageError(f"queries: {error}") from error
    legrad = LeGrad(model, about.layers)
    height, width = model.preprocess.size
    label = next(iter(settings.selection.labels), None)

    def explain(count: int) -> None:
        noise = torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8)
        select = settings.selection.select([label] * count)
        sizes = [(width, height)] * count
        legrad.explain(noise, features, select=select, sizes=sizes).maps.cpu()

    batch_size = settings.batch_size
    if batch_size is None:
        batch_size, rate = fastest_batch_size(explain)
    else:
        rate = images_per_second(explain, batch_size)
    return Prepared(
        grid=model.grid,
        layers=legrad.layers,
        digest=model.digest,
        definition=definition_digest(about.name, about.pretrained, about.tag),
        tokenizer=tokenizer_digest(about.tokenizer),
        logit=model.logit,
        preprocess=model.preprocess,
        text_features=features.float().cpu().numpy(),
        query_digests=digests,
        warnings=tuple(str(w.message) for w in caught if w.category is UserWarning),
        images_per_second=rate,
        batch_size=batch_size,
    )


def images_per_second(explain: ExplainBatch, batch_size: int) -> float:
    """Measure one batch, after a batch of one image that warms the device up."""
    explain(1)
    start = time.perf_counter()
    explain(batch_size)
    return batch_size / (time.perf_counter() - start)


def fastest_batch_size(
    explain: ExplainBatch, sizes: Iterable[int] = BATCH_SIZES
) -> tuple[int, float]:
    """Find the smallest batch size that is about as fast as larger ones.

    Args:
        explain: measured once per size.
        sizes: batch sizes in ascending order; the search ends at the first one that gains less than
            `LEAST_GAIN` or does not fit into memory.

    Returns:
        The batch size and its rate in images per second.

    Raises:
        torch.OutOfMemoryError: not even the first size fits.
    """
    best_size, best_rate = 0, 0.0
    for size in sizes:
        try:
            rate = images_per_second(explain, size)
        except torch.OutOfMemoryError:
            if not best_size:
                raise
            torch.cuda.empty_cache()
            break
        if best_size and rate < best_rate * LEAST_GAIN:
            break
        best_size, best_rate = size, rate
    return best_size, best_rate
