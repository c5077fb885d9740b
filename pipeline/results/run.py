"""One run's output: its manifest, its committed parts, and the maps that it keeps."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from numpy.typing import NDArray

from legrad.preprocess import Preprocess
from legrad.queries.query import Query
from pipeline.config import queries_by_label
from pipeline.errors import UsageError
from pipeline.machine import map_in_threads
from pipeline.results.decoding import Maps, decode_columns
from pipeline.results.rows import Rows
from pipeline.results.stored_rows import StoredRows
from pipeline.runs.ledger import missing_parts
from pipeline.runs.manifest import RunFolder, read_manifest, run_folder
from pipeline.runs.parts import (
    PARQUET,
    commit_of,
    committed_parts,
    earlier_commits,
    refuse_foreign_files,
)
from pipeline.schema import (
    METADATA_KEY,
    OWN_LABEL,
    PREDICTED_LABEL,
    STAND_INS,
    map_column,
    peak_column,
    read_metadata,
    schema_in_memory,
)
from pipeline.sources.fetch import Moved, Origin
from pipeline.storage.location import Location, Options, arrow_filesystem

_NO_ROWS = "no committed results yet"


@dataclass(frozen=True, eq=False)
class Run:
    """The opened output of one run.

    Attributes:
        folder: the output folder.
        manifest: the run's identity and metadata.
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
            UsageError: the folder holds no run, or one that a newer version wrote.
        """
        folder = run_folder(uri, options)
        manifest = read_manifest(folder)
        of_source = dict((source_options if source_options is not None else options) or {})
        return cls(folder, manifest, Origin.of(manifest["source"], moved, of_source))

    @cached_property
    def dataset(self) -> ds.FileSystemDataset:
        """The committed parts as one pyarrow dataset."""
        return open_parts(self.folder, self.manifest, self.grid)

    @cached_property
    def rows(self) -> Rows:
        """The committed rows."""
        return StoredRows(self.folder.uri, self.dataset)

    @cached_property
    def queries(self) -> tuple[Query, ...]:
        """The queries, in configuration order."""
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
        read = Preprocess((height, width), values["mode"], values["interpolation"])
        red, green, blue = values.get("fill", read.fill)  # not in early manifests, nor is crop
        return replace(read, fill=(red, green, blue), crop=values.get("crop", 1.0))

    def has(self, query: str) -> bool:
        """Whether maps of this name can be asked for: of a query, or of one of `STAND_INS`."""
        if self._is_stand_in(query):
            decided = self.class_queries if query == OWN_LABEL else self._deciding(query)
            return bool(decided)
        return query in self._numbers

    def map_columns(self, queries: Iterable[str]) -> list[str]:
        """Columns that `decode` needs for some queries."""
        names: list[str] = []
        for query in queries:
            stored = self._stored(query)
            names += [column(name) for name in stored for column in (map_column, peak_column)]
            if stored != [query]:
                names += [n for name in (query, *stored) for n in self._deciding(name)]
        return list(dict.fromkeys(names))

    @cached_property
    def _numbers(self) -> dict[str, int]:
        """Name of a query -> its number."""
        return {query.name: number for number, query in enumerate(self.queries)}

    def _is_stand_in(self, name: str) -> bool:
        """Whether a name stands for another class in each image; a query may be called so, too."""
        return name in STAND_INS and name not in self._numbers

    def _deciding(self, name: str) -> list[str]:
        """Columns that say for which class a name stands in each image; none for a query."""
        if not self._is_stand_in(name):
            return []
        columns = ("label", "labels") if name == OWN_LABEL else (PREDICTED_LABEL,)
        return [column for column in columns if column in self.dataset.schema.names]

    def _stored(self, query: str) -> list[str]:
        """Names of the map columns that hold a query's maps."""
        columns = self.dataset.schema.names
        if map_column(query) in columns:
            return [query]
        classes = self.class_queries.values() if self._is_stand_in(query) else ()
        stand_ins = filter(self._is_stand_in, STAND_INS)
        names = [name for name in (*classes, *stand_ins) if map_column(name) in columns]
        return list(dict.fromkeys(names)) or [query]

    def _queries_in(self, table: pa.Table, name: str) -> NDArray[np.int64]:
        """(n,) number of the query that a name means in each row; -1 for none.

        Of an image with several labels, the first one that has a class query is its own.
        """
        if not self._is_stand_in(name):
            return np.full(table.num_rows, self._numbers.get(name, -1))
        is_own = name == OWN_LABEL
        single = table["label" if is_own else PREDICTED_LABEL].to_pylist()
        has_sets = is_own and "labels" in table.column_names
        sets = table["labels"].to_pylist() if has_sets else [None] * table.num_rows
        every = (
            [label] if several is None else several
            for label, several in zip(single, sets, strict=True)
        )
        numbers = {label: self._numbers[query] for label, query in self.class_queries.items()}
        found = [next((numbers[each] for each in of if each in numbers), -1) for of in every]
        return np.array(found, np.int64)

    def _rows_with(self, table: pa.Table, query: str) -> Iterator[tuple[str, NDArray[np.bool_]]]:
        """Map columns of a query, and the rows (n,) of a table in which they hold its maps."""
        wanted = self._queries_in(table, query)
        for name in self._stored(query):
            yield name, (self._queries_in(table, name) == wanted) & (wanted >= 0)

    def decode(self, table: pa.Table, query: str) -> Maps:
        """(n, h, w) maps of a query from a table with its `map_columns`; NaN where none."""
        if self._stored(query) == [query]:
            return decode_columns(table, query, self.grid)
        maps = np.full((table.num_rows, *self.grid), np.nan, dtype=np.float32)
        for name, rows in self._rows_with(table, query):
            maps[rows] = decode_columns(table.filter(pa.array(rows)), name, self.grid)
        return maps

    def peaks(self, table: pa.Table, query: str) -> NDArray[np.float32]:
        """(n,) maxima of a query's maps from a table with its `map_columns`; NaN where none.

        The columns of the maps themselves are not needed.
        """
        if self._stored(query) == [query]:
            return np.asarray(table[peak_column(query)].to_numpy(), np.float32)
        peaks = np.full(table.num_rows, np.nan, np.float32)
        for name, rows in self._rows_with(table, query):
            peaks[rows] = table[peak_column(name)].to_numpy()[rows]
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
    def class_queries(self) -> dict[str, str]:
        """Label -> name of its class query."""
        return queries_by_label(self.queries)


