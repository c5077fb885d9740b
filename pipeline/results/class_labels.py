"""Labels from a table in place of those that a run stored, without running again."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from pipeline.config import LabelsConfig
from pipeline.errors import UsageError
from pipeline.results import sql
from pipeline.results.rows import ID, Positions, Rows, Where, explained, named_columns
from pipeline.results.run import Run
from pipeline.results.stored_rows import StoredRows
from pipeline.results.streamed import StreamedDataset, in_batches
from pipeline.schema import OWN_LABEL, map_column, peak_column
from pipeline.sources.label_tables import parse_labels
from pipeline.sources.label_values import LabelValue, label_columns, label_value, labels_of
from pipeline.sources.labels import names_in_tables
from pipeline.storage.location import Options, open_location, redact

_OF_IMAGE = (ID, "key", "label", "labels")
_OWN = (map_column(OWN_LABEL), peak_column(OWN_LABEL))
_CHANGED = frozenset(("label", "labels", *_OWN))
"""Columns that other labels change."""
_LABELS = pa.list_(pa.string())


@dataclass(frozen=True, eq=False)
class ClassLabels:
    """Labels of images by what a table calls them.

    Attributes:
        labels: label by name of the image.
        prefix: the alias of the data set and a slash, with which image ids begin; or empty.
        class_queries: label -> name of its class query.
    """

    labels: Mapping[str, LabelValue]
    prefix: str
    class_queries: Mapping[str, str]

    def schema(self, stored: pa.Schema) -> pa.Schema:
        """The schema of relabelled rows: that of the stored ones, with a column ``labels``."""
        has_sets = "labels" in stored.names
        return stored if has_sets else stored.append(pa.field("labels", _LABELS))

    def needed(self, columns: Sequence[str], stored: pa.Schema) -> list[str]:
        """The stored columns that `apply` needs for some columns."""
        of_image = [name for name in _OF_IMAGE if name in stored.names]
        wanted = [name for name in columns if name in stored.names]
        return list(dict.fromkeys([*wanted, *of_image]))

    def apply(self, table: pa.Table) -> pa.Table:
        """Rows with the labels of the table; an image that it does not name has none.

        The map of an image's own label becomes null where another class query now stands for it.
        """
        stored = _values(table)
        values = [
            self._find(image_id, key)
            for image_id, key in zip(*(table[n].to_pylist() for n in (ID, "key")), strict=True)
        ]
        rows = [label_columns(value) for value in values]
        changed = [self._query(a) != self._query(b) for a, b in zip(values, stored, strict=True)]
        for name in table.column_names:
            if name in _OWN:
                column = table[name]
                null = pa.scalar(None, column.type)
                masked = pc.if_else(pa.array(changed, pa.bool_()), null, column)
                table = table.set_column(table.column_names.index(name), name, masked)
        table = table.drop_columns([n for n in ("label", "labels") if n in table.column_names])
        table = table.append_column("label", pa.array([r["label"] for r in rows], pa.string()))
        return table.append_column("labels", pa.array([r["labels"] for r in rows], _LABELS))

    def matches(self, table: pa.Table) -> bool:
        """Whether any image of a table with its identity has a label."""
        pairs = zip(table[ID].to_pylist(), table["key"].to_pylist(), strict=True)
        return any(self._find(image_id, key) is not None for image_id, key in pairs)

    def _find(self, image_id: str | None, key: str | None) -> LabelValue:
        if image_id is None:
            return None
        names = [image_id, *names_in_tables(image_id.removeprefix(self.prefix), key or "")]
        values = (self.labels.get(name) for name in names)
        return next((value for value in values if value is not None), None)

    def _query(self, value: LabelValue) -> str | None:
        queries = (self.class_queries.get(name) for name in labels_of(value))
        return next((query for query in queries if query is not None), None)


def _values(table: pa.Table) -> list[LabelValue]:
    """The stored label, or set of labels, of each row."""
    single: list[LabelValue] = table["label"].to_pylist()
    if "labels" not in table.column_names:
        return single
    sets = table["labels"].to_pylist()
    return [label if several is None else tuple(several)
            for label, several in zip(single, sets, strict=True)]  # fmt: skip


class RelabelledDataset(StreamedDataset):
    """The committed parts of a run as a dataset, with other labels.

    Args:
        stored: the parts.
        labels: the labels.
    """

    def __init__(self, stored: ds.FileSystemDataset, labels: ClassLabels) -> None:
        self._stored = stored
        self._labels = labels
        self.schema = labels.schema(stored.schema)

    def scanner(
        self,
        columns: Sequence[str] | Mapping[str, pc.Expression] | None = None,
        filter: pc.Expression | None = None,
        **options: Any,
    ) -> ds.Scanner:
        """See `pyarrow.dataset.Dataset.scanner`."""
        if not _CHANGED & set(self.needed(columns, filter)):
            return self._stored.scanner(columns=columns, filter=filter, **options)
        return super().scanner(columns, filter, **options)

    def stream(self, names: Sequence[str], rows: int | None) -> Iterator[pa.RecordBatch]:
        """Some columns in batches; see `StreamedDataset`."""
        if not _CHANGED & set(names):
            yield from in_batches(self._stored, names, rows)
            return
        needed = self._labels.needed(names, self._stored.schema)
        for batch in in_batches(self._stored, needed, rows):
            table = self._labels.apply(pa.Table.from_batches([batch]))
            yield from table.select(list(names)).to_batches()


class RelabelledRows(Rows):
    """The committed rows of a run, with other labels.

    Args:
        stored: the rows.
        labels: the labels.
    """

    def __init__(self, stored: StoredRows, labels: ClassLabels) -> None:
        self.name = stored.name
        self.schema = labels.schema(stored.schema)
        self._stored = stored
        self._labels = labels

    def __len__(self) -> int:
        return len(self._stored)

    def table(self, columns: Sequence[str], where: Where = None) -> pa.Table:
        """Some columns of the rows that match, in the order of the files."""
        self.require(columns)
        if where is None:
            return self._relabelled(self._stored.table(self._needed(columns)), columns)
        return self.take(self._matching(where), columns)

    def select(self, ids: Sequence[str], columns: Sequence[str]) -> pa.Table:
        """Some columns of the rows with these ids, in their order; null where no row has the id."""
        self.require(columns)
        return self._relabelled(self._stored.select(ids, self._needed(columns)), columns)

    def batches(self, columns: Sequence[str], where: Where, rows: int) -> Iterator[pa.Table]:
        """The content of `table` in batches of at most ``rows`` rows, in bounded memory."""
        self.require(columns)
        if where is None:
            for table in self._stored.batches(self._needed(columns), None, rows):
                yield self._relabelled(table, columns)
            return
        positions = self._matching(where)
        for start in range(0, len(positions), rows):
            yield self.take(positions[start : start + rows], columns)

    def register(self, connection: duckdb.DuckDBPyConnection, view: str) -> None:
        """Make the rows a view of a DuckDB connection."""
        rows, labels = f"{view}_stored", f"{view}_labels"
        self._stored.register(connection, rows)
        connection.register(labels, self._by_id)
        columns = []
        for name in self.schema.names:
            column = sql.quoted(name)
            if name in _OWN:
                text = f"case when {labels}.kept then {rows}.{column} end as {column}"
            else:
                text = f"{labels if name in ('label', 'labels') else rows}.{column}"
            columns.append(text)
        source = f"{rows} left join {labels} on {rows}.{ID} = {labels}.{ID}"
        sql.create_view(connection, view, ", ".join(columns), source)

    @cached_property
    def _by_id(self) -> pa.Table:
        """The labels by image id, and whether the map of the image's own label is kept."""
        table = self._stored.table(self._needed([]))
        kept = pa.array(np.ones(len(table), np.float32))
        named = self._labels.apply(table.append_column(_OWN[1], kept))
        return named.select([ID, "label", "labels"]).append_column(
            "kept", named[_OWN[1]].is_valid()
        )

    def _matching(self, where: Where) -> Positions:
        with explained(where, self.schema.names):
            if isinstance(where, str):
                with sql.connect() as connection:
                    self.register(connection, sql.VIEW)
                    ids = sql.matching(connection, ID, sql.VIEW, where)[ID]
            else:
                names = named_columns(where, self.schema)
                ids = self.table(list(dict.fromkeys([ID, *names]))).filter(where)[ID]
        return np.sort(self._stored.find(ids.to_pylist()))

    def take(self, positions: Positions, columns: Sequence[str]) -> pa.Table:
        """Some columns of the rows at these positions, in this order; null where one is -1."""
        return self._relabelled(self._stored.take(positions, self._needed(columns)), columns)

    def _needed(self, columns: Sequence[str]) -> list[str]:
        return self._labels.needed(columns, self._stored.schema)

    def _relabelled(self, table: pa.Table, columns: Sequence[str]) -> pa.Table:
        return self._labels.apply(table).select(list(columns))


