"""Tables of labels beside the images: CSV and Parquet, COCO annotations, CelebA's attributes."""

import hashlib
import json
import re
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.config import LabelsConfig
from pipeline.errors import UsageError
from pipeline.sources.column_names import IDS, IMAGES, LABELS, has_image_extension, named
from pipeline.sources.label_values import LabelValue, is_yes, label_value, labels_of
from pipeline.storage.location import redact
from pipeline.storage.tables import column_names, parse_columns
from pipeline.storage.text import as_utf8, delimiter_of

_AFTER_PATH = re.compile(rb"^(\S+) +", re.MULTILINE)
_SETS = pa.list_(pa.large_string())
_KEYS = ("key", "image_id", *IMAGES, *IDS, "name")


@dataclass(frozen=True)
class LabelTable:
    """Labels by key, as two columns of Arrow text, which hold millions in little memory.

    Attributes:
        keys: keys, sorted.
        labels: label of each key, or its list of labels.
        digest: SHA-256 (hex) of the file.
        separator: text between several labels in one text.
        encoding: what the user should know about the encoding of its text; None for UTF-8.
    """

    keys: pa.Array
    labels: pa.Array
    digest: str
    separator: str | None = None
    encoding: str | None = None

    @property
    def has_sets(self) -> bool:
        """Whether the table gives sets of labels."""
        return pa.types.is_list(self.labels.type) or self.separator is not None

    @property
    def names(self) -> frozenset[str]:
        """Every label in the table."""
        texts = self.labels.flatten() if pa.types.is_list(self.labels.type) else self.labels
        values = (label_value(text, self.separator) for text in texts.unique().to_pylist())
        return frozenset(name for value in values for name in labels_of(value))

    def find(self, key: str) -> LabelValue:
        """The label of a key, or None."""
        rows = range(len(self.keys))
        row = bisect_left(rows, key, key=lambda row: str(self.keys[row].as_py()))
        if row == len(rows) or self.keys[row].as_py() != key:
            return None
        return label_value(self.labels[row].as_py(), self.separator)


def parse_labels(data: bytes, config: LabelsConfig) -> LabelTable:
    """The labels in a file.

    Args:
        data: content of the file.
        config: where it is, and what its columns mean.

    Raises:
        UsageError: it is none of these tables, lacks a column, or gives an image two labels.
    """
    digest, name = hashlib.sha256(data).hexdigest(), config.uri.split("?", 1)[0].lower()
    if name.endswith(".json"):
        keys, labels = _coco(data, config)
        return _sorted_table(keys, labels, digest, config)
    if name.endswith(".txt") and data.split(b"\n", 1)[0].strip().isdigit():
        keys, labels = _celeba(data, config)
        return _sorted_table(keys, labels, digest, config)
    where = f"source.labels: {config.uri}"
    names = column_names(data, where)
    if len(names) == 1 and has_image_extension(names[0].split(" ")[0]) and " " in names[0]:
        data = _AFTER_PATH.sub(rb"\1\t", as_utf8(data)[0])  # "val/0.jpg 165", as Places365 has it
        names = column_names(data, where)
    if any(map(has_image_extension, names)):  # the first line is that of an image
        names = _names_of_columns(names)
        line = delimiter_of(as_utf8(data)[0].split(b"\n", 1)[0].decode()).join(names)
        data = f"{line}\n".encode() + as_utf8(data)[0]
    key, label = _key_and_label(names, config)
    columns = parse_columns(data, where, [key, *(config.columns or (label,))])
    labels = _of_columns(columns, config.columns) if config.columns else columns[label]
    table = _sorted_table(columns[key], labels, digest, config)
    return table if data.startswith(b"PAR1") else replace(table, encoding=as_utf8(data)[1])


def _names_of_columns(first: Sequence[str]) -> list[str]:
    """Names for the columns of a table without a header: the image, then its label.

    Args:
        first: the first line.
    """
    key = next(number for number, name in enumerate(first) if has_image_extension(name))
    names = [f"column {number}" for number in range(len(first))]
    names[key] = "key"
    if len(names) > 1:
        names[0 if key == len(names) - 1 else key + 1] = "label"
    return names


def _key_and_label(names: Sequence[str], config: LabelsConfig) -> tuple[str, str]:
    """The columns that the settings name, else those with the usual names."""
    key, label = config.key, config.label
    if key not in names and "key" not in config.model_fields_set:
        key = named(tuple(names), _KEYS) or key
    if label not in names and "label" not in config.model_fields_set:
        label = named(tuple(name for name in names if name != key), LABELS) or label
    return key, label


