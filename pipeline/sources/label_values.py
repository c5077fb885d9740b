"""The labels in the values of a source: one text, a list, a text of several, columns of yes or no.

An image whose source gives a list has a *set of labels*, which may be empty; an image of any other
source has one label or none.
"""

import ast
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from pipeline.config import SourceConfig
from pipeline.schema import LABEL_SEPARATOR
from pipeline.sources.input_rows import Row, clean, text_of

LabelValue = str | tuple[str, ...] | None
"""One label, a set of labels in the order of the source, or None for an image without a label."""
_YES = frozenset(("1", "true", "yes", "y", "t"))


def label_in(values: Mapping[str, Any], source: SourceConfig, field: str | None) -> LabelValue:
    """The label that the values of a record give.

    Args:
        values: the record's values by column.
        source: the settings.
        field: column that holds the label, ``a.b`` for the field b of a; None if there is none.
    """
    if source.label_columns:
        return chosen_columns(values, source.label_columns)
    return None if field is None else label_value(value_at(values, field), source.label_separator)


def label_value(value: Any, separator: str | None = None) -> LabelValue:
    """A value of the source as a label or a set of labels.

    Args:
        value: a list gives a set, as does the text of a list, ``["a", "b"]``.
        separator: text between several labels in one text; such a text always gives a set.
    """
    if isinstance(value, str) and separator is not None:
        return _as_set(value.split(separator))
    if isinstance(value, str) and value.startswith("[") and value.rstrip().endswith("]"):
        value = _parsed_list(value)
    if isinstance(value, list | tuple):
        return _as_set(value)
    text = text_of(value)
    return None if text is None else clean(text)


def _as_set(values: Iterable[Any]) -> tuple[str, ...]:
    texts = (text_of(value) for value in values)
    return tuple(dict.fromkeys(clean(text) for text in texts if text is not None))


def _parsed_list(text: str) -> Any:
    """The list that a text spells as JSON or as Python, else the text itself."""
    for parse in (json.loads, ast.literal_eval):
        try:
            value = parse(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if isinstance(value, list):
            return value
    return text


def chosen_columns(values: Mapping[str, Any], columns: Sequence[str]) -> tuple[str, ...] | None:
    """The names of the columns that say yes; None if all of them are null."""
    if all(values.get(name) is None for name in columns):
        return None
    return tuple(name for name in columns if is_yes(values.get(name)))


def is_yes(value: Any) -> bool:
    """Whether a value of a column of yes or no says yes: true, or a number above one half."""
    if isinstance(value, str):
        text = value.strip().lower()
        try:
            return float(text) > 0.5
        except ValueError:
            return text in _YES
    return isinstance(value, bool | int | float) and value > 0.5


def value_at(values: Mapping[str, Any], path: str) -> Any:
    """The value of a column, or of the field b of column a for ``a.b``, in lists, too."""
    if path in values or "." not in path:
        return values.get(path)
    first, rest = path.split(".", 1)
    inner = values.get(first)
    if isinstance(inner, list):
        return [value_at(item, rest) for item in inner if isinstance(item, Mapping)]
    return value_at(inner, rest) if isinstance(inner, Mapping) else None


def each_label(value: LabelValue, name_of: Callable[[str], str | None]) -> LabelValue:
    """The same with every label replaced by its name; labels without one are left out."""
    if isinstance(value, tuple):
        names = (name_of(label) for label in value)
        return tuple(dict.fromkeys(name for name in names if name is not None))
    return None if value is None else name_of(value)


def label_columns(value: LabelValue) -> Row:
    """The columns ``label`` and ``labels`` of a row; the label of a set is its labels, joined."""
    if isinstance(value, tuple):
        return {"label": LABEL_SEPARATOR.join(value) or None, "labels": list(value)}
    return {"label": value, "labels": None}


def labels_of(value: LabelValue) -> tuple[str, ...]:
    """The labels of an image, however many."""
    return value if isinstance(value, tuple) else () if value is None else (value,)
