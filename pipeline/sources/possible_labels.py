"""What is known about the labels of a source before its images are read."""

from collections.abc import Sequence

from legrad.queries.query import Query
from pipeline.config import unmatched_labels
from pipeline.sources.datasource import ImageSource
from pipeline.sources.folder import folder_label
from pipeline.sources.labels import class_name, label_table


def source_notes(source: ImageSource, queries: Sequence[Query]) -> tuple[str, ...]:
    """Notes on class queries whose label no image of the source can have."""
    labels = possible_labels(source)
    return () if labels is None else unmatched_labels(queries, labels)


def possible_labels(source: ImageSource) -> frozenset[str] | None:
    """Every label that an image may have; None where only reading the images tells."""
    config, table = source.source, label_table(source.source)
    labels: set[str | None]
    if table is not None:
        labels = set(table.names)
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
