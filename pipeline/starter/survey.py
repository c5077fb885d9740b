"""Find out what a URI holds (image files, tar shards or Parquet files) and which labels."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal

from pipeline.config import SourceConfig
from pipeline.config.loading import validated
from pipeline.errors import UsageError
from pipeline.sources.hugging_face import class_names
from pipeline.sources.label_values import label_value, labels_of
from pipeline.sources.labels import class_name
from pipeline.sources.listing import SourceFile, list_files
from pipeline.sources.parquet_file import columns_of, open_parquet
from pipeline.sources.planning import SUFFIXES
from pipeline.sources.webdataset import IMAGE_EXTENSIONS, read_shard
from pipeline.storage.location import Location, open_location

_SAMPLES_READ = 500


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
    """

    uris: tuple[str, ...]
    format: Literal["folder", "webdataset", "parquet"]
    labels: Counter[str]
    unlabelled: int
    summary: str
    notes: tuple[str, ...]


def survey(uri: str) -> Survey:
    """List the files, and read labels: names of folders, or labels in some of the shards.

    Raises:
        UsageError: there are no files, the storage refuses, no file is an image, tar or Parquet
            file, or the Parquet files have no images.
    """
    uris = validated(SourceConfig, {"format": "folder", "uri": uri}, uri).uris
    files = [file for place in uris for file in list_files(place, {})]
    tars = [file for file in files if file.name.lower().endswith(SUFFIXES["webdataset"])]
    tables = [file for file in files if file.name.lower().endswith(SUFFIXES["parquet"])]
    images = [file for file in files if _extension(file) in IMAGE_EXTENSIONS]
    if tars:
        return _of_shards(uris, tars, len(images))
    if tables and not images:
        return _of_parquet(uris, tables)
    if images:
        return _of_folder(uris, images, len(files) - len(images))
    kinds = ", ".join(sorted({_extension(file) or "none" for file in files})[:8])
    raise UsageError(
        f"{uri}: {len(files)} files, but no images, .tar shards or .parquet (extensions: {kinds})"
    )


def _of_folder(uris: tuple[str, ...], images: Sequence[SourceFile], others: int) -> Survey:
    folders = [file.name.split("/")[-2] if "/" in file.name else None for file in images]
    labels = Counter(folder for folder in folders if folder is not None)
    notes = []
    if others:
        notes.append(f"other files than images: {others:,}; each becomes a row with a status")
    return Survey(
        uris,
        "folder",
        _sorted(labels),
        folders.count(None),
        f"{len(images):,} image files, {_classes(len(labels))} (folders)",
        tuple(notes),
    )


def _of_shards(uris: tuple[str, ...], tars: Sequence[SourceFile], images: int) -> Survey:
    source = SourceConfig(format="webdataset", uri=uris)
    labels: Counter[str] = Counter()
    samples = unlabelled = 0
    chosen = _first_middle_last(tars)
    for tar in chosen:
        with open_location(uris[0]).fs.open(tar.path, "rb") as stream:
            for row in islice(read_shard(stream, tar.name, "", source), _SAMPLES_READ):
                samples += 1
                names = labels_of(row.get("label"))
                labels.update(names)
                unlabelled += not names
    notes = [
        f"labels are those of {samples:,} samples in {len(chosen)} of {len(tars):,} shards; add "
        "classes that are missing"
    ]
    if images:
        notes.append(f"{images:,} image files beside the shards are not part of the source")
    if unlabelled:
        notes.append(
            f"{unlabelled:,} of {samples:,} samples have no label: if their json names it "
            "otherwise, set source.label_field"
        )
    summary = f"{len(tars):,} tar shards, {_classes(len(labels))} seen"
    return Survey(uris, "webdataset", _sorted(labels), unlabelled, summary, tuple(notes))


def _of_parquet(uris: tuple[str, ...], files: Sequence[SourceFile]) -> Survey:
    source = SourceConfig(format="parquet", uri=uris)
    labels: Counter[str] = Counter()
    rows = unlabelled = 0
    names: Sequence[str] = ()
    chosen = _first_middle_last(files)
    for file in chosen:
        with open_parquet(Location(open_location(uris[0]).fs, file.path)) as table:
            schema = table.schema_arrow
            names = schema.names
            label = columns_of(table, source, file.name).label
            rows += table.metadata.num_rows
            if label is None:
                unlabelled += table.metadata.num_rows
                continue
            words = class_names(schema, label)
            for value in table.read([label]).column(0).to_pylist():
                names_of_row = labels_of(label_value(value))
                if words:
                    named = (class_name(text, words) for text in names_of_row)
                    names_of_row = tuple(text for text in named if text is not None)
                labels.update(names_of_row)
                unlabelled += not names_of_row
    notes = []
    if len(chosen) < len(files):
        notes.append(f"labels are those of {rows:,} rows in {len(chosen)} of {len(files):,} files")
    if unlabelled:
        notes.append(
            f"{unlabelled:,} of {rows:,} rows have no label: set source.label_field if another "
            f"column names it; there are {', '.join(names)}"
        )
    summary = f"{len(files):,} Parquet files, {_classes(len(labels))} seen"
    return Survey(uris, "parquet", _sorted(labels), unlabelled, summary, tuple(notes))


def _first_middle_last(files: Sequence[SourceFile]) -> list[SourceFile]:
    """Three files from the whole range, because files may be sorted by class."""
    return [files[number] for number in sorted({0, len(files) // 2, len(files) - 1})]


def _classes(count: int) -> str:
    return f"{count:,} {'class' if count == 1 else 'classes'}"


def _sorted(labels: Counter[str]) -> Counter[str]:
    return Counter(dict(sorted(labels.items(), key=lambda item: (-item[1], item[0]))))


def _extension(file: SourceFile) -> str:
    return file.name.rpartition(".")[2].lower() if "." in file.name else ""
