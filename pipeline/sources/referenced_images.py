"""Images that a table names by path or URI: files beside the table, or anywhere."""

import posixpath

from pipeline.config import is_uri
from pipeline.errors import UsageError
from pipeline.storage.location import Location, Options, open_location, redact


def resolve(table: Location, path: str, options: Options) -> Location:
    """Where an image is that a table names.

    Args:
        table: file of the table.
        path: URI, absolute local path, or path relative to the table's folder.
        options: storage options.

    Raises:
        UsageError: the scheme is unknown, or the path is local and the table is not.
    """
    if is_uri(path):
        return open_location(path, options)
    if posixpath.isabs(path):
        if not table.is_local:
            raise UsageError(f"{path}: a local path in a table that is not on this machine")
        return Location(table.fs, path)
    folder = posixpath.dirname(table.path.split("?", 1)[0] if table.is_web else table.path)
    if table.is_web:
        return Location(table.fs, f"{folder}/{path}")
    return Location(table.fs, posixpath.normpath(f"{folder}/{path}"))


def read_referenced(table: Location, path: str, options: Options) -> bytes:
    """Read the bytes of an image that a table names.

    Raises:
        UsageError: it cannot be read.
    """
    image = resolve(table, path, options)
    try:
        return image.read()
    except UsageError as error:
        raise UsageError(redact(str(error))) from error