def open_parts(
    folder: RunFolder, manifest: Mapping[str, Any], grid: tuple[int, int]
) -> ds.FileSystemDataset:
    """All committed parts of a run as one dataset, with their footers read in parallel.

    Its schema is that of `schema_in_memory`.

    Raises:
        UsageError: nothing is committed, a part is missing, broken or of another run, or a file
            beside the parts is of no run.
    """
    refuse_foreign_files(folder)
    parts = committed_parts(folder)
    _refuse_missing(folder, parts)
    if not parts:
        raise UsageError(f"{folder.uri}: {_NO_ROWS}")
    filesystem, parquet = arrow_filesystem(folder.images), ds.ParquetFileFormat()
    fragments = [parquet.make_fragment(part.path, filesystem) for part in parts]
    schemas = list(map_in_threads(_read_footer, fragments))
    _refuse_foreign(folder, manifest, [part.path for part in parts], schemas)
    _refuse_other_rows(folder, sum(fragment.metadata.num_rows for fragment in fragments))
    schema = schema_in_memory(schemas[0], grid)
    return ds.FileSystemDataset(fragments, schema, parquet, filesystem)


def _read_footer(fragment: ds.ParquetFileFragment) -> pa.Schema:
    try:
        fragment.ensure_complete_metadata()
    except pa.ArrowInvalid as error:
        raise UsageError(
            f"{fragment.path}: this part of the results is not a valid Parquet file ({error}). "
            "Restore it, or run the same command again, which removes it and computes its rows."
        ) from error
    except FileNotFoundError as error:
        raise UsageError(
            f"{fragment.path}: deleted since the folder was listed; open the results again"
        ) from error
    return fragment.physical_schema


def _refuse_other_rows(folder: RunFolder, rows: int) -> None:
    """Refuse a complete run with more or fewer rows than it had when it completed."""
    marked = json.loads(folder.complete.read())["rows"] if folder.complete.exists() else rows
    if rows != marked:
        names = missing_parts(folder)
        which = f" (images/{names[0]} is missing)" if names else ""
        raise UsageError(
            f"{folder.uri}: {marked} rows were there when the run finished, {rows} now{which}. "
            "Run the same command again: it computes what is missing and removes what was added."
        )


def _refuse_missing(folder: RunFolder, parts: Sequence[Location]) -> None:
    """Refuse ids without rows, which a lost part of an earlier version leaves."""
    present = {commit_of(part.path.rsplit("/", 1)[-1]) for part in parts}
    lost = {name: path for name, path in earlier_commits(folder).items() if name not in present}
    for name, path in sorted(lost.items()):
        ids = folder.checkpoint.child(path)
        rows = pq.read_metadata(ids.path, filesystem=arrow_filesystem(ids)).num_rows
        if rows:
            raise UsageError(
                f"{folder.uri}: {rows} rows are committed in {name}, but images/{name}-*{PARQUET} "
                f"is missing ({len(lost)} of {len(present) + len(lost)} parts). Restore it."
            )


def _refuse_foreign(
    folder: RunFolder, manifest: Mapping[str, Any], paths: Sequence[str], schemas: list[pa.Schema]
) -> None:
    """Refuse parts whose configuration or columns are not those of the run."""
    digest = manifest["metadata"].get("config_digest")
    checked: set[bytes] = set()
    for path, schema in zip(paths, schemas, strict=True):
        raw = (schema.metadata or {}).get(METADATA_KEY, b"")
        if raw in checked and schema.names == schemas[0].names:
            continue
        checked.add(raw)
        metadata = read_metadata(schema)
        same_run = metadata is not None and metadata.get("config_digest") == digest
        if not same_run or schema.names != schemas[0].names:
            raise UsageError(
                f"{folder.uri}: {path} is not a part of this run (another configuration or another "
                "tool wrote it). Put the run's own file back."
            )
