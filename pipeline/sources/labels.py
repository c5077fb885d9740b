"""Labels of images from a table beside the images, and names for integer labels."""

import hashlib
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config import LabelsConfig, SourceConfig
from pipeline.errors import UsageError
from pipeline.sources.input_rows import Row, text_of
from pipeline.storage.location import Options, open_location, redact
from pipeline.storage.tables import parse_columns

_NO_LABEL = -1
_TABLES: dict[str, "LabelTable"] = {}


@dataclass(frozen=True)
class LabelTable:
    """Labels by key, as two columns of Arrow text, which hold millions in little memory.

    Attributes:
        keys: keys, sorted.
        labels: label of each key.
        digest: SHA-256 (hex) of the file.
    """

    keys: pa.Array
    labels: pa.Array
    digest: str

    def find(self, key: str) -> str | None:
        """The label of a key, or None."""
        rows = range(len(self.keys))
        row = bisect_left(rows, key, key=lambda row: str(self.keys[row].as_py()))
        if row == len(rows) or self.keys[row].as_py() != key:
            return None
        return text_of(self.labels[row].as_py())


@dataclass(frozen=True)
class Labeller:
    """Determines the labels of rows from the source, a table of labels and the class names."""

    source: SourceConfig

    def label(self, image_id: str, key: str, source_label: str | None) -> str | None:
        """The label of one image.

        Args:
            image_id: id of the image.
            key: key of the image within its file.
            source_label: its label in the source, which a table of labels replaces.
        """
        label = source_label
        table = label_table(self.source)
        if table is not None:
            label = table.find(image_id.removeprefix(self.source.id_prefix)) or table.find(key)
        names = self.source.label_names
        return label if label is None or names is None else class_name(label, names)

    def __call__(self, row: Row) -> Row:
        """Replace the label of a row."""
        row["label"] = self.label(row["image_id"], row["key"], row.get("label"))
        return row


def label_table(source: SourceConfig) -> LabelTable | None:
    """The table of labels in the settings, which a process reads once; None without a table.

    Raises:
        UsageError: the table is missing, lacks a column, or gives an image two labels.
    """
    if source.labels is None:
        return None
    key = repr((source.labels, source.options))
    if key not in _TABLES:
        forget_tables()
        _TABLES[key] = _read(source.labels, source.options)
    return _TABLES[key]


def forget_tables() -> None:
    """Forget the tables that were read, because they may have changed."""
    _TABLES.clear()


def class_name(label: str, names: Sequence[str]) -> str | None:
    """The name of an integer label; None for -1, and the label itself where it has no name."""
    try:
        number = int(float(label)) if label.endswith(".0") else int(label)
    except ValueError:
        return label
    if number == _NO_LABEL:
        return None
    return names[number] if 0 <= number < len(names) else label


def _read(config: LabelsConfig, options: Options) -> LabelTable:
    data = open_location(config.uri, options).read()
    columns = parse_columns(data, f"source.labels: {config.uri}", [config.key, config.label])
    table = pa.table({"key": columns[config.key], "label": columns[config.label]})
    table = table.filter(pc.is_valid(table["key"])).sort_by("key")
    keys, labels = (table[name].combine_chunks() for name in ("key", "label"))
    _refuse_two_labels(keys, labels, redact(config.uri))
    return LabelTable(keys, labels, hashlib.sha256(data).hexdigest())


def _refuse_two_labels(keys: pa.Array, labels: pa.Array, uri: str) -> None:
    if len(keys) < 2:
        return
    same = pc.equal(keys[1:], keys[:-1])
    other = pc.not_equal(pc.fill_null(labels[1:], ""), pc.fill_null(labels[:-1], ""))
    clash = pc.index(pc.and_(same, other), value=True).as_py()
    if clash >= 0:
        raise UsageError(
            f"source.labels: {uri} gives {keys[clash].as_py()!r} two labels, "
            f"{labels[clash].as_py()!r} and {labels[clash + 1].as_py()!r}"
        )
