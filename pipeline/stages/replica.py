"""One replica of the model: settings, batch size, and what the driver learns by loading it."""

import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch import Tensor

from legrad.method.explainer import Explanation, LeGrad
from legrad.models.classifier import Classifier
from legrad.models.load import load_model
from legrad.models.load_classifier import load_classifier
from legrad.models.published import definition_digest
from legrad.models.tokenizers import tokenizer_digest
from legrad.models.vision_language import VisionLanguageModel
from legrad.models.vision_model import VisionModel
from legrad.queries.query import Query, encode_queries, query_digests
from legrad.queries.selection import Selection
from pipeline.config import AnyModelConfig, ClassifierConfig
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
        classes: labels of the queries of a classifier; None for a vision-language model.
    """

    model: AnyModelConfig
    device: str
    threads: int
    batch_size: int | None
    selection: Selection = field(default_factory=Selection)
    classes: tuple[str, ...] | None = None

    def load(self) -> VisionModel:
        """Load the model in this process.

        Raises:
            UsageError: the weights or the settings do not fit the model.
        """
        torch.set_num_threads(self.threads)
        model = self.model
        size = model.image_size
        try:
            if isinstance(model, ClassifierConfig):
                arguments = dict(model.arguments)
                return load_classifier(**arguments, device=self.device, precision=model.precision)
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

    def explain(
        self, legrad: LeGrad, pixels: Tensor, directions: Tensor, **options: Any
    ) -> Explanation:
        """Explain a batch for the queries; a classifier's scores are its logits.

        On a CPU the images are split among threads, each with one core and its own scratch memory;
        for small models this is faster than running every product on all cores.

        Args:
            legrad: explainer of the model.
            pixels, options: as for `LeGrad.explain`; what ``select`` says of an image must not
                depend on the others.
            directions: (Q, E) directions of the queries; a classifier uses `classes` instead.
        """
        if self.classes is None:
            options["directions"] = directions
        else:
            options["classes"] = self.classes
        if self.device != "cpu" or self.threads < 2 or len(pixels) < self.threads:
            return legrad.explain(pixels, **options)
        bounds = [len(pixels) * part // self.threads for part in range(self.threads + 1)]
        of_torch = torch.get_num_threads()

        def explained(start: int, stop: int) -> Explanation:
            own = {
                name: values[start:stop]
                for name, values in options.items()
                if name in _OF_IMAGES and isinstance(values, Tensor | Sequence)
            }
            return legrad.explain(pixels[start:stop], **(options | own))

        shares = list(_single_threads(self.threads).map(explained, bounds, bounds[1:]))
        torch.set_num_threads(of_torch)  # those threads have changed it for threads to come
        return Explanation.joined(shares)

    def load_reader_of_texts(self) -> VisionLanguageModel:
        """Load a model that reads texts in this process.

        Raises:
            UsageError: it is a classifier, or as `load`.
        """
        if isinstance(self.model, ClassifierConfig):
            raise UsageError(
                f"{self.model.name} is a classifier, which reads no texts: use the run of a "
                "vision-language model"
            )
        loaded = self.load()
        if not isinstance(loaded, VisionLanguageModel):
            raise TypeError(f"expected a vision-language model, found {type(loaded).__name__}")
        return loaded


_OF_IMAGES = frozenset(("select", "sizes"))
"""Options of `LeGrad.explain` that may have an entry for every image."""


@cache
def _single_threads(count: int) -> ThreadPoolExecutor:
    """Threads in which torch uses one core."""
    return ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,))


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
            features = directions_of(model, queries)
            digests = query_digests(queries)
        except (FileNotFoundError, ValueError) as error:
            raise UsageError(f"queries: {error}") from error
    legrad = LeGrad(model, about.layers)
    height, width = model.preprocess.size
    label = next(iter(settings.selection.labels), None)

    def explain(count: int) -> None:
        noise = torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8)
        select = settings.selection.select([label] * count)
        sizes = [(width, height)] * count
        settings.explain(legrad, noise, features, select=select, sizes=sizes).maps.cpu()

    batch_size = settings.batch_size
    if batch_size is None:
        batch_size, rate = fastest_batch_size(explain)
    else:
        try:
            rate = images_per_second(explain, batch_size)
        except torch.OutOfMemoryError as error:
            raise UsageError(
                f"runtime.batch_size: {batch_size} images do not fit into the memory of "
                f"{legrad.model.device}. Leave the setting out to have it measured, or lower it."
            ) from error
    return Prepared(
        grid=model.grid,
        layers=legrad.layers,
        digest=model.digest,
        **_facts_of_texts(about, model),
        preprocess=model.preprocess,
        text_features=features.float().cpu().numpy(),
        query_digests=digests,
        warnings=tuple(str(w.message) for w in caught if w.category is UserWarning),
        images_per_second=rate,
        batch_size=batch_size,
    )


def directions_of(model: VisionModel, queries: Sequence[Query]) -> Tensor:
    """(Q, E) directions of texts, images and vectors, or of the classes of a classifier."""
    if isinstance(model, Classifier):
        return model.vectors([query.label or "" for query in queries])[0]
    if not isinstance(model, VisionLanguageModel):
        raise TypeError(f"expected a vision-language model, found {type(model).__name__}")
    return encode_queries(model, queries)


def _facts_of_texts(about: AnyModelConfig, model: VisionModel) -> dict[str, Any]:
    """Facts of `Prepared` that a classifier, which reads no texts, does not have."""
    if isinstance(about, ClassifierConfig) or not isinstance(model, VisionLanguageModel):
        return {"definition": None, "tokenizer": None, "logit": None}
    return {
        "definition": definition_digest(about.name, about.pretrained, about.tag),
        "tokenizer": tokenizer_digest(about.tokenizer),
        "logit": model.logit,
    }


def images_per_second(explain: ExplainBatch, batch_size: int) -> float:
    """Measure one batch, after a batch of one image that warms the device up."""
    explain(1)
    start = time.perf_counter()
    explain(batch_size)
    return batch_size / (time.perf_counter() - start)


def fastest_batch_size(explain: ExplainBatch) -> tuple[int, float]:
    """Find the smallest batch size that is about as fast as larger ones.

    Args:
        explain: measured once for each of `BATCH_SIZES`, until one gains less than `LEAST_GAIN` or
            does not fit into memory.

    Returns:
        The batch size and its rate in images per second.

    Raises:
        torch.OutOfMemoryError: not even the first size fits.
    """
    best_size, best_rate = 0, 0.0
    for size in BATCH_SIZES:
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
