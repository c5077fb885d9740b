"""Find the columns of a table that hold image, key, label and caption."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

import pyarrow as pa

from pipeline.config import SourceConfig
from pipeline.errors import UsageError
from pipeline.schema import BOOK, Status
from pipeline.sources.column_names import CAPTIONS, LABELS, named
from pipeline.sources.input_rows import (
    Row,
    captions_of,
    carried,
    joined_captions,
    make_row,
)
from pipeline.sources.label_values import LabelValue, label_in, labels_of
from pipeline.sources.read_unit import Further, Part

_NO_VALUE = "__HIVE_DEFAULT_PARTITION__"


@dataclass(frozen=True)
class Columns:
    """The columns of a table by meaning; None where the table has no such column.

    The label may be the field of a column, ``objects.category``, or columns of yes or no.
    ``folders`` are values that all rows share, which the names of folders say.
    """

    image: str
    key: str | None
    label: str | None
    caption: str | None
    carry: tuple[str, ...]
    label_columns: tuple[str, ...] = ()
    folders: Mapping[str, str | None] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """The columns to read."""
        names = (self.image, *self.identifying, self.caption, *self.carry)
        return [name for name in dict.fromkeys(names) if name is not None]

    @property
    def identifying(self) -> list[str]:
        """The columns that identify an image and its label, without the image."""
        label = None if self.label is None else column_of(self.label)
        names = dict.fromkeys((self.key, label, *self.label_columns))
        return [name for name in names if name is not None]

    @property
    def meanings(self) -> dict[str, str]:
        """Names of the columns by what they hold, for the user."""
        label = self.label or ", ".join(self.label_columns)
        every = {"image": self.image, "key": self.key, "label": label, "caption": self.caption}
        return {meaning: name for meaning, name in every.items() if name}


def columns_in_folders(name: str) -> dict[str, str | None]:
    """The columns that folders of a Parquet data set name, as Hive and Spark write them.

    ``class=cat/part-0.parquet`` has the column ``class`` with the value ``cat`` in every row.
    """
    pairs = (folder.partition("=") for folder in name.split("/")[:-1])
    return {
        unquote(column): None if value == _NO_VALUE else unquote(value)
        for column, equals, value in pairs
        if column and equals
    }


def column_of(field: str) -> str:
    """The column that a field such as ``objects.category`` lies in."""
    return field.split(".", 1)[0]


def choose_columns(
    names: Sequence[str], image: str | None, source: SourceConfig, where: str
) -> Columns:
    """The columns that the settings name, else those with the usual names.

    Args:
        names: names of the table's columns.
        image: name of its image column; None if there is none.
        source: the settings.
        where: the table, for messages.

    Raises:
        UsageError: there is no image column, or a column named in the settings is missing.
    """
    chosen = {
        "image_field": source.image_field,
        "key_field": source.key_field,
        "label_field": source.label_field if "label_field" in source.model_fields_set else None,
        "caption_field": (
            source.caption_field if "caption_field" in source.model_fields_set else None
        ),
        **{f"carry.{name}": name for name in source.carry},
        **{f"label_columns.{name}": name for name in source.label_columns},
    }
    has = f"it has {', '.join(map(repr, names)) or 'no columns'}"
    for setting, name in chosen.items():
        exists = name in names or (setting == "label_field" and column_of(str(name)) in names)
        if name is not None and not exists:
            raise UsageError(f"source.{setting}: {where} has no column {name!r}; {has}")
    if image is None:
        raise UsageError(
            f"{where}: no column of images; {has}. Name it in source.image_field; "
            "a table that names images by path or URI is read with source.format: list"
        )
    label, caption = chosen["label_field"], chosen["caption_field"]
    others = tuple(name for name in names if name != image)
    return Columns(
        image=image,
        key=source.key_field,
        label=None if source.label_columns else label or named(others, LABELS),
        caption=caption or named(others, CAPTIONS),
        carry=tuple(source.carry),
        label_columns=source.label_columns,
    )


def _with_further(label: LabelValue, further: Further) -> LabelValue:
    """The label of a row, with those of further rows of its image; several make a set."""
    every = tuple(dict.fromkeys((*labels_of(label), *further.labels)))
    return every if isinstance(label, tuple) or len(every) > 1 else next(iter(every), None)


def captions_in(values: Mapping[str, Any], columns: Columns) -> tuple[str, ...]:
    """The captions that the values of a record give."""
    return captions_of(values.get(columns.caption)) if columns.caption else ()


def pylist(batch: pa.RecordBatch) -> Iterator[dict[str, Any]]:
    """Rows of a batch as dictionaries; text that is not UTF-8 gets escapes."""
    columns = [_values(column) for column in batch.columns]
    for values in zip(*columns, strict=True):
        yield dict(zip(batch.schema.names, values, strict=True))


def _values(column: pa.Array) -> list[Any]:
    try:
        values: list[Any] = column.to_pylist()
    except UnicodeDecodeError:
        if not pa.types.is_string(column.type) and not pa.types.is_large_string(column.type):
            raise
        raw = column.cast(pa.large_binary()).to_pylist()
        values = [None if v is None else v.decode("utf-8", "backslashreplace") for v in raw]
    return values


def table_row(
    file: str,
    number: int,
    key: str | None,
    values: Mapping[str, Any],
    columns: Columns,
    part: Part | None,
    source: SourceConfig,
) -> Row:
    """Make the row of one record of a table, without its image.

    Args:
        file: name of the table's file.
        number: number of the record within the file, which names it where it has no key.
        key: key of the record.
        values: values of the record, by column.
        columns: what the columns mean.
        part: the part of the file that is read; holds the repeated keys.
        source: the settings.
    """
    key = f"#{number}" if key is None else key
    repeat = part.repeats.get(number) if part else None
    further = part.further.get(number, Further()) if part else Further()
    row = {
        "label": _with_further(label_in(values, source, columns.label), further),
        "caption": joined_captions((*captions_in(values, columns), *further.captions)),
        "row": number,
        BOOK: number,
        **carried(values, source.carry),
    }
    if repeat is not None:
        row |= {
            "status": Status.DUPLICATE_KEY,
            "error": f"key {key!r} names another image in {file} before; source.key_field can name "
            "a better column",
        }
    name = key if repeat is None else f"{key}#{repeat}"
    return make_row(f"{source.id_prefix}{file}/{name}", file, key, **row)
