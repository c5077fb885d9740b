"""One run's output: what it is, which maps it keeps, where its images came from."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
from numpy.typing import NDArray

from legrad.preprocess import Preprocess
from legrad.queries.query import Query, Role
from pipeline.results.dataset import open_parts
from pipeline.results.map_columns import Maps, decode_columns
from pipeline.results.stored import StoredRows
from pipeline.runs.manifest import RunFolder, read_manifest, run_folder
from pipeline.schema import OWN_LABEL, map_column, peak_column
from pipeline.sources.fetch import Moved, Origin
from pipeline.storage.location import Options


@dataclass(frozen=True, eq=False)
class Run:
    """A run's output, opened.

    Attributes:
        folder: where it lies.
        manifest: what it is.
        origin: where its images came from.
    """

    folder: RunFolder
    manifest: Mapping[str, Any]
    origin: Origin

    @classmethod
    def open(
        cls, uri: str, options: Options | None, moved: Moved, source_options: Options | None
    ) -> "Run":
        """Read the manifest.

        Raises:
            UsageError: no run there, or a newer version wrote it.
        """
        folder = run_folder(uri, options)
        manifest = read_manifest(folder)
        own = dict((source_options if source_options is not None else options) or {})
        return cls(folder, manifest, Origin.of(manifest["source"], moved, own))

    @cached_property
    def dataset(self) -> ds.FileSystemDataset:
        """The committed parts."""
        return open_parts(self.folder, self.manifest)

    @cached_property
    def rows(self) -> StoredRows:
        """Its rows."""
        return StoredRows(self.folder.uri, self.dataset)

    @cached_property
    def queries(self) -> tuple[Query, ...]:
        """In the order of the run."""
        return tuple(Query.model_validate(q) for q in self.manifest["metadata"]["queries"])

    @property
    def grid(self) -> tuple[int, int]:
        """(h, w) of every map."""
        h, w = self.manifest["metadata"]["grid"]
        return int(h), int(w)

    @property
    def preprocess(self) -> Preprocess:
        """How images were brought to the model's input."""
        values = self.manifest["metadata"]["preprocess"]
        height, width = values["size"]
        known = {"fill": tuple(values["fill"])} if "fill" in values else {}
        return Preprocess((height, width), values["mode"], values["interpolation"], **known)

    def has(self, query: str) -> bool:
        """Whether it has maps under this name, ``own_label`` included."""
        known = [q.name for q in self.queries]
        return query in known or (query == OWN_LABEL and bool(self.own))

    def map_columns(self, queries: Iterable[str]) -> list[str]:
        """Columns that `decode` needs."""
        names = []
        for query in queries:
            names += [f(name) for name in self._stored(query) for f in (map_column, peak_column)]
            if self._stored(query) != [query]:
                names.append("label")
        return list(dict.fromkeys(names))

    def _stored(self, query: str) -> list[str]:
        """Names whose columns hold a query's maps."""
        if map_column(query) in self.dataset.schema.names:
            return [query]
        return list(dict.fromkeys(self.own.values())) if query == OWN_LABEL else [OWN_LABEL]

    def decode(self, table: pa.Table, query: str) -> Maps:
        """(n, h, w) maps of a query from a table with its `map_columns`; NaN for none."""
        if map_column(query) in table.column_names:
            return decode_columns(table, query, self.grid)
        labels = table["label"].to_pylist()
        if query != OWN_LABEL:  # the class's map is stored for the images that it is the own one of
            maps = decode_columns(table, OWN_LABEL, self.grid)
            maps[[self.own.get(label) != query for label in labels]] = np.nan
            return maps
        maps = np.full((table.num_rows, *self.grid), np.nan, dtype=np.float32)
        for name in set(self.own.values()):
            rows = [self.own.get(label) == name for label in labels]
            maps[rows] = decode_columns(table, name, self.grid)[rows]
        return maps

    def peaks(self, table: pa.Table, query: str) -> NDArray[np.float32]:
        """(n,) maxima of a query's maps, from the same columns but the maps; NaN for none."""
        column = peak_column(query)
        if column in table.column_names:
            return np.asarray(table[column].to_numpy(), np.float32)
        peaks = np.array(table[peak_column(OWN_LABEL)].to_numpy(), np.float32)
        peaks[[self.own.get(label) != query for label in table["label"].to_pylist()]] = np.nan
        return peaks

    def shown(self, table: pa.Table) -> NDArray[np.bool_]:
        """(n, h, w) cells that show the image and not padding, from columns width and height."""
        cells = np.zeros((table.num_rows, *self.grid), dtype=bool)
        sizes = [table[name].to_numpy().astype(np.float64) for name in ("width", "height")]
        unique, which = np.unique(np.nan_to_num(sizes), axis=1, return_inverse=True)
        for number, (width, height) in enumerate(unique.T.astype(int)):
            mask = np.zeros(self.grid, dtype=bool)
            if width and height:
                mask[self.preprocess.cells(int(width), int(height), self.grid)] = True
            cells[which.reshape(-1) == number] = mask
        return cells

    @cached_property
    def own(self) -> dict[str, str]:
        """Label -> name of its class query, the first one."""
        named = [(q.label, q.name) for q in self.queries if q.role is Role.CLASS and q.label]
        return dict(reversed(named))


def agreeing(runs: Sequence[Run]) -> str | None:
    """Why some runs cannot be read as one, or None: a name must mean one thing."""
    meaning: dict[str, tuple[object, Run]] = {}
    for run in runs:
        about = run.manifest["metadata"].get("model", {})
        model = (about.get("weights_sha256"), about.get("layers"), run.grid)
        names: dict[str, object] = {query.name: (query, model) for query in run.queries}
        if map_column(OWN_LABEL) in run.dataset.schema.names:
            names[OWN_LABEL] = object()  # equal to nothing: of the first run or the second?
        for name, meant in names.items():
            before = meaning.setdefault(name, (meant, run))
            if before[0] != meant:
                return (
                    f"{name!r} is in {before[1].folder.uri} and in {run.folder.uri}, and does not "
                    "mean the same (texts, model or layers differ). Open them apart"
                )
    return None
