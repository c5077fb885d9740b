"""Data sets with planted cues, assembled from a pool."""

from collections import Counter
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from numpy.typing import NDArray

from benchmarks.truth_pool import CUES, DECOYS, HOSTED, OBJECTS, Pool, image_id
from pipeline.reliance.claims import EditedPair, TextDirections
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
        images: number of images of the data set.
        plants: the cues planted on the first and on the second object of `HOSTED`.
    """

    strength: float
    fixed: bool
    only_cue: bool
    images: int
    plants: tuple[str, str]

    @property
    def labels(self) -> dict[str, str]:
        """Label -> object; a label with a planted cue has the name of its object."""
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
        pool_rows: (n,) rows of the pool.
        labels: (n,) names.
        repeated: number of images that occur again, because the pool ran out.
        dataset: image_id, label, status, scores, embeddings.
    """

    cell: Cell
    pool_rows: NDArray[np.int64]
    labels: tuple[str, ...]
    repeated: int
    dataset: ds.Dataset


def draw_world(pool: Pool, cell: Cell, directions: TextDirections, seed: int) -> World:
    """Assemble a data set; the same seed gives the same one."""
    rng = np.random.default_rng([seed, cell.images, int(cell.strength * 100), cell.only_cue])
    left = {key: _shuffled(pool, key, rng) for key in pool.buckets}
    used: Counter[int] = Counter()
    pool_rows, labels = [], []
    for number in range(cell.images):
        label = list(cell.labels)[number % len(cell.labels)]
        key = _content(cell, label, rng)
        while key not in left:  # the pool has no such content: leave out an overlay
            key = (key[0], frozenset(sorted(key[1])[:-1]))
        if not left[key]:
            left[key] = _shuffled(pool, key, rng)
        pool_row = left[key].pop()
        used[pool_row] += 1
        pool_rows.append(pool_row)
        labels.append(label)
    chosen = np.array(pool_rows)
    repeated = sum(times - 1 for times in used.values())
    return World(cell, chosen, tuple(labels), repeated, _table(pool, chosen, labels, directions))


def _content(cell: Cell, label: str, rng: np.random.Generator) -> tuple[str, frozenset[str]]:
    planted = cell.planted.get(label)
    cues = [c for c in CUES if rng.random() < (cell.strength if c == planted else BASE)]
    if len(cues) > 2:
        cues = [c for c in cues if c == planted] + [c for c in cues if c != planted][:1]
    return cell.labels[label], frozenset(cues)


def _shuffled(pool: Pool, key: tuple[str, frozenset[str]], rng: np.random.Generator) -> list[int]:
    """Rows of the pool with a content, in random order, to be taken from the end.

    Edited images are at the end, so that small data sets can be tested.
    """
    edited = {
        name
        for (edited_object, _), table in pool.edits.items()
        if edited_object == key[0]
        for name in table["image_id"].unique().to_pylist()
    }
    rows = pool.buckets[key]
    with_edits = [row for row in rows if image_id(row) in edited]
    rest = [row for row in rows if image_id(row) not in edited]
    return [*map(int, rng.permutation(rest)), *map(int, rng.permutation(with_edits))]


def _table(
    pool: Pool, pool_rows: NDArray[np.int64], labels: list[str], directions: TextDirections
) -> ds.Dataset:
    vectors = pool.embeddings[pool_rows]
    width = vectors.shape[1]
    columns = {
        "image_id": [f"{image_id(int(p))}/{number}" for number, p in enumerate(pool_rows)],
        "label": labels,
        "status": ["ok"] * len(pool_rows),
        EMBEDDING: pa.FixedSizeListArray.from_arrays(vectors.ravel(), width).cast(
            pa.list_(pa.float32())
        ),
    }
    for cue in (*CUES, *DECOYS):
        columns[score_column(cue)] = vectors @ directions.cues[cue]
    return ds.dataset(pa.table(columns))


def edited_pair(pool: Pool, world: World, cls: str, cue: str, rival: str) -> EditedPair | None:
    """The pool's edits of a pair for the images of the data set; None if the pool has none."""
    table = pool.edits.get((world.cell.labels[cls], cue))
    if table is None:
        return None
    names: dict[str, str] = {}
    targets: dict[str, str] = {}
    for number, (pool_row, label) in enumerate(zip(world.pool_rows, world.labels, strict=True)):
        name = image_id(int(pool_row))
        if label == cls:
            names[name] = f"{name}/{number}"
        elif label == rival:
            targets[name] = f"{name}/{number}"
    insertion = pa.array([str(k) for k in (Kind.TARGET, Kind.INSERTED, Kind.INSERTED_OTHER)])
    on_target = pc.is_in(table["kind"], insertion)
    of_class = pc.and_(pc.invert(on_target), pc.is_in(table["image_id"], pa.array(list(names))))
    of_rival = pc.and_(on_target, pc.is_in(table["image_id"], pa.array(list(targets))))
    kept = table.filter(pc.or_(of_class, of_rival))
    renamed = names | targets
    ids = pa.array([renamed[name] for name in kept["image_id"].to_pylist()], pa.string())
    return EditedPair(cls, cue, rival, PairEdits.of(kept.set_column(0, "image_id", ids)))
