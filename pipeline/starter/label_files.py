"""Find a file beside images that holds their labels: a table, COCO annotations, CelebA's list."""

import re
from collections.abc import Mapping, Sequence
from itertools import islice
from posixpath import basename, splitext
from typing import Any

from pipeline.errors import UsageError
from pipeline.sources.column_names import CAPTIONS, LABELS, named
from pipeline.sources.input_rows import text_of
from pipeline.sources.listing import SourceFile
from pipeline.sources.records import read_records
from pipeline.storage.location import Location, open_location

_ANNOTATIONS = re.compile(
    r"(.*/)?(instances_.*\.json|_annotations\.coco\.json|list_attr_celeba\.txt)"
    r"|val_annotations\.txt"  # Tiny ImageNet's, of its folder val
)
_TABLES = (".csv", ".tsv")
_RECORDS = 2000
_MATCHING = 0.5  # share of a table's keys that must name images
_FLAGS = frozenset(("0", "1", "-1", "0.0", "1.0"))


def find_labels(
    fs: Any, place: str, files: Sequence[SourceFile], images: Sequence[SourceFile]
) -> tuple[dict[str, Any] | None, tuple[str, ...]]:
    """The settings ``source.labels`` for a file that labels these images, and notes.

    Args:
        fs: file system of the files.
        place: path or URI that their names are relative to.
        files: all files.
        images: the images among them.
    """
    training_first = sorted(files, key=lambda file: ("train" not in file.name, file.name))
    root = place.rstrip("/")
    for file in training_first:
        if _ANNOTATIONS.fullmatch(file.name):
            return {"uri": f"{root}/{file.name}"}, (f"labels: those in {file.name}",)
    beside = _beside(fs, root)
    if beside is not None:
        return {"uri": beside}, (f"labels: those in {beside}",)
    names = {name for image in images for name in _names(image.name)}
    for file in training_first:
        if file.name.lower().endswith(_TABLES):
            columns = _columns(Location(fs, file.path), names)
            if columns is not None:
                told = f"labels: column {columns.get('label') or 'of each class'} of {file.name}"
                return {"uri": f"{root}/{file.name}", **columns}, (told,)
    return None, ()


def _beside(fs: Any, root: str) -> str | None:
    """COCO's or CelebA's annotations of a folder that lie beside it and not in it."""
    parent, name = root.rpartition("/")[0] or ".", root.rpartition("/")[2]
    if "*" in root or _is_file(fs, root):
        return None
    candidates = (f"{parent}/annotations/instances_{name}.json", f"{parent}/list_attr_celeba.txt")
    return next((place for place in candidates if _is_file(fs, place)), None)


def _is_file(fs: Any, place: str) -> bool:
    """Whether a path or URI is a file that can be listed."""
    location = open_location(place)
    return not location.is_web and bool(fs.isfile(location.path))


def _names(name: str) -> set[str]:
    """What a table may call an image: path or file name, with or without its extension."""
    return {name, basename(name), splitext(name)[0], splitext(basename(name))[0]}


def _columns(location: Location, names: set[str]) -> dict[str, Any] | None:
    """The columns of key and label of a table whose keys name images; None for another table."""
    try:
        records = [record.values for record in islice(read_records(location, list), _RECORDS)]
    except UsageError:
        return None
    values: dict[str, list[str]] = {}
    for record in records:
        for name, value in record.items():
            values.setdefault(name, []).append(text_of(value) or "")
    shares = {name: sum(v in names for v in texts) / len(texts) for name, texts in values.items()}
    key = max(shares, key=lambda name: shares[name], default=None)
    if key is None or shares[key] < _MATCHING:
        return None
    return _label_columns(key, values)


def _repeats(values: Sequence[str]) -> bool:
    """Whether values may be classes: those of boxes and captions hardly come twice."""
    return len(set(values)) <= len(values) / 2


def _label_columns(key: str, values: Mapping[str, Sequence[str]]) -> dict[str, Any] | None:
    others = tuple(name for name in values if name != key and named((name,), CAPTIONS) is None)
    flags = [name for name in others if set(values[name]) <= _FLAGS]
    label = named(others, LABELS)
    if label is None and len(flags) > 1:
        return {"key": key, "columns": flags}
    if label is None and len(others) == 1 and _repeats(values[others[0]]):
        label = others[0]
    return None if label is None else {"key": key, "label": label}
