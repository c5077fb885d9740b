"""Labels: a table beside the images, and names of integer labels."""

import hashlib
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config import LabelsConfig, SourceConfig
from pipeline.errors import UsageError
from pipeline.sources.rows import Row, text_of
from pipeline.storage.location import Options, open_location, redact
from pipeline.storage.tables import parse_columns

_NO_LABEL = -1
_TABLES: dict[str, "LabelTable"] = {}


@dataclass(frozen=True)
class LabelTable:
    """Labels by key; both columns as Arrow text, sorted by key, so that millions take little room.

    Attributes:
        keys, labels: text, of one length.
        digest: SHA-256 (hex) of the file.
    """

    keys: pa.Array
    labels: pa.Array
    digest: str

    def find(self, key: str) -> str | None:
        """The label of a key; None where the table has none."""
        place = bisect_left(_Texts(self.keys), key)
        if place == len(self.keys) or self.keys[place].as_py() != key:
            return None
        return text_of(self.labels[place].as_py())


class _Texts(Sequence[str]):
    """An Arrow array as `bisect` wants it."""

    def __init__(self, array: pa.Array) -> None:
        self.array = array

    def __len__(self) -> int:
        return len(self.array)

    def __getitem__(self, place: int) -> str:  # type: ignore[override]
        return str(self.array[place].as_py())


@dataclass(frozen=True)
class Labeller:
    """Gives rows their final label."""

    source: SourceConfig

    def label(self, image_id: str, key: str, own: str | None) -> str | None:
        """The label of one image.

        Args:
            image_id: of the image.
            key: of the image.
            own: what the source itself says.
        """
        table = label_table(self.source)
        if table is not None:
            own = table.find(image_id.removeprefix(self.source.id_prefix)) or table.find(key)
        names = self.source.label_names
        return own if own is None or names is None else named(own, names)

    def __call__(self, row: Row) -> Row:
        """The row with its final label."""
        row["label"] = self.label(row["image_id"], row["key"], row.get("label"))
        return row


def label_table(source: SourceConfig) -> LabelTable | None:
    """The table that the settings name, read once a process; None where they name none.

    Raises:
        UsageError: it is not there, has no such columns, or gives an image two labels.
    """
    if source.labels is None:
        return None
    wanted = repr((source.labels, source.options))
    if wanted not in _TABLES:
        forget_tables()
        _TABLES[wanted] = _read(source.labels, source.options)
    return _TABLES[wanted]


def forget_tables() -> None:
    """Read tables anew when they are next asked for: they may have changed."""
    _TABLES.clear()


def named(label: str, names: Sequence[str]) -> str | None:
    """The name of an integer label; -1 is none, and what has no name stays as it is."""
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
    keys, labels = (_joined(table[name]) for name in ("key", "label"))
    _refuse_two_labels(keys, labels, redact(config.uri))
    return LabelTable(keys, labels, hashlib.sha256(data).hexdigest())


def _joined(column: pa.ChunkedArray) -> pa.Array:
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)


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
