"""What is known about the labels of a source before its images are read."""

from collections.abc import Sequence

from legrad.queries.query import Query
from pipeline.config import queries_by_label, unmatched_labels
from pipeline.schema import Status
from pipeline.sources.datasource import ImageSource
from pipeline.sources.folder import folder_label
from pipeline.sources.input_rows import Row
from pipeline.sources.label_counts import count_labels
from pipeline.sources.labels import Labeller, class_name, label_table, names_in_tables
from pipeline.storage.location import redact

_SAMPLES = 100  # of a tar shard
_EXAMINED = 1000
"""Most files of a folder that are looked up in a table of labels."""


def query_label_notes(source: ImageSource, queries: Sequence[Query]) -> tuple[str, ...]:
    """Notes on class queries whose label no image of the source can have."""
    labels = possible_labels(source)
    return () if labels is None else unmatched_labels(queries, labels)


def examined_label_notes(source: ImageSource, queries: Sequence[Query]) -> tuple[str, ...]:
    """The same; where only reading the images tells, some images of the whole source are read."""
    labels = possible_labels(source)
    if labels is not None or not queries_by_label(queries):
        return () if labels is None else unmatched_labels(queries, labels)
    seen = count_labels(source, _SAMPLES)
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
