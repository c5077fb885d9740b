"""The stored embeddings of a run's images, kept in memory, and comparisons with them."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch.utils.dlpack import from_dlpack

from pipeline.errors import UsageError
from pipeline.results import Results
from pipeline.schema import EMBEDDING

_BATCH = 65_536
_BLOCK = 2048
"""Rows that torch converts to float32 at a time, five times as fast as numpy: they stay in the
processor's cache."""
Vector = NDArray[np.float32]


@dataclass(frozen=True)
class Embeddings:
    """Unit embeddings of the n images of a run.

    Attributes:
        vectors: (n, E) float16, 0 where there is none; None if none are stored.
    """

    vectors: NDArray[np.float16] | None

    @classmethod
    def read(cls, results: Results) -> "Embeddings":
        """Read all embeddings, in the order of the files."""
        if EMBEDDING not in results.rows.schema.names:
            return cls(None)
        vectors, start = None, 0
        for table in results.rows.batches([EMBEDDING], None, _BATCH):
            values, valid = _numbers(table[EMBEDDING])
            if vectors is None and len(values):
                vectors = np.zeros((len(results), len(values) // int(valid.sum())), np.float16)
            if vectors is not None:
                _fill(vectors[start : start + len(valid)], values, valid)
            start += len(valid)
        return cls(vectors)

    def of(self, rows: NDArray[np.int64]) -> Vector:
        """(m, E) embeddings of some images; 0 for an image without one.

        Raises:
            UsageError: the run stored no embeddings.
        """
        vectors: Vector = self._required()[rows].astype(np.float32)
        return vectors

    def similarity(self, direction: Vector) -> Vector:
        """(n,) cosines of a unit vector (E,) with all images; 0 where there is no embedding.

        Raises:
            UsageError: the run stored no embeddings.
        """
        vectors, wanted = torch.from_numpy(self._required()), torch.from_numpy(direction)
        cosines = torch.empty(len(vectors))
        for start in range(0, len(vectors), _BLOCK):
            block = vectors[start : start + _BLOCK].float()
            torch.mv(block, wanted, out=cosines[start : start + _BLOCK])
        result: Vector = cosines.numpy()
        return result

    def mean_direction(self, rows: NDArray[np.int64]) -> Vector:
        """(E,) unit vector of the mean direction of some images.

        Raises:
            UsageError: the run stored no embeddings, or none of these images has one.
        """
        mean = self.of(rows).mean(axis=0)
        length = float(np.linalg.norm(mean))
        if not length:
            raise UsageError(
                "none of these images was explained, so no other image can be compared with them"
            )
        direction: Vector = (mean / length).astype(np.float32)
        return direction

    def _required(self) -> NDArray[np.float16]:
        if self.vectors is None:
            raise UsageError("the run stored no embeddings (store.embeddings: false)")
        return self.vectors


def _numbers(column: pa.ChunkedArray) -> tuple[torch.Tensor, NDArray[np.bool_]]:
    """The numbers of all lists of a column in one row, and (n,) whether each list exists."""
    array = column.combine_chunks()
    array = array.chunk(0) if isinstance(array, pa.ChunkedArray) else array
    valid = array.is_valid().to_numpy(zero_copy_only=False)
    return from_dlpack(array.flatten()), valid


def _fill(target: NDArray[np.float16], values: torch.Tensor, valid: NDArray[np.bool_]) -> None:
    """Write vectors (m, E) into the m of n rows (n, E) that have one."""
    vectors = values.reshape(-1, target.shape[1])
    if valid.all():  # torch rounds several times as fast as numpy
        torch.from_numpy(target).copy_(vectors)
    else:
        target[valid] = vectors.numpy()
