"""Image folders: one row per file, the class is the folder it lies in."""

from collections.abc import Iterator, Sequence

import fsspec

from pipeline.machine import map_in_threads
from pipeline.schema import Status
from pipeline.sources.listing import SourceFile
from pipeline.sources.retry import require_whole
from pipeline.sources.rows import Row, failure, make_row
from pipeline.storage.location import is_storage_error
from pipeline.storage.retries import call_with_retries


def read_files(
    fs: fsspec.AbstractFileSystem, files: Sequence[SourceFile], prefix: str
) -> Iterator[Row]:
    """Rows of some files; one that the storage will not give is a row with a status."""
    return map_in_threads(lambda file: _read(fs, file, prefix), files)


def _read(fs: fsspec.AbstractFileSystem, file: SourceFile, prefix: str) -> Row:
    place = {"label": label_of(file), "source_offset": 0, "source_length": file.size}
    row = make_row(prefix + file.name, file.name, file.name, **place)
    try:
        row["bytes"] = call_with_retries(_whole_file, fs, file)
    except Exception as error:
        if not is_storage_error(error):
            raise
        row |= {"status": Status.READ_ERROR, "error": failure(error)}
    return row


def label_of(file: SourceFile) -> str | None:
    """The folder that a file lies in."""
    return file.below.split("/")[-2] if "/" in file.below else None


def _whole_file(fs: fsspec.AbstractFileSystem, file: SourceFile) -> bytes:
    data: bytes = fs.cat_file(file.path)
    require_whole(len(data), file.size)
    return data


def chunks(files: Sequence[SourceFile], count: int, size: int) -> Iterator[list[SourceFile]]:
    """Neighbouring files in groups of at most ``count`` files and about ``size`` bytes."""
    group: list[SourceFile] = []
    held = 0
    for file in files:
        if group and (len(group) >= count or held + file.size > size):
            yield group
            group, held = [], 0
        group.append(file)
        held += file.size
    if group:
        yield group