@dataclass(frozen=True, eq=False)
class RelabelledRun(Run):
    """A run whose images have the labels of a table.

    Attributes:
        class_labels: the labels.
        stored: the committed parts.
    """

    class_labels: ClassLabels

    stored: ds.FileSystemDataset

    @cached_property
    def dataset(self) -> Any:
        """The committed parts with these labels; reads as a pyarrow dataset does."""
        return RelabelledDataset(self.stored, self.class_labels)

    @cached_property
    def rows(self) -> Rows:
        """The committed rows with these labels."""
        return RelabelledRows(StoredRows(self.folder.uri, self.stored), self.class_labels)


def relabelled(run: Run, uri: str, options: Options | None) -> RelabelledRun:
    """A run with the labels of a table, a file as ``source.labels`` takes.

    Raises:
        UsageError: the table cannot be read, or names none of the images.
    """
    table = parse_labels(open_location(uri, options).read(), LabelsConfig(uri=uri))
    values = zip(table.keys.to_pylist(), table.labels.to_pylist(), strict=True)
    by_name = {str(key): label_value(value, table.separator) for key, value in values}
    alias = run.manifest["source"].get("alias")
    labels = ClassLabels(by_name, f"{alias}/" if alias else "", run.class_queries)
    images = run.dataset.to_table(columns=[ID, "key"])
    if not labels.matches(images):
        keys = ", ".join(map(repr, list(by_name)[:3]))
        raise UsageError(
            f"{redact(uri)} names none of the {len(images):,} images of {run.folder.uri}: it names "
            f"{keys}; expected ids such as {images[ID][0].as_py()!r} or keys such as "
            f"{images['key'][0].as_py()!r}"
        )
    return RelabelledRun(run.folder, run.manifest, run.origin, labels, run.dataset)
