"""Embeddings with planted directions, as a run stores them, without a model."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from numpy.typing import NDArray

from legrad.queries.query import Query, Role
from pipeline.audit.directions import Directions
from pipeline.schema import METADATA_KEY

WIDTH, WORDS = 48, 300
_MANIFEST = Path(__file__).parents[1] / "golden" / "v2" / "_run" / "manifest.json"
CLASSES = ("ash", "birch", "cedar", "elm", "fir", "gum")


@dataclass
class EmbeddedWorld:
    """Images of classes; some have what a word names.

    Attributes:
        planted: (class, word) -> share of the class's images with it; 5 % of the others have it.
        distance: of the two states of a planted word's score, in deviations.
        cues: words that a query of the run names.
        unnamed: class -> share of its images with a thing for which there is no word.
        elsewhere: share of the images of the other classes with this thing.
        objects: how far the objects of the classes move the embeddings, in deviations.
    """

    planted: dict[tuple[str, int], float]
    distance: float = 8.0
    cues: tuple[int, ...] = ()
    images: int = 3000
    seed: int = 0
    unnamed: dict[str, float] = field(default_factory=dict)
    elsewhere: float = 0.05
    objects: float = 2.0
    words: NDArray[np.float64] = field(init=False)
    table: pa.Table = field(init=False)
    thing: NDArray[np.float64] = field(init=False)
    has_thing: NDArray[np.bool_] = field(init=False)

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.seed)
        self.words = _unit(rng.normal(size=(WORDS, WIDTH)))
        self.class_texts = _unit(rng.normal(size=(len(CLASSES), WIDTH)))
        codes = rng.integers(len(CLASSES), size=self.images)
        vectors = rng.normal(size=(self.images, WIDTH)) + self.objects * self.class_texts[codes]
        for (cls, word), share in self.planted.items():
            chance = np.where(codes == CLASSES.index(cls), share, 0.05)
            present = rng.random(self.images) < chance
            vectors[present] += self.distance * self.words[word]
        self.thing = _unit(rng.normal(size=(1, WIDTH)))[0]
        shares = np.array(
            [self.unnamed.get(cls, self.elsewhere * bool(self.unnamed)) for cls in CLASSES]
        )
        self.has_thing = rng.random(self.images) < shares[codes]
        vectors[self.has_thing] += self.distance * self.thing
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

    def write(self, folder: Path) -> str:
        """A run on disk, by the manifest of a run of the mini model."""
        manifest = json.loads(_MANIFEST.read_text())
        queries = [query.model_dump(mode="json") for query in self.results.queries]
        manifest["metadata"]["queries"] = queries
        for name in ("_run/checkpoint", "images"):
            (folder / name).mkdir(parents=True)
        (folder / "_run" / "manifest.json").write_text(json.dumps(manifest))
        metadata = {METADATA_KEY: json.dumps(manifest["metadata"])}
        table = self.table.replace_schema_metadata(metadata)
        pq.write_table(table, folder / "images" / "part-000000-0.parquet")
        ids = self.table.select(["image_id"])
        pq.write_table(ids, folder / "_run" / "checkpoint" / "part-000000.parquet")
        return str(folder)

    def directions(self, *_: object) -> Directions:
        """In place of `run_directions`, which would load a model."""
        queries = dict(zip(CLASSES, self.class_texts, strict=True))
        queries |= {f"cue_{word}": self.words[word] for word in self.cues}
        return Directions(queries, self.words, tuple(f"w{number}" for number in range(WORDS)))


def _unit(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    unit: NDArray[np.float64] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit
