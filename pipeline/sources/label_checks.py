"""The labels of a source before a run: those that it can have, and counts of those that it has.

They are read by the readers of a run, where possible without the images.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TypeVar

from legrad.queries.query import Query
from pipeline.config import queries_by_label, unmatched_labels
from pipeline.errors import counted as plural
from pipeline.schema import Status
from pipeline.sources.datasource import ImageSource, read_rows
from pipeline.sources.folder import describe, folder_label
from pipeline.sources.input_rows import Row
from pipeline.sources.label_values import LabelValue, labels_of
from pipeline.sources.labels import Labeller, class_name, label_table, names_in_tables
from pipeline.sources.lists import scan_list
from pipeline.sources.parquet import scan_parquet
from pipeline.storage.location import Location, open_location, redact

_QUICK_SAMPLES = 100  # of a tar shard, for a note
_EXAMINED = 1000
"""Most files of a folder that are looked up in a table of labels."""
_SAMPLES, _LOCAL_SAMPLES = 500, 5_000  # of a shard, which may be sorted by class
_DESCRIBED = 500  # images with files beside them, each of which is read
_LOOKED_UP = 20_000  # images in a table of labels
_TABLES = 256  # Parquet files that are read
_SHARDS = 16  # tars that are read
T = TypeVar("T")


def query_label_notes(source: ImageSource, queries: Sequence[Query]) -> tuple[str, ...]:
    """Notes on class queries whose label no image of the source can have."""
    labels = possible_labels(source)
    return () if labels is None else unmatched_labels(queries, labels)


def examined_label_notes(source: ImageSource, queries: Sequence[Query]) -> tuple[str, ...]:
    """The same; where only reading the images tells, some images of the whole source are read."""
    labels = possible_labels(source)
    if labels is not None or not queries_by_label(queries):
        return () if labels is None else unmatched_labels(queries, labels)
    seen = count_labels(source, _QUICK_SAMPLES)
    return unmatched_labels(queries, seen.labels, seen.scope)


def first_label_notes(maps: str, rows: Sequence[Row]) -> tuple[str, ...]:
    """A note if maps of own labels are kept, and images have sets of them.

    Args:
        maps: the mode of ``store.maps``.
        rows: the first rows of the source.
    """
    if maps != "own_label" or all(len(row["labels"] or ()) < 2 for row in rows):
        return ()
    return (
        "images have several labels, and store.maps: own_label keeps the map of the first one; "
        "own_labels keeps those of all",
    )


def table_notes(source: ImageSource, rows: Sequence[Row]) -> tuple[str, ...]:
    """A note if the table of labels names no image, of the folder or among the first rows.

    Args:
        source: the source.
        rows: its first rows.
    """
    config, table = source.source, label_table(source.source)
    if table is None or config.labels is None:
        return ()
    if config.format == "folder":
        files = [file.name for unit in source.units for file in unit.files]
        step = -(-len(files) // _EXAMINED)
        images = [(config.id_prefix + name, name) for name in files[::step]]
    else:
        images = [(row["image_id"], row["key"]) for row in rows if row["status"] == Status.OK]
    labeller = Labeller(config)
    if not images or any(labeller.label(*image, None) is not None for image in images):
        return ()
    keys = ", ".join(map(repr, table.keys[:3].to_pylist()))
    names = names_in_tables(images[0][0].removeprefix(config.id_prefix), images[0][1])
    return (
        f"source.labels: {redact(config.labels.uri)} has no label for {len(images):,} images that "
        f"were looked up. It names {keys}; the first of the images would be "
        f"{' or '.join(map(repr, names))}. source.labels.key says which column names them",
    )


def possible_labels(source: ImageSource) -> frozenset[str] | None:
    """Every label that an image may have; None where only reading the images tells."""
    config, table = source.source, label_table(source.source)
    labels: set[str | None]
    if table is not None:
        labels = set(table.names)
    elif source.facts.labels is not None:
        labels = set(source.facts.labels)
    elif config.format == "folder":
        files = [file for unit in source.units for file in unit.files]
        if any(path.lower().endswith(".json") for file in files for path in file.sidecars):
            return None
        labels = {folder_label(file) for file in files}
    else:
        return None
    if config.label_names is not None:
        labels = {class_name(label, config.label_names) for label in labels if label is not None}
    return frozenset(label for label in labels if label is not None)


@dataclass
class Counted:
    """Labels of the images that were looked at.

    Attributes:
        labels: number of images of each label.
        unlabelled: number of images without a label.
        empty: number of images with an empty set of labels.
        images: number of images that were looked at.
        scope: which images these are, in words; empty for all images of the source.
    """

    labels: Counter[str] = field(default_factory=Counter)
    unlabelled: int = 0
    empty: int = 0
    images: int = 0
    scope: str = ""

    def add(self, label: LabelValue) -> None:
        """Count an image; an empty set of labels says that it is of no class."""
        self.images += 1
        self.labels.update(labels_of(label))
        self.unlabelled += label is None
        self.empty += label == ()


def count_labels(source: ImageSource, samples: int | None = None) -> Counted:
    """Count the labels in a source, or in a part of it that is spread over all of it.

    Args:
        source: the source.
        samples: most samples to read of a tar shard, with their images; default some thousands on
            this machine, and some hundreds elsewhere.
    """
    if source.source.format == "webdataset":
        is_local = open_location(source.source.uris[0], source.source.options).is_local
        return _in_shards(source, samples or (_LOCAL_SAMPLES if is_local else _SAMPLES))
    return _in_folders(source) if source.source.format == "folder" else _in_tables(source)


def _in_folders(source: ImageSource) -> Counted:
    config, labeller, counted = source.source, Labeller(source.source), Counted()
    files = [file for unit in source.units for file in unit.files]
    fs = open_location(config.uris[0], config.options).fs
    chosen = files
    if label_table(config) is not None:
        chosen = spread(files, _LOOKED_UP)
    elif any(file.sidecars for file in files):
        chosen = spread(files, _DESCRIBED)
    for file in chosen:
        label = None if label_table(config) is not None else describe(fs, file, config)["label"]
        counted.add(labeller.label(config.id_prefix + file.name, file.name, label))
    if len(chosen) < len(files):
        counted.scope = f"{len(chosen):,} of {plural(len(files), 'image')}"
    return counted


def _in_tables(source: ImageSource) -> Counted:
    config, labeller, counted = source.source, Labeller(source.source), Counted()
    scan = scan_parquet if config.format == "parquet" else scan_list
    files = list({file.path: file for unit in source.units for file in unit.files}.values())
    fs = open_location(config.uris[0], config.options).fs
    chosen = spread(files, _TABLES) if config.format == "parquet" else files
    for file in chosen:
        prefix = f"{config.id_prefix}{file.name}"

        def visit(number: int, key: str, label: LabelValue, prefix: str = prefix) -> None:  # noqa: ARG001
            counted.add(labeller.label(f"{prefix}/{key}", key, label))

        scan(Location(fs, file.path), file, config, visit)
    if len(chosen) < len(files):
        counted.scope = (
            f"{plural(counted.images, 'row')} in {len(chosen)} of {plural(len(files), 'file')}"
        )
    return counted


def _in_shards(source: ImageSource, most: int) -> Counted:
    counted, chosen, are_all = Counted(), spread(source.units, _SHARDS), True
    for unit in chosen:
        rows = read_rows(source.source, unit)
        for row in islice(rows, most):
            counted.add(row["label"] if row["labels"] is None else tuple(row["labels"]))
        are_all &= next(rows, None) is None
    if not are_all or len(chosen) < len(source.units):
        where = f"{len(chosen)} of {plural(len(source.units), 'shard')}"
        counted.scope = f"{plural(counted.images, 'sample')} in {where}"
    return counted


def spread(items: Sequence[T], most: int) -> list[T]:
    """At most so many items from the whole range, first and last included: it may be sorted."""
    if len(items) <= most:
        return list(items)
    return [items[round(number * (len(items) - 1) / (most - 1))] for number in range(most)]
