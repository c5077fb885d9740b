"""Image folders: each file gives a row, labelled with the name of its folder."""

from collections.abc import Iterator, Sequence

import fsspec

from pipeline.machine import map_in_threads
from pipeline.schema import Status
from pipeline.sources.input_rows import Row, failure, make_row
from pipeline.sources.listing import SourceFile
from pipeline.sources.retry import require_whole
from pipeline.storage.location import is_storage_error
from pipeline.storage.retries import call_with_retries


def read_files(
    fs: fsspec.AbstractFileSystem, files: Sequence[SourceFile], prefix: str
) -> Iterator[Row]:
    """Yield a row for each file; a file that cannot be read gives a row with a status."""
    return map_in_threads(lambda file: _read(fs, file, prefix), files)


def _read(fs: fsspec.AbstractFileSystem, file: SourceFile, prefix: str) -> Row:
    values = {"label": label_of(file), "source_offset": 0, "source_length": file.size}
    row = make_row(prefix + file.name, file.name, file.name, **values)
    try:
        row["bytes"] = call_with_retries(_whole_file, fs, file)
    except Exception as error:
        if not is_storage_error(error):
            raise
        row |= {"status": Status.READ_ERROR, "error": failure(error)}
    return row


def label_of(file: SourceFile) -> str | None:
    """Name of the folder that contains a file; None for the root."""
    return file.below.split("/")[-2] if "/" in file.below else None


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
