"""Labels of images from a table beside the images, and names for integer labels."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from posixpath import basename, splitext

from pipeline.config import SourceConfig
from pipeline.sources.column_names import has_image_extension
from pipeline.sources.input_rows import Row
from pipeline.sources.label_tables import LabelTable, parse_labels
from pipeline.sources.label_values import LabelValue, each_label, label_columns
from pipeline.storage.location import open_location

_NO_LABEL = -1
_TABLES: dict[str, LabelTable] = {}


@dataclass(frozen=True)
class Labeller:
    """Determines the labels of rows from the source, a table of labels and the class names."""

    source: SourceConfig

    def label(self, image_id: str, key: str, source_label: LabelValue) -> LabelValue:
        """The label of one image, or its set of labels.

        Args:
            image_id: id of the image.
            key: key of the image within its file.
            source_label: its label in the source, which a table of labels replaces.
        """
        label = source_label
        table = label_table(self.source)
        if table is not None:
            label = self._in_table(table, image_id.removeprefix(self.source.id_prefix), key)
        names = self.source.label_names
        return label if names is None else each_label(label, partial(class_name, names=names))

    @staticmethod
    def _in_table(table: LabelTable, name: str, key: str) -> LabelValue:
        values = (table.find(candidate) for candidate in names_in_tables(name, key))
        return next((value for value in values if value is not None), None)

    def __call__(self, row: Row) -> Row:
        """Replace the label of a row by the columns ``label`` and ``labels``."""
        label = self.label(row["image_id"], row["key"], row.get("label"))
        return row | label_columns(label)


def names_in_tables(name: str, key: str) -> list[str]:
    """What a table may call an image, the most certain name first.

    Args:
        name: id of the image without the alias of the data set.
        key: key of the image within its file.
    """
    names = [name, key, basename(key)]
    names += [splitext(path)[0] for path in names if has_image_extension(path)]
    return list(dict.fromkeys(names))


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
        _TABLES[key] = parse_labels(
            open_location(source.labels.uri, source.options).read(), source.labels
        )
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
