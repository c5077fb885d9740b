"""URI -> filesystem (fsspec; s3fs for s3://): list, read, put in one piece."""

import errno
import fnmatch
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
from fsspec.core import split_protocol, url_to_fs
from fsspec.implementations.local import LocalFileSystem
from fsspec.registry import known_implementations
from fsspec.utils import get_protocol

from pipeline.errors import UsageError
from pipeline.storage.retries import again, patient

Options = Mapping[str, Any]
_USER = re.compile(r"(\w://)[^/\s@]*@")
_QUERY = re.compile(r"(https?://[^\s?'\"]*)\?[^\s'\",)]*")
_CLIENTS = ("botocore", "aiobotocore", "aiohttp", "gcsfs", "azure", "requests", "urllib3", "http")


@dataclass(frozen=True)
class Location:
    """A place in storage.

    Attributes:
        fs: fsspec filesystem.
        path: path within it, without a trailing slash.
    """

    fs: fsspec.AbstractFileSystem
    path: str

    @property
    def is_web(self) -> bool:
        """Whether this is a web server: it has files, but no folders that could be listed."""
        return "http" in self.fs.protocol

    @property
    def is_local(self) -> bool:
        """Whether this is the machine's own file system."""
        return isinstance(self.fs, LocalFileSystem)

    def child(self, *parts: str) -> "Location":
        """A place below this one."""
        return Location(self.fs, "/".join([self.path, *parts]))

    def exists(self) -> bool:
        """Asks the store, not a cached listing.

        Raises:
            UsageError: the storage refuses.
        """
        self.fs.invalidate_cache()
        with self._explained():
            return bool(again(self.fs.exists, self.path))

    def read(self) -> bytes:
        """All bytes.

        Raises:
            UsageError: the storage refuses, or there is no such file.
        """
        with self._explained():
            data: bytes = again(self.fs.cat_file, self.path)
        return data

    def delete(self) -> None:
        """Remove the file; none there is fine.

        Raises:
            UsageError: the storage refuses.
        """
        if self.exists():
            with self._explained():
                again(self.fs.rm_file, self.path)

    def write(self, data: bytes) -> None:
        """All bytes in one piece: one PUT, or a temporary file and a rename on a local disk.

        Raises:
            UsageError: the storage refuses.
        """
        with self._explained():
            if self.is_local:
                _write_local(Path(self.path), data)
            else:
                again(self.fs.pipe_file, self.path, data)

    def files(self, pattern: str = "*") -> list[str]:
        """Names of the files directly in this folder, sorted; none where there is no folder."""
        self.fs.invalidate_cache()
        with self._explained():
            try:
                entries = again(self.fs.ls, self.path, detail=True)
            except FileNotFoundError:
                return []
        names = [entry["name"].rsplit("/", 1)[-1] for entry in entries if entry["type"] == "file"]
        return sorted(name for name in names if fnmatch.fnmatch(name, pattern))

    def sizes(self) -> dict[str, int]:
        """Bytes of every file below this folder, by its path relative to it, sorted."""
        self.fs.invalidate_cache()
        with self._explained():
            found = again(self.fs.find, self.path, detail=True)
        cut = len(self.path) + 1  # some stores list a mark of the folder itself
        return {
            path[cut:]: int(info["size"] or 0) for path, info in sorted(found.items()) if path[cut:]
        }

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if not is_storage_error(error):
                raise
            raise explain_failure(str(self.fs.unstrip_protocol(self.path)), error) from error


def _write_local(target: Path, data: bytes) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f".{target.name}.{os.getpid()}.draft")
    try:
        draft.write_bytes(data)
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)


def locate(uri: str, options: Options | None = None) -> Location:
    """Find the filesystem of a path or URI.

    Raises:
        UsageError: the scheme is unknown, or its package is not installed.
    """
    try:
        own = _options_of(uri, options or {})
        fs, path = url_to_fs(uri, **patient(get_protocol(uri), own))
    except (ValueError, ImportError) as error:
        raise UsageError(redact(f"{uri}: {error}")) from error
    if isinstance(fs, LocalFileSystem):
        path = Path(path).as_posix()  # no // or /./: it is cut off the files below by its length
    return Location(fs, path.rstrip("/"))


def redact(text: str) -> str:
    """A text without what URIs in it may give away: ``user:password@``, and signed queries."""
    return _QUERY.sub(r"\1", _USER.sub(r"\1", text))


def _options_of(uri: str, options: Options) -> dict[str, Any]:
    """Without the groups that are meant for other protocols."""
    own = uri.split("::") if "::" in uri else [uri]
    protocols = {split_protocol(part)[0] or "file" for part in own}
    return {
        name: value
        for name, value in options.items()
        if name not in known_implementations or name in protocols or not isinstance(value, dict)
    }


def is_storage_error(error: BaseException) -> bool:
    """Whether the storage refused: an OSError, or one of a client's own, which may be none."""
    foreign = type(error).__module__.split(".")[0] in _CLIENTS
    return foreign or isinstance(error, OSError | ValueError)


def explain_failure(uri: str, error: Exception) -> UsageError:
    """The clear form of a storage error."""
    uri, text = redact(uri), redact(str(error))
    name = type(error).__name__
    if isinstance(error, FileNotFoundError):
        return UsageError(f"{uri}: not found. Check the bucket and the path.")
    if isinstance(error, PermissionError):
        local = error.errno in (errno.EACCES, errno.EPERM)  # buckets have no numbers
        advice = "who owns it and who may use it" if local else "the credentials"
        return UsageError(f"{uri}: permission denied ({text}). Check {advice}.")
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return UsageError(f"{uri}: the disk is full. Make room, or choose another place.")
    if "EndpointConnection" in name:
        return UsageError(f"{uri}: {text}. Check AWS_ENDPOINT_URL and the network.")
    if "credentials" in f"{name} {text}".lower():
        return UsageError(
            f"{uri}: no credentials. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and "
            "AWS_ENDPOINT_URL for another store than AWS), or storage_options."
        )
    return UsageError(f"{uri}: {name}: {text}")
