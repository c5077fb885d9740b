"""Embeddings with a known truth: classes, a cue, and what both do to a vector."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
from numpy.typing import NDArray

from pipeline.audit.findings import Findings, find
from pipeline.config.audit_settings import AuditConfig
from pipeline.schema import EMBEDDING, score_column

WIDTH = 12
CUE = np.eye(WIDTH)[0]
OTHER = np.eye(WIDTH)[1]
STEP = 2.0
NOISE = 0.25


@dataclass
class Embedded:
    """Images of two labels.

    Attributes:
        labels: (n,) names.
        has: (n,) the cue.
        vectors: (n, WIDTH).
        sets: (n,) sets of labels, in place of the names.
    """

    labels: NDArray[np.object_]
    has: NDArray[np.bool_]
    vectors: NDArray[np.float64]
    sets: Sequence[Sequence[str]] | None = None

    @property
    def ids(self) -> list[str]:
        return [f"m/{number:05d}" for number in range(len(self.labels))]

    @property
    def dataset(self) -> ds.Dataset:
        sets = {} if self.sets is None else {"labels": self.sets}
        table = {
            "image_id": self.ids,
            "label": list(self.labels),
            "status": ["ok"] * len(self.labels),
            EMBEDDING: pa.array(list(self.vectors), pa.list_(pa.float32())),
            score_column("cue"): self.vectors @ CUE * 0.1,
            score_column("other"): self.vectors @ OTHER * 0.1,
            **sets,
        }
        return ds.dataset(pa.table(table))

    @property
    def findings(self) -> Findings:
        return find(self, ["cue", "other"], [], AuditConfig())

    def without(self, cue: NDArray[np.float64] = CUE) -> NDArray[np.float32]:
        """(n, WIDTH) the vectors with the cue's component taken away where it is there."""
        return (self.vectors - self.has[:, None] * STEP * cue).astype(np.float32)


def made(
    count: int = 800, *, in_a: float = 0.85, in_b: float = 0.1, apart: float = 0.0, seed: int = 0
) -> Embedded:
    """Labels a and b: ``apart`` in a direction of their own, and unlike in how often they have
    the cue. Another cue is in half of all images."""
    rng = np.random.default_rng(seed)
    labels = np.array(["a", "b"], dtype=object)[rng.integers(2, size=count)]
    has = rng.random(count) < np.where(labels == "a", in_a, in_b)
    vectors = rng.normal(0, NOISE, (count, WIDTH))
    vectors[:, 0] += STEP * has
    vectors[:, 1] += STEP * (rng.random(count) < 0.5)
    vectors[:, 2] += apart * (labels == "a")
    return Embedded(labels, has, vectors)
