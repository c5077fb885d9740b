"""Recognise how a data set is laid out, and name the settings with which a run reads it."""

import glob
import posixpath
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from pipeline.config import SourceConfig
from pipeline.config.loading import validated
from pipeline.errors import UsageError, counted
from pipeline.sources.column_names import column_of_paths
from pipeline.sources.folder import folder_label
from pipeline.sources.foreign_layouts import foreign_layout
from pipeline.sources.listing import SourceFile, expand_braces, list_files
from pipeline.sources.parquet_file import columns_of, open_parquet
from pipeline.sources.planning import SUFFIXES
from pipeline.sources.records import conversion, read_records
from pipeline.sources.webdataset import IMAGE_EXTENSIONS
from pipeline.starter.label_files import find_labels
from pipeline.starter.splits import split_notes
from pipeline.starter.whole_tables import first_whole
from pipeline.storage.location import Location, open_location, redact

_TABLES = (".csv", ".tsv", ".jsonl", ".ndjson")
_METADATA = re.compile(r"(.*/)?metadata\.(csv|jsonl)")
_CONTAINERS = re.compile(
    r"(train|training|val|valid|validation|dev|test|testing)(\d{4})?|images?|imgs?|jpegimages|"
    r"pictures|photos|data|img_align_celeba|jpe?gs?|pngs?",
    re.IGNORECASE,
)
_BOXES = re.compile(r"(.*/)?(labels/.*\.txt|Annotations/.*\.xml)")
"""Files of boxes as YOLO and Pascal VOC name them."""
_LOOKED_AT = 3
_READ = tuple(suffix for suffixes in SUFFIXES.values() for suffix in suffixes)
_RECORDS = 64


@dataclass(frozen=True)
class Layout:
    """How a data set is laid out.

    Attributes:
        source: settings of a source that reads it, without those that are as by default.
        files: its shards, tables or images.
        notes: what the user should know.
    """

    source: dict[str, Any]
    files: tuple[SourceFile, ...]
    notes: tuple[str, ...] = ()


def detect(uri: str) -> Layout:
    """Recognise the layout of a path or URI by the names of its files, and where needed by content.

    Raises:
        UsageError: there are no files, the storage refuses, or nothing is recognised.
    """
    uris = validated(SourceConfig, {"format": "folder", "uri": uri}, uri).uris
    files = [file for place in uris for file in list_files(place, {})]
    place = uris[0] if len(uris) == 1 else list(uris)
    images = [file for file in files if _extension(file) in IMAGE_EXTENSIONS]
    _refuse_foreign(uri, files, images)
    tars = _ending(files, SUFFIXES["webdataset"])
    if tars:
        beside = f"{len(images):,} image files beside the shards are not part of the source"
        notes = (*((beside,) if images else ()), *split_notes([file.name for file in tars]))
        return Layout({"format": "webdataset", "uri": place}, tuple(tars), notes)
    fs = open_location(uris[0]).fs
    return (
        _parquet(fs, files, images, place)
        or _tables(files, images, place)
        or _folder(fs, files, images, place)
        or _odd_images(fs, files, place)
        or _refused(uri, files)
    )


def _parquet(
    fs: Any, files: list[SourceFile], images: list[SourceFile], place: Any
) -> Layout | None:
    """Parquet files with images inside, or without image files beside them a list of images."""
    tables = _ending(files, SUFFIXES["parquet"])
    if not tables:
        return None
    source = {"format": "parquet", "uri": place}
    first, notes = first_whole(fs, tables)
    location = Location(fs, first.path)
    try:
        with open_parquet(location) as table:
            columns_of(table, validated(SourceConfig, source, "source"), first.name)
    except UsageError:
        if images:
            return None
        records = [record.values for record in islice(read_records(location, list), _RECORDS)]
        if column_of_paths(records) is None:
            raise
        return Layout({"format": "list", "uri": place}, tuple(tables))
    if images:
        beside = f"{len(images):,} image files beside the Parquet files are not part of the source"
        notes = [*notes, beside]
    return Layout(source, tuple(tables), (*notes, *split_notes([file.name for file in tables])))


def _tables(files: list[SourceFile], images: list[SourceFile], place: Any) -> Layout | None:
    """Lists of images, and the metadata files that Hugging Face puts beside image files."""
    tables = _ending(files, _TABLES)
    metadata = [file for file in tables if _METADATA.fullmatch(file.name)]
    if tables and not images:
        return Layout({"format": "list", "uri": place}, tuple(tables))
    if not metadata or not _is_folder(place):
        return None
    paths = [f"{place.rstrip('/')}/{file.name}" for file in metadata]
    return Layout(
        {"format": "list", "uri": paths[0] if len(paths) == 1 else paths}, tuple(metadata)
    )


