"""Image folders: each image gives a row, labelled by its JSON file or the name of its folder."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import fsspec

from pipeline.config import SourceConfig
from pipeline.machine import map_in_threads
from pipeline.schema import Status
from pipeline.sources.descriptions import described, record_of
from pipeline.sources.input_rows import Row, failure, make_row
from pipeline.sources.listing import SourceFile
from pipeline.sources.retry import require_whole
from pipeline.storage.location import is_storage_error
from pipeline.storage.retries import call_with_retries

_SPLITS = frozenset("train training val valid validation dev test testing eval".split())
_NUMBERS = re.compile(rb"[-+.\d\seE]+")


def read_files(
    fs: fsspec.AbstractFileSystem, files: Sequence[SourceFile], source: SourceConfig
) -> Iterator[Row]:
    """Yield a row for each file; a file that cannot be read gives a row with a status."""
    return map_in_threads(lambda file: _read(fs, file, source), files)


def _read(fs: fsspec.AbstractFileSystem, file: SourceFile, source: SourceConfig) -> Row:
    values = {"label": folder_label(file), "source_offset": 0, "source_length": file.size}
    row = make_row(source.id_prefix + file.name, file.name, file.name, **values)
    try:
        row |= call_with_retries(describe, fs, file, source)
        row["bytes"] = call_with_retries(_whole_file, fs, file)
    except Exception as error:
        if not is_storage_error(error):
            raise
        row |= {"status": Status.READ_ERROR, "error": failure(error)}
    return row


def folder_label(file: SourceFile) -> str | None:
    """Name of the folder that contains a file; None for the root.

    Of ``cat/images/0.jpg``, as Tiny ImageNet has it, that is ``cat``, and ``train/images/0.jpg``
    has none.
    """
    folders = file.below.split("/")[:-1]
    if len(folders) > 1 and folders[-1].lower() == "images":
        return None if folders[-2].lower() in _SPLITS else folders[-2]
    return folders[-1] if folders else None


def describe(fs: fsspec.AbstractFileSystem, file: SourceFile, source: SourceConfig) -> Row:
    """Label, caption and carried columns of an image, from its folder and the files beside it.

    The folder is no label where it is a shard of img2dataset. Lines of numbers, such as YOLO's
    boxes, are no caption.
    """
    folder = folder_label(file)
    fields = {path.rsplit(".", 1)[-1].lower(): fs.cat_file(path) for path in file.sidecars}
    if _NUMBERS.fullmatch(fields.get("txt", b"")):
        del fields["txt"]
    values = described(fields, "", source)
    if values["label"] is None and not _is_shard(folder, record_of(fields)):
        values["label"] = folder
    return values


def _is_shard(folder: str | None, record: Mapping[str, Any]) -> bool:
    """Whether a folder is a numbered shard of img2dataset and no class."""
    is_number = folder is not None and folder.isdigit()
    return is_number and str(record.get("key")).startswith(str(folder))


def _whole_file(fs: fsspec.AbstractFileSystem, file: SourceFile) -> bytes:
    data: bytes = fs.cat_file(file.path)
    require_whole(len(data), file.size)
    return data


def chunks(files: Sequence[SourceFile], count: int, size: int) -> Iterator[list[SourceFile]]:
    """Group neighbouring files: at most ``count`` files and about ``size`` bytes in each group."""
    group: list[SourceFile] = []
    group_size = 0
    for file in files:
        if group and (len(group) >= count or group_size + file.size > size):
            yield group
            group, group_size = [], 0
        group.append(file)
        group_size += file.size
    if group:
        yield group
