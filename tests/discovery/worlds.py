"""Embeddings with planted directions, as a run stores them, without a model."""

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
from numpy.typing import NDArray

from legrad.queries.query import Query, Role
from pipeline.audit.directions import Directions

WIDTH, WORDS = 48, 300
CLASSES = ("ash", "birch", "cedar", "elm", "fir", "gum")


@dataclass
class EmbeddedWorld:
    """Images of classes; some have what a word names.

    Attributes:
        planted: (class, word) -> share of the class's images with it; 5 % of the others have it.
        distance: of the two states of a planted word's score, in deviations.
        cues: words that a query of the run names.
    """

    planted: dict[tuple[str, int], float]
    distance: float = 8.0
    cues: tuple[int, ...] = ()
    images: int = 3000
    seed: int = 0
    words: NDArray[np.float64] = field(init=False)
    table: pa.Table = field(init=False)

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.seed)
        self.words = _unit(rng.normal(size=(WORDS, WIDTH)))
        self.class_texts = _unit(rng.normal(size=(len(CLASSES), WIDTH)))
        codes = rng.integers(len(CLASSES), size=self.images)
        vectors = rng.normal(size=(self.images, WIDTH)) + 2 * self.class_texts[codes]
        for (cls, word), share in self.planted.items():
            chance = np.where(codes == CLASSES.index(cls), share, 0.05)
            present = rng.random(self.images) < chance
            vectors[present] += self.distance * self.words[word]
        flat = pa.array(vectors.astype(np.float32).ravel())
        self.table = pa.table(
            {
                "image_id": [f"w/{number:05d}" for number in range(self.images)],
                "label": [CLASSES[code] for code in codes],
                "status": ["ok"] * self.images,
                "embedding": pa.FixedSizeListArray.from_arrays(flat, WIDTH),
            }
        )

    @property
    def results(self) -> Any:
        """What `discover` reads of results."""
        classes = [Query(name=name, role=Role.CLASS) for name in CLASSES]
        cues = [Query(name=f"cue_{word}", role=Role.CUE) for word in self.cues]
        return SimpleNamespace(dataset=ds.dataset(self.table), queries=(*classes, *cues))

    def directions(self, *_: object) -> Directions:
        """In place of `run_directions`, which would load a model."""
        queries = dict(zip(CLASSES, self.class_texts, strict=True))
        queries |= {f"cue_{word}": self.words[word] for word in self.cues}
        return Directions(queries, self.words, tuple(f"w{number}" for number in range(WORDS)))


def _unit(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    unit: NDArray[np.float64] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit
