"""Fetch files from any path or fsspec URI; imports neither torch nor open_clip."""

import hashlib
import os
from pathlib import Path

import fsspec
from filelock import FileLock
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem


def fetch(uri: str, what: str = "weights file") -> Path:
    """The local path of a file; a remote file is copied to the cache directory first.

    The cache is ``$LEGRAD_CACHE``, default ``~/.cache/legrad``. A remote file that has changed
    since is copied again.

    Args:
        uri: path or URI of the file.
        what: what the file is, for the message.

    Raises:
        FileNotFoundError: there is no file at ``uri``.
    """
    fs, path = url_to_fs(uri)
    if not fs.exists(path):
        raise FileNotFoundError(f"no {what} at {uri}")
    if isinstance(fs, LocalFileSystem):
        return Path(path)
    cache = Path(os.environ.get("LEGRAD_CACHE") or Path.home() / ".cache" / "legrad")
    # The suffix decides how the file is read, so its name is kept, in a separate folder per URI.
    folder = cache / hashlib.sha256(uri.encode()).hexdigest()[:16]
    cache.mkdir(parents=True, exist_ok=True)
    # The replicas of a machine start together: the first one copies, the others wait for it.
    with FileLock(folder.with_suffix(".lock")):
        local = fsspec.open_local(
            f"filecache::{uri}",
            filecache={"cache_storage": str(folder), "check_files": True, "same_names": True},
        )
    return Path(str(local))
