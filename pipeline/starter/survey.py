"""Find out what a URI holds (image files, tar shards or Parquet files) and which labels."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Literal

from pipeline.config import SourceConfig
from pipeline.config.loading import validated
from pipeline.errors import UsageError
from pipeline.sources.foreign_layouts import foreign_layout
from pipeline.sources.input_rows import Row
from pipeline.sources.label_values import labels_of
from pipeline.sources.labels import Labeller
from pipeline.sources.listing import SourceFile, list_files
from pipeline.sources.planning import SUFFIXES
from pipeline.sources.webdataset import IMAGE_EXTENSIONS, read_shard
from pipeline.starter.annotations import find_annotations
from pipeline.starter.splits import split_notes, without_splits
from pipeline.starter.tables import TableLabels, holds_images, read_labels, spread
from pipeline.storage.location import open_location

MOST_SHARDS = 16
_SAMPLES_READ, _LOCAL_SAMPLES_READ = 500, 5_000
_BYTES_READ = 2**28  # of a shard


@dataclass(frozen=True)
class Survey:
    """What a data set consists of.

    Attributes:
        uris: paths or URIs of its files and folders.
        format: its format, as in the settings.
        labels: number of images of each label, most frequent first; for shards and Parquet only in
            the files that were read.
        unlabelled: number of images without a label, likewise.
        summary: one line about it.
        notes: what the user should know.
        settings: further settings of the source, by key.
    """

    uris: tuple[str, ...]
    format: Literal["folder", "webdataset", "parquet"]
    labels: Counter[str]
    unlabelled: int
    summary: str
    notes: tuple[str, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)


def survey(uri: str, chosen: Mapping[str, Any] | None = None) -> Survey:
    """List the files, and read labels: names of folders, or labels in some of the shards.

    Args:
        uri: a folder, file, glob or brace range.
        chosen: settings of the source that the user gave, such as ``label_field``.

    Raises:
        UsageError: there are no files, the storage refuses, no file is an image, tar or Parquet
            file, or the Parquet files have no images.
    """
    chosen = chosen or {}
    uris = validated(SourceConfig, {"format": "folder", "uri": uri}, uri).uris
    files = [file for place in uris for file in list_files(place, {})]
    names = [file.name for file in files]
    tars = [file for file in files if file.name.lower().endswith(SUFFIXES["webdataset"])]
    tables = [file for file in files if file.name.lower().endswith(SUFFIXES["parquet"])]
    images = [file for file in files if _extension(file) in IMAGE_EXTENSIONS]
    if tars:
        return _of_shards(uris, tars, len(images), chosen)
    advice = None if images else foreign_layout(uri, names)
    if advice is not None and (not tables or "meta/info.json" in names):
        raise UsageError(f"{uri} holds {advice}")
    if tables and (not images or holds_images(uris, tables, chosen)):
        return _of_parquet(uris, tables, len(images), chosen)
    if images:
        return _of_folder(uris, images, files, chosen)
    kinds = ", ".join(sorted({_extension(file) or "none" for file in files})[:8])
    raise UsageError(
        f"{uri}: {len(files)} files, but no images, .tar shards or .parquet (extensions: {kinds})"
    )


def _of_folder(
    uris: tuple[str, ...],
    images: Sequence[SourceFile],
    files: Sequence[SourceFile],
    chosen: Mapping[str, Any],
) -> Survey:
    annotations = find_annotations(uris, files)
    settings = {**chosen, **({"labels": annotations} if annotations else {})}
    labeller = Labeller(_source("folder", uris, settings))
    labels: Counter[str] = Counter()
    unlabelled = 0
    for file in images:
        folder = file.name.split("/")[-2] if "/" in file.name else None
        label = labeller.label(file.name, file.name, folder)
        labels.update(labels_of(label))
        unlabelled += label is None
    notes = list(split_notes([file.name for file in images]))
    if len(files) > len(images):
        others = len(files) - len(images)
        notes.append(
            f"other files than images: {others:,}; texts, tables and annotations give no rows"
        )
    if annotations:
        notes.append(f"labels are those of {annotations['uri']}")
    else:
        labels, more = without_splits(labels)
        notes += more
    origin = "annotations" if annotations else "folders"
    summary = f"{len(images):,} image files, {_classes(len(labels))} ({origin})"
    return Survey(uris, "folder", _sorted(labels), unlabelled, summary, tuple(notes), settings)


def _of_shards(
    uris: tuple[str, ...], tars: Sequence[SourceFile], images: int, chosen: Mapping[str, Any]
) -> Survey:
    source = _source("webdataset", uris, chosen)
    labels: Counter[str] = Counter()
    samples = unlabelled = 0
    shards = spread(tars, MOST_SHARDS)
    for tar in shards:
        for row in _first_samples(tar, source):
            samples += 1
            names = labels_of(row.get("label"))
            labels.update(names)
            unlabelled += not names
    notes = [
        f"labels are those of {samples:,} samples in {len(shards)} of {len(tars):,} shards; add "
        "classes that are missing",
        *split_notes([file.name for file in tars]),
    ]
    if images:
        notes.append(f"{images:,} image files beside the shards are not part of the source")
    if unlabelled:
        notes.append(
            f"{unlabelled:,} of {samples:,} samples have no label: if their json names it "
            "otherwise, set source.label_field (--label-field)"
        )
    summary = f"{len(tars):,} tar shards, {_classes(len(labels))} seen"
    return Survey(uris, "webdataset", _sorted(labels), unlabelled, summary, tuple(notes), chosen)


def _first_samples(tar: SourceFile, source: SourceConfig) -> list[Row]:
    """The labels of a shard's first samples; more of them where reading costs little."""
    location = open_location(source.uris[0])
    most = _LOCAL_SAMPLES_READ if location.is_local else _SAMPLES_READ
    rows: list[Row] = []
    size = 0
    with location.fs.open(tar.path, "rb") as stream:
        for row in islice(read_shard(stream, tar.name, "", source), most):
            size += len(row.pop("bytes", None) or b"")
            rows.append(row)
            if size > _BYTES_READ:
                break
    return rows


def _of_parquet(
    uris: tuple[str, ...], files: Sequence[SourceFile], images: int, chosen: Mapping[str, Any]
) -> Survey:
    read: TableLabels = read_labels(uris, files, chosen)
    notes = [*read.notes, *split_notes([file.name for file in files])]
    if images:
        notes.append(f"{images:,} image files beside the tables are not part of the source")
    if read.unlabelled:
        notes.append(
            f"{read.unlabelled:,} of {read.rows:,} rows have no label: set source.label_field "
            f"(--label-field) if another column names it; there are {', '.join(read.columns)}"
        )
    summary = f"{len(files):,} Parquet files, {_classes(len(read.labels))} seen"
    return Survey(
        uris, "parquet", _sorted(read.labels), read.unlabelled, summary, tuple(notes), chosen
    )


def _source(kind: str, uris: Sequence[str], settings: Mapping[str, Any]) -> SourceConfig:
    return validated(SourceConfig, {"format": kind, "uri": list(uris), **settings}, "init")


def _classes(count: int) -> str:
    return f"{count:,} {'class' if count == 1 else 'classes'}"


def _sorted(labels: Counter[str]) -> Counter[str]:
    return Counter(dict(sorted(labels.items(), key=lambda item: (-item[1], item[0]))))


def _extension(file: SourceFile) -> str:
    return file.name.rpartition(".")[2].lower() if "." in file.name else ""
