"""open_results(uri): pandas frames of scores and maps, read when asked for."""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from numpy.typing import NDArray
from PIL import Image

from legrad import heatmaps
from legrad.codec import decode_maps
from legrad.preprocess import Preprocess, to_rgb
from legrad.queries import Query, Role
from pipeline.errors import UsageError
from pipeline.manifest import RunFolder, read_manifest, run_folder
from pipeline.output.parts import arrow_filesystem, committed_parts
from pipeline.schema import EMBEDDING, OWN_LABEL, map_column, peak_column, score_column
from pipeline.sources.fetch import Moved, Origin
from pipeline.storage import Options

Maps = NDArray[np.float32]


def open_results(
    uri: str,
    storage_options: Options | None = None,
    *,
    source: Moved = None,
    source_options: Options | None = None,
) -> "Results":
    """Open a run's output, finished or still growing (committed parts only).

    Args:
        uri: the run's output folder, local or any fsspec URI.
        storage_options: of the output.
        source: where the images are now, if they moved since; by alias where they have several.
        source_options: storage options of the source; default those of the output.

    Raises:
        UsageError: no run there, or a newer version wrote it.
    """
    folder = run_folder(uri, storage_options)
    manifest = read_manifest(folder)
    options = source_options if source_options is not None else storage_options
    return Results(folder, manifest, Origin.of(manifest["source"], source, dict(options or {})))


