"""Paths and URIs as settings write them."""

import posixpath
from pathlib import Path


def is_uri(path: str) -> bool:
    """Whether a path has a scheme (``s3://``)."""
    return "://" in path


def absolute(path: str, base: Path) -> str:
    """A relative local path against a folder; URIs and absolute paths as they are."""
    if is_uri(path):
        return path
    return posixpath.normpath((base / Path(path).expanduser()).as_posix())
