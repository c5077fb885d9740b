"""The model stage: one model an actor, one batch of pixels in, one batch of encoded maps out."""

import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray

from legrad.codec import encode_maps
from legrad.explainer import LeGrad
from legrad.models import VisionLanguageModel, load_model
from legrad.preprocess import Preprocess
from legrad.queries import Query, encode_queries
from pipeline.config import ModelConfig
from pipeline.schema import EMBEDDING, Status, map_column, peak_column, score_column

if TYPE_CHECKING:  # it brings Ray, which single images do without
    from pipeline.progress import Reporter


@dataclass(frozen=True)
class Prepared:
    """What a run needs to know of its model before it starts; made once, on a worker.

    Attributes:
        grid: (h, w) of the maps.
        layers: how many last blocks are explained.
        digest: SHA-256 of the weights.
        preprocess: of the model, for the decode stage.
        text_features: (Q, E) float32, unit rows, in the order of the queries.
        warnings: what the model had to say of the queries.
        images_per_second: of one replica, on a batch of noise.
    """

    grid: tuple[int, int]
    layers: int
    digest: str
    preprocess: Preprocess
    text_features: NDArray[np.float32]
    warnings: tuple[str, ...]
    images_per_second: float


@dataclass(frozen=True)
class ReplicaSettings:
    """How one replica runs: the model, its device, CPU threads and batch size."""

    model: ModelConfig
    device: str
    threads: int
    batch_size: int

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
        )


def prepare(settings: ReplicaSettings, queries: Sequence[Query]) -> Prepared:
    """Load the model once, encode the queries, and measure a batch."""
    model = settings.load()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        features = encode_queries(model, queries)
    legrad = LeGrad(model, settings.model.layers)
    height, width = model.preprocess.size
    noise = torch.randint(0, 256, (settings.batch_size, 3, height, width), dtype=torch.uint8)
    legrad.explain(noise[:1], features)
    start = time.perf_counter()
    legrad.explain(noise, features).maps.cpu()
    return Prepared(
        grid=model.grid,
        layers=legrad.layers,
        digest=model.digest,
        preprocess=model.preprocess,
        text_features=features.float().cpu().numpy(),
        warnings=tuple(str(w.message) for w in caught if w.category is UserWarning),
        images_per_second=len(noise) / (time.perf_counter() - start),
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
        self.reporter = reporter

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Rows of `decoded_schema` -> as many rows of the output's schema."""
        usable = pc.equal(batch["status"], str(Status.OK)).to_numpy()
        explained = _Encoded.nothing(len(self.names), self.model.grid, self.text_features.shape[1])
        if usable.any():
            with self.reporter.timed("explain"):
                maps, scores, features = self._explain(batch["pixels"].filter(pa.array(usable)))
            with self.reporter.timed("encode"):
                explained = _Encoded.of(maps, scores, features)
        status, error = _outcome(batch, usable, explained.finite)
        rows = np.full(batch.num_rows, -1)
        rows[np.flatnonzero(usable)[explained.finite]] = np.arange(explained.finite.sum())
        table = self._table(batch, status, error, explained, rows)
        self.reporter.batch(table, int(explained.finite.sum()) * len(self.names))
        return table

    def _explain(
        self, pixels: pa.ChunkedArray
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        height, width = self.model.preprocess.size
        joined = b"".join(pixels.to_pylist())
        images = torch.frombuffer(bytearray(joined), dtype=torch.uint8)
        found = self.legrad.explain(images.view(-1, 3, height, width), self.text_features)
        maps, scores, features = found.maps, found.scores, found.image_features
        return (
            maps.float().cpu().numpy(),
            scores.float().cpu().numpy(),
            (features.float().cpu().numpy()),
        )

    def _table(
        self,
        batch: pa.Table,
        status: pa.Array,
        error: pa.Array,
        explained: "_Encoded",
        rows: NDArray[np.int64],
    ) -> pa.Table:
        """Put the columns together; a row without maps has nulls."""
        take = pa.array(rows, mask=rows < 0)
        columns = {name: batch[name] for name in batch.column_names if name != "pixels"}
        columns |= {"status": status, "error": error}
        columns[EMBEDDING] = explained.embeddings().take(take)
        for i, name in enumerate(self.names):
            columns[score_column(name)] = pa.array(explained.scores[:, i]).take(take)
            columns[map_column(name)] = explained.cells_of(i).take(take)
            columns[peak_column(name)] = pa.array(explained.peaks[:, i]).take(take)
        return pa.table([columns[name] for name in self.schema.names], schema=self.schema)


@dataclass(frozen=True)
class _Encoded:
    """Encoded results of the n images that gave finite numbers.

    Attributes:
        cells: (n, Q, h, w) uint8.  peaks: (n, Q) float32.  scores: (n, Q) float32.
        features: (n, E) float32.
        finite: (usable images,) bool: which of the explained images these n are.
    """

    cells: NDArray[np.uint8]
    peaks: NDArray[np.float32]
    scores: NDArray[np.float32]
    features: NDArray[np.float32]
    finite: NDArray[np.bool_]

    @classmethod
    def of(
        cls,
        maps: NDArray[np.float32],
        scores: NDArray[np.float32],
        features: NDArray[np.float32],
    ) -> "_Encoded":
        finite = np.asarray(np.isfinite(maps).all(axis=(1, 2, 3)) & np.isfinite(scores).all(axis=1))
        cells, peaks = encode_maps(maps[finite])
        return cls(cells, peaks, scores[finite], features[finite], finite)

    @classmethod
    def nothing(cls, queries: int, grid: tuple[int, int], width: int) -> "_Encoded":
        empty = np.zeros((0, queries), dtype=np.float32)
        cells = np.zeros((0, queries, *grid), dtype=np.uint8)
        features = np.zeros((0, width), dtype=np.float32)
        return cls(cells, empty, empty, features, np.zeros(0, dtype=bool))

    def cells_of(self, query: int) -> pa.Array:
        """Fixed-size binary (n,) of one query."""
        cells = np.ascontiguousarray(self.cells[:, query])
        size = int(np.prod(cells.shape[1:]))
        return pa.Array.from_buffers(pa.binary(size), len(cells), [None, pa.py_buffer(cells)])

    def embeddings(self) -> pa.Array:
        """list<float16> (n,)."""
        halves = self.features.astype(np.float16)
        offsets = np.arange(len(halves) + 1, dtype=np.int32) * halves.shape[1]
        return pa.ListArray.from_arrays(pa.array(offsets), pa.array(halves.reshape(-1)))


def _outcome(
    batch: pa.Table, usable: NDArray[np.bool_], finite: NDArray[np.bool_]
) -> tuple[pa.Array, pa.Array]:
    """Status and error columns, with `Status.NOT_FINITE` where the model gave no numbers."""
    status, error = batch["status"].to_pylist(), batch["error"].to_pylist()
    for row in np.flatnonzero(usable)[~finite]:
        status[row] = str(Status.NOT_FINITE)
        error[row] = "the model gave NaN or infinity for this image"
    return pa.array(status, pa.string()), pa.array(error, pa.string())
