"""Stored maps of every class on a sample of its own images, scaled so that they can be compared."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.audit.class_maps import MapSample, stored_maps
from pipeline.audit.scores import Population, Readable, batches, embeddings
from pipeline.audit.split import confirming
from pipeline.schema import EMBEDDING, map_column, peak_column

IMAGES, TOTAL = 800, 40_000
"""Images of each class whose maps are compared, and of all classes, on both halves together."""
FEWEST_CLASSES = 4
"""With fewer classes, nothing says which departure is usual."""
_COLUMNS_AT_ONCE = 8


@dataclass(frozen=True)
class SampledMaps:
    """Maps of the class on some images of every class.

    Attributes:
        heat: (n, h, w) scaled to a mean of 1.
        codes: (n,) class.
        again: (n,) whether an image is of the half on which places are tested.
        ids: (n,) image ids.
        vectors: (n, E) embeddings.
    """

    heat: NDArray[np.float32]
    codes: NDArray[np.int64]
    again: NDArray[np.bool_]
    ids: NDArray[np.object_]
    vectors: NDArray[np.float32]

    @classmethod
    def read(
        cls,
        results: Readable,
        population: Population,
        class_maps: Mapping[int, str],
        grid: tuple[int, int],
    ) -> "SampledMaps | None":
        """Read the maps of a sample; None if there are none of `FEWEST_CLASSES`.

        Args:
            class_maps: code of a class -> name of its maps, see `pipeline.audit.names.class_maps`.
            grid: (h, w) of the maps.
        """
        audited = {c: name for c, name in class_maps.items() if c < population.audited}
        names = sorted(set(audited.values()))
        if len(audited) < FEWEST_CLASSES:
            return None
        parts: list[SampledMaps] = []
        for start in range(0, len(names), _COLUMNS_AT_ONCE):
            group = names[start : start + _COLUMNS_AT_ONCE]
            mine = {code: name for code, name in audited.items() if name in group}
            parts += cls._of_group(results, population, mine, grid)
        return cls._joined(parts)

    @classmethod
    def _of_group(
        cls,
        results: Readable,
        population: Population,
        class_maps: Mapping[int, str],
        grid: tuple[int, int],
    ) -> "Iterator[SampledMaps]":
        sample = MapSample.of(population, IMAGES, TOTAL)
        names = tuple(dict.fromkeys(class_maps.values()))
        stored = [column(name) for name in names for column in (map_column, peak_column)]
        codes = []
        for batch in batches(results, population, [], ["image_id", EMBEDDING, *stored]):
            rows = np.flatnonzero(np.isin(batch.codes, list(class_maps)))
            table = batch.table.take(pa.array(rows))
            codes.append(sample.take(names, table, batch.codes[rows]))
        if names not in sample.tables:
            return
        table, code = pa.concat_tables(sample.tables[names]), np.concatenate(codes)
        for name in names:
            classes = [c for c, other in class_maps.items() if other == name]
            rows = np.flatnonzero(np.isin(code, classes))
            part = table.take(pa.array(rows))
            cells, peaks = stored_maps(part, name)
            heat = cells.astype(np.float32)
            mean = heat.mean(axis=1, keepdims=True)
            kept = np.isfinite(peaks) & (mean[:, 0] > 0)
            ids = part["image_id"].to_pylist()
            yield cls(
                (heat[kept] / mean[kept]).reshape(-1, *grid),
                code[rows][kept],
                confirming(ids)[kept],
                np.array(ids, object)[kept],
                embeddings(part)[kept],
            )

    @classmethod
    def _joined(cls, parts: "Sequence[SampledMaps]") -> "SampledMaps | None":
        names = ("heat", "codes", "again", "ids", "vectors")
        if not parts:
            return None
        joined = [np.concatenate([getattr(part, name) for part in parts]) for name in names]
        return cls(*joined)