def _sorted_table(keys: Any, labels: Any, digest: str, config: LabelsConfig) -> LabelTable:
    keys = pc.replace_substring_regex(pc.replace_substring(keys, "\\", "/"), r"^\./", "")
    table = pa.table({"key": keys, "label": labels})
    table = table.filter(pc.is_valid(table["key"])).sort_by("key")
    sorted_keys, sorted_labels = (table[name].combine_chunks() for name in ("key", "label"))
    if not pa.types.is_list(sorted_labels.type):
        _refuse_two_labels(sorted_keys, sorted_labels, redact(config.uri))
    return LabelTable(sorted_keys, sorted_labels, digest, config.separator)


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


def _of_columns(table: pa.Table, names: Sequence[str]) -> pa.Array:
    """Sets of labels from columns of yes or no; null where all columns are."""
    yes = np.stack([_says_yes(table[name]) for name in names], axis=1)
    null = np.stack([table[name].is_null().to_numpy() for name in names], axis=1)
    return _sets(yes, names, np.asarray(null.all(axis=1)))


def _says_yes(column: pa.ChunkedArray) -> NDArray[np.bool_]:
    encoded = column.combine_chunks().dictionary_encode()
    meanings = np.array([*map(is_yes, encoded.dictionary.to_pylist()), False])
    indices = encoded.indices.fill_null(len(meanings) - 1).to_numpy(zero_copy_only=False)
    result: NDArray[np.bool_] = meanings[indices]
    return result


def _sets(
    yes: NDArray[np.bool_], names: Sequence[str], null: NDArray[np.bool_] | None = None
) -> pa.Array:
    """List array of the names of the true cells (n, L) of each row."""
    _, columns = np.nonzero(yes)
    offsets = np.concatenate([[0], yes.sum(axis=1).cumsum()]).astype(np.int32)
    values = pa.array(list(names), pa.large_string()).take(pa.array(columns))
    mask = None if null is None else pa.array(null)
    return pa.ListArray.from_arrays(pa.array(offsets), values, mask=mask)


def _coco(data: bytes, config: LabelsConfig) -> tuple[pa.Array, pa.Array]:
    """File names, and the categories of their annotations; an image without any has none."""
    try:
        content = json.loads(data)
        names = {entry["id"]: str(entry["name"]) for entry in content["categories"]}
        sets: dict[Any, dict[str, None]] = defaultdict(dict)
        for annotation in content["annotations"]:
            sets[annotation["image_id"]][names[annotation["category_id"]]] = None
        images = [(str(image["file_name"]), image["id"]) for image in content["images"]]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UsageError(
            f"source.labels: {redact(config.uri)}: expected COCO annotations with images, "
            f"categories and annotations of them, found {type(error).__name__}: {error}. Captions "
            "and results files hold no classes; name the file instances_*.json"
        ) from error
    keys = pa.array([name for name, _ in images], pa.large_string())
    return keys, pa.array([list(sets[number]) for _, number in images], _SETS)


def _celeba(data: bytes, config: LabelsConfig) -> tuple[pa.Array, pa.Array]:
    """File names, and the attributes that are 1: CelebA writes 1 and -1 below a line of names."""
    try:
        _, header, *lines = data.decode().splitlines()
        rows = [line.split() for line in lines if line.strip()]
        names = header.split()[-(len(rows[0]) - 1) :]
        values = np.array([row[1:] for row in rows]).astype(int)
        yes = values.reshape(len(rows), len(names)) > 0
    except (ValueError, IndexError) as error:
        raise UsageError(
            f"source.labels: {redact(config.uri)}: expected a table of attributes as CelebA's "
            f"list_attr_celeba.txt: a line with the number of images, one with the names, and a "
            f"file name with -1 and 1 in every other line ({error})"
        ) from error
    wanted = [names.index(name) for name in config.columns or names if name in names]
    missing = [name for name in config.columns if name not in names]
    if missing:
        raise UsageError(
            f"source.labels.columns: {redact(config.uri)} has no {missing[0]!r}; it has "
            f"{', '.join(names)}"
        )
    keys = pa.array([row[0] for row in rows], pa.large_string())
    return keys, _sets(yes[:, wanted], [names[number] for number in wanted])
