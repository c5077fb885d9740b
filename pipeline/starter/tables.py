"""The labels in Parquet files, read from their label columns alone."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pyarrow.parquet as pq

from pipeline.config import SourceConfig
from pipeline.config.loading import validated
from pipeline.errors import UsageError
from pipeline.machine import map_in_threads
from pipeline.sources.columns import Columns, pylist
from pipeline.sources.hugging_face import class_names
from pipeline.sources.label_values import each_label, label_in, labels_of
from pipeline.sources.labels import class_name
from pipeline.sources.listing import SourceFile
from pipeline.sources.parquet_file import columns_of, is_broken, open_parquet
from pipeline.storage.location import Location, open_location

_MOST_FILES = 256
_MOST_GROUPS = 16  # row groups of a file
_NAMED = 3


@dataclass
class TableLabels:
    """What the label columns of some Parquet files say.

    Attributes:
        labels: number of rows of each label.
        rows, unlabelled: rows that were read, and those without a label.
        columns: names of the columns of the last file.
        notes: what the user should know.
    """

    labels: Counter[str] = field(default_factory=Counter)
    rows: int = 0
    unlabelled: int = 0
    columns: Sequence[str] = ()
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _FileLabels:
    """What one file says; ``error`` says why it cannot be read."""

    name: str
    labels: Counter[str] = field(default_factory=Counter)
    rows: int = 0
    unlabelled: int = 0
    schema: Sequence[str] = ()
    columns: Columns | None = None
    error: str | None = None


def spread(files: Sequence[SourceFile], most: int) -> list[SourceFile]:
    """At most so many files, from the whole range, because files may be sorted by class."""
    if len(files) <= most:
        return list(files)
    return [files[number * (len(files) - 1) // (most - 1)] for number in range(most)]


def holds_images(
    uris: Sequence[str], files: Sequence[SourceFile], chosen: Mapping[str, Any]
) -> bool:
    """Whether the first table that can be read holds images; others describe files beside them."""
    source = _source(uris, chosen)
    for file in files:
        try:
            return not isinstance(_read(source, file).error, str)
        except UsageError:
            return False
    return False


def read_labels(
    uris: Sequence[str], files: Sequence[SourceFile], chosen: Mapping[str, Any]
) -> TableLabels:
    """Read the label columns of all files, or of some of the whole range where there are many.

    Raises:
        UsageError: no file can be read, or a file has no images.
    """
    source = _source(uris, chosen)
    some = spread(files, _MOST_FILES)
    read = list(map_in_threads(partial(_read, source), some))
    good = [file for file in read if file.error is None]
    if not good:
        raise UsageError(f"{read[0].name}: {read[0].error} ({len(read):,} files, none readable)")
    result = TableLabels(columns=good[-1].schema)
    for file in good:
        result.labels.update(file.labels)
        result.rows += file.rows
        result.unlabelled += file.unlabelled
    result.notes += _notes(read, good, len(files), result)
    return result


def _source(uris: Sequence[str], chosen: Mapping[str, Any]) -> SourceConfig:
    settings = {"format": "parquet", "uri": list(uris), **chosen}
    return validated(SourceConfig, settings, "init")


def _read(source: SourceConfig, file: SourceFile) -> _FileLabels:
    try:
        with open_parquet(Location(open_location(source.uris[0]).fs, file.path)) as table:
            return _labels(table, source, file.name)
    except Exception as error:
        if not is_broken(error):
            raise
        return _FileLabels(file.name, error=f"not a whole Parquet file: {error}")


def _labels(table: pq.ParquetFile, source: SourceConfig, name: str) -> _FileLabels:
    schema, rows = table.schema_arrow, 0
    columns = columns_of(table, source, name)
    words = class_names(schema, columns.label) if columns.label else None
    labels: Counter[str] = Counter()
    unlabelled = 0
    count = table.num_row_groups
    groups = sorted({i * count // _MOST_GROUPS for i in range(_MOST_GROUPS)}) if count else []
    if not columns.have_label:
        return _FileLabels(name, labels, table.metadata.num_rows, table.metadata.num_rows,
                           schema.names, columns)  # fmt: skip
    for batch in table.iter_batches(row_groups=groups, columns=columns.identifying):
        own = pylist(batch) if batch.num_columns else ({} for _ in range(batch.num_rows))
        for values in own:
            label = label_in({**columns.folders, **values}, source, columns.label)
            label = each_label(label, partial(class_name, names=words)) if words else label
            labels.update(labels_of(label))
            unlabelled += label is None
            rows += 1
    return _FileLabels(name, labels, rows, unlabelled, schema.names, columns)


def _notes(
    read: Sequence[_FileLabels], good: Sequence[_FileLabels], total: int, result: TableLabels
) -> list[str]:
    notes = []
    columns = good[-1].columns
    if columns is not None:
        label = ", ".join(columns.label_columns) or columns.label
        notes.append(f"images are in column {columns.image!r}, labels in {label or 'none'!r}")
    broken = [f"{file.name}: {file.error}" for file in read if file.error is not None]
    if broken:
        notes.append(f"broken files, each gives a row with a status: {_first(broken)}")
    empty = [file.name for file in good if not file.rows]
    if empty:
        notes.append(f"files without rows: {_first(empty)}")
    if len(read) < total:
        notes.append(f"labels are those of {result.rows:,} rows in {len(read)} of {total:,} files")
    return notes


def _first(texts: Sequence[str]) -> str:
    rest = len(texts) - _NAMED
    return "; ".join(texts[:_NAMED]) + (f" and {rest:,} more" if rest > 0 else "")
