"""Count the labels of a source with the readers of a run, where possible without reading images."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TypeVar

from pipeline.errors import counted as plural
from pipeline.sources.datasource import ImageSource, read_rows
from pipeline.sources.folder import describe
from pipeline.sources.label_values import LabelValue, labels_of
from pipeline.sources.labels import Labeller, label_table
from pipeline.sources.lists import scan_list
from pipeline.sources.parquet import scan_parquet
from pipeline.storage.location import Location, open_location

_SAMPLES, _LOCAL_SAMPLES = 500, 5_000  # of a shard, which may be sorted by class
_DESCRIBED = 500  # images with files beside them, each of which is read
_LOOKED_UP = 20_000  # images in a table of labels
_TABLES = 256
_SHARDS = 16
T = TypeVar("T")


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
        is_local = open_location(source.source.uris[0]).is_local
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
