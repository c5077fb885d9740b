"""Image folders: one row per file, the class is the folder it lies in."""

from collections.abc import Iterator, Sequence

import fsspec

from pipeline.retries import again
from pipeline.schema import Status
from pipeline.sources.listing import SourceFile
from pipeline.sources.retry import require_whole
from pipeline.sources.rows import Row, make_row
from pipeline.storage import is_storage_error


def read_files(
    fs: fsspec.AbstractFileSystem, files: Sequence[SourceFile], prefix: str
) -> Iterator[Row]:
    """Rows of some files; one that the storage will not give is a row with a status."""
    for file in files:
        label = file.name.split("/")[-2] if "/" in file.name else None
        place = {"label": label, "source_offset": 0, "source_length": file.size}
        row = make_row(prefix + file.name, file.name, file.name, **place)
        try:
            row["bytes"] = again(_whole_file, fs, file)
        except Exception as error:
            if not is_storage_error(error):
                raise
            row |= {"status": Status.READ_ERROR, "error": f"{type(error).__name__}: {error}"[:500]}
        yield row


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