def _folder(
    fs: Any, files: list[SourceFile], images: list[SourceFile], place: Any
) -> Layout | None:
    """Image files, labelled by their folders or by a file beside them."""
    if not images:
        return None
    if not _is_folder(place):
        return Layout({"format": "folder", "uri": place}, tuple(images))
    labels, notes = find_labels(fs, place, files, images)
    chosen = _of_annotations(images, labels) or _of_voc(images)
    source: dict[str, Any] = {"format": "folder", "uri": place}
    if labels:
        source["labels"] = labels
    boxes = next((file.name for file in files if _BOXES.fullmatch(file.name)), None)
    if boxes and not labels:
        notes = (
            *notes,
            f"boxes as in {boxes} are not read: convert them to COCO annotations, and name these "
            "in source.labels, to have classes",
        )
    if chosen or not labels:
        source["uri"], more = _without_containers(place.rstrip("/"), chosen or images)
        notes = (*notes, *more)
    if source["uri"] == place:
        notes = (*notes, *split_notes([file.name for file in chosen or images]))
    return Layout(source, tuple(chosen or images), notes)


def _without_containers(root: str, images: list[SourceFile]) -> tuple[Any, tuple[str, ...]]:
    """The folders of the images where their names are those of splits and not of classes.

    Returns:
        The place as it was, one folder, or several by alias; and notes.
    """
    folders = sorted({posixpath.dirname(file.name) for file in images})
    names = [posixpath.basename(folder) for folder in folders]
    labels = {folder_label(file) for file in images} - {None}
    if "" in names or not all(_CONTAINERS.fullmatch(str(label)) for label in labels):
        return root, ()
    listed = ", ".join(dict.fromkeys(names))
    if len(set(names)) < len(names):
        return root, (
            f"all images are in folders named {listed}, which are no classes: a table can name "
            "them (source.labels)",
        )
    places = {name: f"{root}/{below}" for name, below in zip(names, folders, strict=True)}
    uri = places if len(places) > 1 else f"{root}/{folders[0]}"
    return uri, (f"folders named {listed} are not taken for classes",)


def _of_annotations(images: list[SourceFile], labels: dict[str, Any] | None) -> list[SourceFile]:
    """The images of the folder that a file of annotations is named after, as in COCO."""
    uri = str((labels or {}).get("uri", ""))
    if not uri.endswith(".json"):
        return []
    return [file for file in images if (_folder_name(file) or "/") in uri.rsplit("/", 1)[-1]]


def _of_voc(images: list[SourceFile]) -> list[SourceFile]:
    """The photographs of Pascal VOC, which has masks in other folders."""
    return [file for file in images if _folder_name(file) == "JPEGImages"]


def _folder_name(file: SourceFile) -> str:
    return posixpath.basename(posixpath.dirname(file.name))


def _odd_images(fs: Any, files: list[SourceFile], place: Any) -> Layout | None:
    """Files without the usual extensions that are images by their content."""
    from PIL import Image, UnidentifiedImageError

    for file in files[:_LOOKED_AT]:
        with fs.open(file.path, "rb") as stream:
            try:
                Image.open(stream)
            except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError):
                return None
    return Layout({"format": "folder", "uri": place}, tuple(files)) if files else None


def _refuse_foreign(uri: str, files: Sequence[SourceFile], images: Sequence[SourceFile]) -> None:
    """Refuse data sets in formats that are not read, with the command that converts them."""
    names = [file.name for file in files]
    advice = None if images else foreign_layout(uri, names)
    is_read = any(name.lower().endswith(_READ) for name in names)
    if advice is not None and (not is_read or "meta/info.json" in names):
        raise UsageError(f"{uri} holds {advice}")


def _is_folder(place: Any) -> bool:
    """Whether a place is one folder, and not a pattern or several places."""
    return isinstance(place, str) and not glob.has_magic(place) and expand_braces(place) == [place]


def _refused(uri: str, files: Sequence[SourceFile]) -> Layout:
    kinds = ", ".join(sorted({_extension(file) or "none" for file in files})[:8])
    advice = conversion(redact(uri)) if len(files) == 1 else ""
    raise UsageError(
        f"{uri}: {counted(len(files), 'file')}, but no images, .tar shards, .parquet or lists of "
        f"images (.csv, .tsv, .jsonl); extensions: {kinds}{advice}"
    )


def _ending(files: Sequence[SourceFile], suffixes: tuple[str, ...]) -> list[SourceFile]:
    return [file for file in files if file.name.lower().endswith(suffixes)]


def _extension(file: SourceFile) -> str:
    return file.name.rpartition(".")[2].lower() if "." in file.name else ""
