"""Data sets with planted cues, put together from a pool."""

from collections import Counter
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from numpy.typing import NDArray

from benchmarks.truth_pool import CUES, DECOYS, HOSTED, OBJECTS, Pool, image_id
from pipeline.reliance.claims import Directions, EditedPair
from pipeline.reliance.edits import Kind, PairEdits
from pipeline.schema import EMBEDDING, score_column

BASE = 0.05
STRENGTHS = (0.05, 0.25, 0.5, 0.85, 1.0)
PLANTS = (("watermark", "barcode"), ("sticker", "border"))


@dataclass(frozen=True)
class Cell:
    """One setting of the grid.

    Attributes:
        strength: P(cue | its class); elsewhere it is `BASE`.
        fixed: whether overlays are always in the same corner.
        only_cue: whether labels come in twins that only the cue tells apart.
        images: of the data set.
        plants: the cues planted on the first and on the second object that hosts any.
    """

    strength: float
    fixed: bool
    only_cue: bool
    images: int
    plants: tuple[str, str]

    @property
    def labels(self) -> dict[str, str]:
        """Label -> object; planted labels are named like their object."""
        if self.only_cue:
            return {name: name for name in HOSTED} | {f"{name} twin": name for name in HOSTED}
        return {name: name for name in OBJECTS}

    @property
    def planted(self) -> dict[str, str]:
        """Label -> its planted cue."""
        return dict(zip(HOSTED, self.plants, strict=True))


@dataclass(frozen=True)
class World:
    """A data set as the audit reads it.

    Attributes:
        cell: how it was drawn.
        places: (n,) rows of the pool.
        labels: (n,).
        repeated: images that stand in it twice, since the pool ran out.
        dataset: image_id, label, status, scores, embeddings.
    """

    cell: Cell
    places: NDArray[np.int64]
    labels: tuple[str, ...]
    repeated: int
    dataset: ds.Dataset


def draw_world(pool: Pool, cell: Cell, directions: Directions, seed: int) -> World:
    """Put a data set together; the same seed gives the same one."""
    rng = np.random.default_rng([seed, cell.images, int(cell.strength * 100), cell.only_cue])
    left = {key: _shuffled(pool, key, rng) for key in pool.buckets}
    used: Counter[int] = Counter()
    places, labels = [], []
    for number in range(cell.images):
        label = list(cell.labels)[number % len(cell.labels)]
        key = _content(cell, label, rng)
        while key not in left:  # rarer than the pool has: one overlay less
            key = (key[0], frozenset(sorted(key[1])[:-1]))
        if not left[key]:
            left[key] = _shuffled(pool, key, rng)
        place = left[key].pop()
        used[place] += 1
        places.append(place)
        labels.append(label)
    chosen = np.array(places)
    repeated = sum(times - 1 for times in used.values())
    return World(cell, chosen, tuple(labels), repeated, _table(pool, chosen, labels, directions))


def _content(cell: Cell, label: str, rng: np.random.Generator) -> tuple[str, frozenset[str]]:
    own = cell.planted.get(label)
    having = [c for c in CUES if rng.random() < (cell.strength if c == own else BASE)]
    if len(having) > 2:
        having = [c for c in having if c == own] + [c for c in having if c != own][:1]
    return cell.labels[label], frozenset(having)


def _shuffled(pool: Pool, key: tuple[str, frozenset[str]], rng: np.random.Generator) -> list[int]:
    """Places of a content, to be taken from the end: edited ones first, so that small sets can be
    tested.
    """
    edited = {
        row
        for (name, _), table in pool.edits.items()
        if name == key[0]
        for row in table["image_id"].unique().to_pylist()
    }
    rows = pool.buckets[key]
    known = [place for place in rows if image_id(place) in edited]
    rest = [place for place in rows if image_id(place) not in edited]
    return [*map(int, rng.permutation(rest)), *map(int, rng.permutation(known))]


def _table(
    pool: Pool, places: NDArray[np.int64], labels: list[str], directions: Directions
) -> ds.Dataset:
    vectors = pool.embeddings[places]
    width = vectors.shape[1]
    columns = {
        "image_id": [f"{image_id(int(p))}/{number}" for number, p in enumerate(places)],
        "label": labels,
        "status": ["ok"] * len(places),
        EMBEDDING: pa.FixedSizeListArray.from_arrays(vectors.ravel(), width).cast(
            pa.list_(pa.float32())
        ),
    }
    for cue in (*CUES, *DECOYS):
        columns[score_column(cue)] = vectors @ directions.cues[cue]
    return ds.dataset(pa.table(columns))


def edited_pair(pool: Pool, world: World, cls: str, cue: str, rival: str) -> EditedPair | None:
    """The pool's edits of a pair, of the images that are in the data set; None without any."""
    table = pool.edits.get((world.cell.labels[cls], cue))
    if table is None:
        return None
    names: dict[str, str] = {}
    targets: dict[str, str] = {}
    for number, (place, label) in enumerate(zip(world.places, world.labels, strict=True)):
        known = image_id(int(place))
        if label == cls:
            names[known] = f"{known}/{number}"
        elif label == rival:
            targets[known] = f"{known}/{number}"
    insertion = pa.array([str(k) for k in (Kind.TARGET, Kind.INSERTED, Kind.INSERTED_OTHER)])
    on_target = pc.is_in(table["kind"], insertion)
    mine = pc.and_(pc.invert(on_target), pc.is_in(table["image_id"], pa.array(list(names))))
    other = pc.and_(on_target, pc.is_in(table["image_id"], pa.array(list(targets))))
    kept = table.filter(pc.or_(mine, other))
    every = names | targets
    ids = pa.array([every[name] for name in kept["image_id"].to_pylist()], pa.string())
    return EditedPair(cls, cue, rival, PairEdits.of(kept.set_column(0, "image_id", ids)))