@dataclass(frozen=True)
class Results:
    """The results of one run.

    Every row is an image; its ``status`` says whether it has scores and maps. Maps are raw: h x w
    float32, non-negative, comparable within a query; see `legrad.heatmaps` to show them.
    """

    folder: RunFolder
    run: dict[str, Any]
    origin: Origin

    def __repr__(self) -> str:
        return f"Results({self.folder.uri!r}: {len(self)} images, {len(self.queries)} queries)"

    def __len__(self) -> int:
        return int(self.dataset.count_rows())

    @cached_property
    def dataset(self) -> ds.Dataset:
        """The committed parts as a pyarrow dataset."""
        parts = [part.path for part in committed_parts(self.folder)]
        filesystem = arrow_filesystem(self.folder.images)
        if not parts:
            raise UsageError(f"{self.folder.uri}: no committed results yet")
        return ds.dataset(parts, filesystem=filesystem, format="parquet")

    @cached_property
    def queries(self) -> tuple[Query, ...]:
        """The run's queries, in its order."""
        return tuple(Query.model_validate(q) for q in self.run["metadata"]["queries"])

    @property
    def grid(self) -> tuple[int, int]:
        """(h, w) of every map."""
        h, w = self.run["metadata"]["grid"]
        return int(h), int(w)

    def images(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """One row an image, by image_id: where it lies, label, size, status, carried columns.

        Args:
            columns: only these; default all but scores, maps and embeddings.

        Raises:
            KeyError: no such column.
        """
        known = self.dataset.schema.names
        if columns is None:
            hidden = ("score__", "heatmap", EMBEDDING)
            columns = [name for name in known if not name.startswith(hidden)]
        missing = [name for name in columns if name not in known]
        if missing:
            raise KeyError(f"no column {missing[0]!r} in {self.folder.uri}")
        names = list(dict.fromkeys(["image_id", *columns]))
        frame: pd.DataFrame = self.dataset.to_table(columns=names).to_pandas()
        return frame.set_index("image_id")

    def scores(self, queries: Sequence[str] | None = None) -> pd.DataFrame:
        """Cosines, one row an image (by image_id), one float32 column a query; NaN for failures."""
        names = [query.name for query in self.queries] if queries is None else list(queries)
        self._require(names)
        columns = {"image_id": ds.field("image_id")}
        columns |= {name: ds.field(score_column(name)) for name in names}
        frame: pd.DataFrame = self.dataset.to_table(columns=columns).to_pandas()
        return frame.set_index("image_id")

    def maps(
        self, query: str, image_ids: Sequence[str] | None = None
    ) -> tuple[NDArray[np.object_], Maps]:
        """Raw maps of one query.

        Args:
            query: its name, or ``own_label`` for the class of each image's own label.
            image_ids: which images, in this order; default all, in the order of the files.

        Returns:
            ids (n,) and maps (n, h, w) float32; NaN where an image has no map: it failed, or
            `store.maps` left it out. Padding is 0, see `Preprocess.cells`.

        Raises:
            KeyError: no such query, or no such image.
        """
        self._require([query], OWN_LABEL)
        wanted = (
            None
            if image_ids is None
            else ds.field("image_id").isin(pa.array(list(image_ids), pa.string()))
        )
        table = self.dataset.to_table(columns=self._map_columns([query]), filter=wanted)
        ids = table["image_id"].to_numpy()
        found = self.decode(table, query)
        if image_ids is None:
            return ids, found
        places = {image_id: i for i, image_id in enumerate(ids)}
        missing = [image_id for image_id in image_ids if image_id not in places]
        if missing:
            raise KeyError(f"no image {missing[0]!r} in {self.folder.uri} ({len(missing)} missing)")
        order = [places[image_id] for image_id in image_ids]
        return ids[order], found[order]

    def batches(self, queries: Sequence[str], columns: Sequence[str] = ()) -> Iterator[pa.Table]:
        """Tables of some columns with scores and maps of some queries, a few thousand rows each.

        Maps are for `decode`, which knows where they are stored; ``own_label`` is a query here.
        """
        self._require(queries, OWN_LABEL)
        scores = [score_column(name) for name in queries if name != OWN_LABEL]
        unique = list(dict.fromkeys([*self._map_columns(queries), *columns, *scores]))
        for batch in self.dataset.to_batches(columns=unique, batch_size=4096):
            if batch.num_rows:
                yield pa.Table.from_batches([batch])

    def decode(self, table: pa.Table, query: str) -> Maps:
        """(n, h, w) maps of one query, or of ``own_label``, from a table of `batches`.

        NaN where an image has none.
        """
        if map_column(query) in table.column_names:
            return decode_columns(table, query, self.grid)
        labels = table["label"].to_pylist()
        if query != OWN_LABEL:  # the class's map is stored for the images that it is the own one of
            maps = decode_columns(table, OWN_LABEL, self.grid)
            maps[[self._own.get(label) != query for label in labels]] = np.nan
            return maps
        maps = np.full((table.num_rows, *self.grid), np.nan, dtype=np.float32)
        for name in set(self._own.values()):
            rows = [self._own.get(label) == name for label in labels]
            maps[rows] = decode_columns(table, name, self.grid)[rows]
        return maps

    def shown(self, table: pa.Table) -> NDArray[np.bool_]:
        """(n, h, w) cells that show the image and not padding, from columns width and height."""
        cells = np.zeros((table.num_rows, *self.grid), dtype=bool)
        sizes = zip(table["width"].to_pylist(), table["height"].to_pylist(), strict=True)
        for mask, (width, height) in zip(cells, sizes, strict=True):
            if width and height:
                mask[self.preprocess.cells(width, height, self.grid)] = True
        return cells

    def _map_columns(self, queries: Sequence[str]) -> list[str]:
        """Columns that `decode` needs."""
        known = self.dataset.schema.names
        names = ["image_id", "label"]
        for query in queries:
            stored = [query]
            if map_column(query) not in known:
                stored = list(self._own.values()) if query == OWN_LABEL else [OWN_LABEL]
            names += [column(name) for name in stored for column in (map_column, peak_column)]
        return names

    @cached_property
    def _own(self) -> dict[str, str]:
        """Label -> name of its class query, the first one."""
        named = [(q.label, q.name) for q in self.queries if q.role is Role.CLASS and q.label]
        return dict(reversed(named))

    def image(self, image_id: str) -> Image.Image:
        """The upright RGB original, fetched again from its shard.

        Raises:
            KeyError: no such image.  UsageError: the shard is gone.
        """
        return self._original(self._row(image_id))

    def overlay(self, image_id: str, query: str, *, peak: float | None = None) -> Image.Image:
        """The original with a query's heat over it.

        Args:
            peak: the heat shown at full strength; default the map's own maximum.

        Raises:
            KeyError: no such image or query.
            UsageError: the image has no map (its status says why, or `store.maps` left it out), or
                its shard is gone.
        """
        row = self._row(image_id)
        if row["status"] != "ok":
            raise UsageError(f"{image_id}: no map, its status is {row['status']}: {row['error']}")
        _, maps = self.maps(query, [image_id])
        if np.isnan(maps).any():
            raise UsageError(f"{image_id}: no map of {query}, the run kept others (store.maps)")
        original = self._original(row)
        return heatmaps.overlay(
            original, maps[0], peak=peak, box=self.preprocess.box(*original.size)
        )

    @property
    def preprocess(self) -> Preprocess:
        """How images were brought to the model's input; its `box` places maps on originals."""
        values = self.run["metadata"]["preprocess"]
        height, width = values["size"]
        known = {"fill": tuple(values["fill"])} if "fill" in values else {}
        return Preprocess((height, width), values["mode"], values["interpolation"], **known)

    def _row(self, image_id: str) -> dict[str, Any]:
        columns = ["image_id", "shard", "key", "source_offset", "source_length", "sha256"]
        columns += ["row_group", "row", "status", "error"]
        table = self.dataset.to_table(columns=columns, filter=ds.field("image_id") == image_id)
        if not table.num_rows:
            raise KeyError(f"no image {image_id!r} in {self.folder.uri}")
        row: dict[str, Any] = table.to_pylist()[0]
        return row

    def _original(self, row: dict[str, Any]) -> Image.Image:
        with Image.open(io.BytesIO(self.origin.fetch(row))) as image:
            return to_rgb(image)

    def _require(self, names: Sequence[str], *more: str) -> None:
        known = [query.name for query in self.queries]
        for name in names:
            if name not in known and name not in more:
                raise KeyError(f"no query {name!r} in {self.folder.uri}; it has {', '.join(known)}")


def decode_columns(table: pa.Table, query: str, grid: tuple[int, int]) -> Maps:
    """(n, h, w) float32 maps of one query from a table's columns; NaN where null."""
    stored = table[map_column(query)].combine_chunks()
    if isinstance(stored, pa.ChunkedArray):
        stored = pa.concat_arrays(stored.chunks) if stored.num_chunks else pa.array([], stored.type)
    there = pc.is_valid(stored).to_numpy(zero_copy_only=False)
    size = grid[0] * grid[1]
    _, data = stored.buffers()
    raw = np.frombuffer(data or b"", dtype=np.uint8)
    cells = raw[stored.offset * size : (stored.offset + len(stored)) * size]
    peaks = table[peak_column(query)].to_numpy().astype(np.float32)
    maps = decode_maps(cells.reshape(-1, *grid), np.where(there, peaks, 0).astype(np.float32))
    maps[~there] = np.nan
    return maps
