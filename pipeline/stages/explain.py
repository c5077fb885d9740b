"""The model stage: a batch of pixels in, a batch of scores, encoded maps and embeddings out."""

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray

from legrad.method.explainer import Explanation, LeGrad
from legrad.queries.selection import Label
from pipeline.schema import PREDICTED_LABEL, Status
from pipeline.stages.encode import EncodedBatch, count_maps
from pipeline.stages.replica import ReplicaSettings

if TYPE_CHECKING:  # it imports Ray, which explaining single images does without
    from pipeline.progress.progress import Reporter


class Explainer:
    """The explain stage, an actor of Ray Data: it loads the model once and then takes batches.

    Args:
        settings: model, device, threads and batch size.
        text_features: (Q, E) float32 directions of the queries, from `prepare`.
        schema: schema of the output.
        names: the Q query names, in the order of ``text_features``.
        reporter: receives the counts of every batch.
    """

    def __init__(
        self,
        settings: ReplicaSettings,
        text_features: NDArray[np.float32],
        schema: pa.Schema,
        names: Sequence[str],
        reporter: "Reporter",
    ) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # `prepare` has passed them on
            self.model = settings.load()
        self.legrad = LeGrad(self.model, settings.model.layers)
        self.text_features = torch.from_numpy(text_features.copy()).to(self.model.device)
        self.schema = schema
        self.names = list(names)
        self.settings, self.selection = settings, settings.selection
        self.reporter = reporter

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Turn rows of `decoded_schema` into as many rows of the output's schema."""
        decoded = pc.equal(batch["status"], str(Status.OK)).to_numpy()
        encoded = EncodedBatch.empty(len(self.names), self.model.grid, self.text_features.shape[1])
        if decoded.any():
            images = batch.filter(pa.array(decoded))
            with self.reporter.timed("explain"):
                explanation = self._explain(images)
            with self.reporter.timed("encode"):
                own_classes = self.selection.own(_labels(images))
                encoded = EncodedBatch.of(explanation, np.array(own_classes))
        status, error = _outcome(batch, decoded, encoded.finite)
        image_of_row = np.full(batch.num_rows, -1)
        image_of_row[np.flatnonzero(decoded)[encoded.finite]] = np.arange(encoded.finite.sum())
        columns = {name: batch[name] for name in batch.column_names if name != "pixels"}
        columns |= {"status": status, "error": error}
        columns |= encoded.columns(self.names, image_of_row, self.schema)
        if self.settings.classes is not None:
            columns[PREDICTED_LABEL] = encoded.predicted(self.settings.classes, image_of_row)
        table = pa.table([columns[name] for name in self.schema.names], schema=self.schema)
        self.reporter.batch(table, count_maps(table))
        return table

    def _explain(self, images: pa.Table) -> Explanation:
        return self.settings.explain(
            self.legrad,
            pixels_of(images, self.model.preprocess.size),
            self.text_features,
            select=self.selection.select(_labels(images)),
            sizes=list(zip(*(images[n].to_pylist() for n in ("width", "height")), strict=True)),
        )


def pixels_of(images: pa.Table, size: tuple[int, int]) -> torch.Tensor:
    """uint8 (B, 3, height, width), copied once, since Arrow's memory must not be written."""
    column = pa.concat_arrays(images["pixels"].chunks)
    _, offsets, values = column.buffers()
    start = int(np.frombuffer(offsets, np.int32)[column.offset])
    count = len(column) * 3 * size[0] * size[1]
    pixels = np.frombuffer(values, np.uint8, count, start).copy()
    return torch.from_numpy(pixels).view(-1, 3, *size)


def _labels(images: pa.Table) -> list[Label]:
    """The label of each image, or its set of labels."""
    columns = (images[name].to_pylist() for name in ("label", "labels"))
    return [label if labels is None else labels for label, labels in zip(*columns, strict=True)]


def _outcome(
    batch: pa.Table, decoded: NDArray[np.bool_], finite: NDArray[np.bool_]
) -> tuple[pa.Array, pa.Array]:
    """Status and error columns, with `Status.NOT_FINITE` where the model gave no finite number."""
    status, error = batch["status"].to_pylist(), batch["error"].to_pylist()
    for row in np.flatnonzero(decoded)[~finite]:
        status[row] = str(Status.NOT_FINITE)
        error[row] = "the model gave NaN or infinity for this image"
    return pa.array(status, pa.string()), pa.array(error, pa.string())
