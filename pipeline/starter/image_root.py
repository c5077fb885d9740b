"""Find the folder that the paths in a list are relative to, where it is not the list's own."""

import posixpath
from collections.abc import Sequence
from itertools import islice

from pipeline.config import is_uri
from pipeline.errors import UsageError
from pipeline.schema import Status
from pipeline.sources.datasource import ImageSource, read_rows
from pipeline.sources.listing import SourceFile, list_files

_TRIED = 3


def find_image_root(source: ImageSource) -> tuple[str | None, tuple[str, ...]]:
    """The folder below that of the list that has its first images, and notes.

    Returns:
        None where the first images can be read as it is, or are not found at all.
    """
    rows = list(islice(read_rows(source.source, source.units[0]), _TRIED))
    if any(row["status"] != Status.READ_ERROR for row in rows):
        return None, ()
    key, error = str(rows[0]["key"]), str(rows[0]["error"])
    folder = posixpath.dirname(source.source.uris[0])
    found = None if is_uri(key) or posixpath.isabs(key) else _below(folder, key)
    if found is None:
        unread = f"the first images of the list cannot be read: {error}"
        return None, (f"{unread} source.image_root says what its paths are relative to",)
    return found, (f"paths of the list are relative to {found}",)


def _below(folder: str, key: str) -> str | None:
    try:
        files: Sequence[SourceFile] = list_files(folder, {})
    except UsageError:
        return None
    for file in files:
        for name in (file.name, posixpath.splitext(file.name)[0]):
            if name.endswith(f"/{key}"):
                return f"{folder}/{name.removesuffix(f'/{key}')}"
    return None
