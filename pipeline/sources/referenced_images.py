"""Images that a table names: files beside it, or anywhere."""

import posixpath

from pipeline.config import is_uri
from pipeline.errors import UsageError
from pipeline.storage.location import Location, Options, open_location, redact


def resolve(table: Location, path: str, options: Options) -> Location:
    """Where an image is that a table names.

    Args:
        table: the file that names it.
        path: URI, absolute local path, or path relative to the folder of the table.
        options: storage options.

    Raises:
        UsageError: the scheme is unknown, or a bucket's table names a local path.
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


def read_neighbour(table: Location, path: str, options: Options) -> bytes:
    """The bytes of an image that a table names.

    Raises:
        UsageError: it cannot be read; the message says why.
    """
    place = resolve(table, path, options)
    try:
        return place.read()
    except UsageError as error:
        raise UsageError(redact(str(error))) from error
