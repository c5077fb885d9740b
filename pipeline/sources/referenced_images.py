"""Read the images that a table names by path or URI."""

import posixpath

from pipeline.config import is_uri
from pipeline.errors import UsageError
from pipeline.schema import Status
from pipeline.sources.input_rows import Row
from pipeline.storage.location import Location, Options, open_location


def resolve(table: Location, path: str, options: Options) -> Location:
    """The location of an image that a table names.

    Args:
        table: the table.
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
    """Read the bytes of an image that a table names; see `resolve` for the arguments.

    Raises:
        UsageError: it cannot be read.
    """
    return resolve(table, path, options).read()


def referenced_values(table: Location, path: str, options: Options) -> Row:
    """The values of a row for an image that a table names: its bytes, or a status and an error."""
    try:
        return {"bytes": read_referenced(table, path, options)}
    except UsageError as error:
        return {"status": Status.READ_ERROR, "error": str(error)[:500]}
