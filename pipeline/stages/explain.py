"""The model stage: one model an actor, one batch of pixels in, one batch of encoded maps out."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray

from legrad.method.explainer import Explanation, LeGrad
from legrad.models.load import load_model
from legrad.models.tokenizers import tokenizer_digest
from legrad.models.vision_language import VisionLanguageModel
from legrad.queries.query import Query, encode_queries, query_digests
from legrad.queries.selection import Selection
from pipeline.config import ModelConfig
from pipeline.errors import UsageError
from pipeline.runs.model_facts import Prepared
from pipeline.schema import Status
from pipeline.stages.batch_size import fastest, images_per_second
from pipeline.stages.encode import Encoded

if TYPE_CHECKING:  # it brings Ray, which single images do without
    from pipeline.progress.progress import Reporter


@dataclass(frozen=True)
class ReplicaSettings:
    """How one replica runs.

    Attributes:
        model: which, and how it looks at an image.
        device, threads: torch's.
        batch_size: images at once; None until it is found on the device.
        selection: which maps.
    """

    model: ModelConfig
    device: str
    threads: int
    batch_size: int | None
    selection: Selection = field(default_factory=Selection)

    def load(self) -> VisionLanguageModel:
        """Load the model in this process."""
        torch.set_num_threads(self.threads)
        model = self.model
        size = model.image_size
        return load_model(
            model.name,
            model.pretrained,
            image_size=size if size is None else (size[0], size[1]),
            device=self.device,
            precision=model.precision,
            resize=model.resize,
            tokenizer=model.tokenizer,
        )


def prepare(settings: ReplicaSettings, queries: Sequence[Query]) -> Prepared:
    """Load the model once, encode the queries, and measure a batch.

    Raises:
        UsageError: a query's file is missing or does not fit.
    """
    model = settings.load()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        try:
            features, digests = encode_queries(model, queries), query_digests(queries)
        except (FileNotFoundError, ValueError) as error:
            raise UsageError(f"queries: {error}") from error
    legrad = LeGrad(model, settings.model.layers)
    height, width = model.preprocess.size
    label = next(iter(settings.selection.labels), None)

    def explain(count: int) -> None:
        noise = torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8)
        select = settings.selection.select([label] * count)
        sizes = [(width, height)] * count
        legrad.explain(noise, features, select=select, sizes=sizes).maps.cpu()

    size = settings.batch_size
    if size is None:
        size, rate = fastest(explain)
    else:
        rate = images_per_second(explain, size)
    return Prepared(
        grid=model.grid,
        layers=legrad.layers,
        digest=model.digest,
        tokenizer=tokenizer_digest(settings.model.tokenizer),
        logit=model.logit,
        preprocess=model.preprocess,
        text_features=features.float().cpu().numpy(),
        query_digests=digests,
        warnings=tuple(str(w.message) for w in caught if w.category is UserWarning),
        images_per_second=rate,
        batch_size=size,
    )


class Explainer:
    """The explain stage, an actor of Ray Data: loads its model once, then takes batches.

    Args:
        settings: model, device, threads, batch size.
        text_features: (Q, E) from `prepare`.
        schema: the output's.
        names: of the queries, in the order of the features.
        reporter: told of every batch.
    """

    def __init__(
        self,
        settings: ReplicaSettings,
        text_features: NDArray[np.float32],
        schema: pa.Schema,
        names: Sequence[str],
        reporter: "Reporter",
    ) -> None:
        self.model = settings.load()
        self.legrad = LeGrad(self.model, settings.model.layers)
        self.text_features = torch.from_numpy(text_features.copy()).to(self.model.device)
        self.schema = schema
        self.names = list(names)
        self.selection = settings.selection
        self.reporter = reporter

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Rows of `decoded_schema` -> as many rows of the output's schema."""
        usable = pc.equal(batch["status"], str(Status.OK)).to_numpy()
        explained = Encoded.nothing(len(self.names), self.model.grid, self.text_features.shape[1])
        if usable.any():
            images = batch.filter(pa.array(usable))
            with self.reporter.timed("explain"):
                found = self._explain(images)
            with self.reporter.timed("encode"):
                own = self.selection.own(images["label"].to_pylist())
                explained = Encoded.of(found, np.array(own))
        status, error = _outcome(batch, usable, explained.finite)
        rows = np.full(batch.num_rows, -1)
        rows[np.flatnonzero(usable)[explained.finite]] = np.arange(explained.finite.sum())
        columns = {name: batch[name] for name in batch.column_names if name != "pixels"}
        columns |= {"status": status, "error": error}
        columns |= explained.columns(self.names, rows, self.schema)
        table = pa.table([columns[name] for name in self.schema.names], schema=self.schema)
        self.reporter.batch(table, int(explained.selected.sum()))
        return table

    def _explain(self, images: pa.Table) -> Explanation:
        height, width = self.model.preprocess.size
        joined = b"".join(images["pixels"].to_pylist())
        pixels = torch.frombuffer(bytearray(joined), dtype=torch.uint8)
        return self.legrad.explain(
            pixels.view(-1, 3, height, width),
            self.text_features,
            select=self.selection.select(images["label"].to_pylist()),
            sizes=list(zip(*(images[n].to_pylist() for n in ("width", "height")), strict=True)),
        )


def _outcome(
    batch: pa.Table, usable: NDArray[np.bool_], finite: NDArray[np.bool_]
) -> tuple[pa.Array, pa.Array]:
    """Status and error columns, with `Status.NOT_FINITE` where the model gave no numbers."""
    status, error = batch["status"].to_pylist(), batch["error"].to_pylist()
    for row in np.flatnonzero(usable)[~finite]:
        status[row] = str(Status.NOT_FINITE)
        error[row] = "the model gave NaN or infinity for this image"
    return pa.array(status, pa.string()), pa.array(error, pa.string())
