"""Open paths and URIs with fsspec (s3fs for s3://), and list, read and write files."""

import errno
import fnmatch
import os
import re
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
import pyarrow.fs
from fsspec.asyn import AsyncFileSystem
from fsspec.core import split_protocol, url_to_fs
from fsspec.implementations.local import LocalFileSystem
from fsspec.registry import known_implementations
from fsspec.spec import AbstractFileSystem
from fsspec.utils import get_protocol

from legrad.settings import is_uri
from pipeline.errors import UsageError
from pipeline.storage.retries import call_with_retries, with_client_defaults

Options = Mapping[str, Any]
FileInfos = dict[str, dict[str, Any]]
"""A file system's info about files (``type``, ``size``, ...), by path."""
_USER = re.compile(r"(\w://)[^/\s@]*@")
_QUERY = re.compile(r"(https?://[^\s?'\"]*)\?[^\s'\",)]*")
_CLIENTS = frozenset(
    "fsspec s3fs gcsfs adlfs botocore aiobotocore aiohttp yarl azure requests urllib3 http "
    "httpx httpx2 httpcore huggingface_hub".split()
)


@dataclass(frozen=True)
class Location:
    """A file or folder in a storage.

    Attributes:
        fs: fsspec file system.
        path: path within the file system, without a trailing slash.
    """

    fs: fsspec.AbstractFileSystem
    path: str

    @property
    def is_web(self) -> bool:
        """Whether it is on a web server, which has files but no folders that can be listed."""
        return "http" in self.fs.protocol

    @property
    def is_local(self) -> bool:
        """Whether it is on a file system of this machine."""
        return isinstance(self.fs, LocalFileSystem)

    def child(self, *parts: str) -> "Location":
        """The location of a path below this one."""
        return Location(self.fs, "/".join([self.path, *parts]))

    def exists(self) -> bool:
        """Whether a file or folder exists; asks the storage, not a cached listing.

        Raises:
            UsageError: the storage refuses.
        """
        self.fs.invalidate_cache()
        with self._explained():
            return bool(call_with_retries(self.fs.exists, self.path))

    def read(self) -> bytes:
        """Read the whole file.

        Raises:
            UsageError: the storage refuses, or the file is missing.
        """
        with self._explained():
            data: bytes = call_with_retries(self.fs.cat_file, self.path)
        return data

    def read_range(self, start: int, stop: int) -> bytes:
        """Read the bytes from one offset up to another; errors are those of the storage.

        A web server without byte ranges sends the whole file, from which they are cut.
        """
        data: bytes = self.fs.cat_file(self.path, start=start, end=stop)
        return data[start:stop] if len(data) > stop - start else data

    def delete(self) -> None:
        """Delete the file if it exists.

        Raises:
            UsageError: the storage refuses.
        """
        if self.exists():
            with self._explained():
                call_with_retries(self.fs.rm_file, self.path)

    def write(self, data: bytes) -> None:
        """Write the whole file at once: one PUT, or a temporary file and a rename on a local disk.

        Raises:
            UsageError: the storage refuses.
        """
        with self._explained():
            if self.is_local:
                _write_local(Path(self.path), data)
            else:
                call_with_retries(self.fs.pipe_file, self.path, data)

    def files(self, pattern: str = "*") -> list[str]:
        """Sorted names of the files directly in this folder; empty if there is no folder."""
        self.fs.invalidate_cache()
        with self._explained():
            try:
                entries = call_with_retries(self.fs.ls, self.path, detail=True)
            except FileNotFoundError:
                return []
        names = [entry["name"].rsplit("/", 1)[-1] for entry in entries if entry["type"] == "file"]
        return sorted(name for name in names if fnmatch.fnmatch(name, pattern))

    def sizes(self) -> dict[str, int]:
        """Size in bytes of every file below this folder, by relative path, sorted."""
        self.fs.invalidate_cache()
        with self._explained():
            files = call_with_retries(find, self)
        start = len(self.path) + 1
        return {  # some stores list a marker object for the folder itself, with an empty name
            path[start:]: int(info["size"] or 0)
            for path, info in sorted(files.items())
            if path[start:]
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


def arrow_filesystem(location: Location) -> pyarrow.fs.FileSystem:
    """The pyarrow view of a location's filesystem."""
    if location.is_local:
        return pyarrow.fs.LocalFileSystem()
    return pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(location.fs))


def open_location(uri: str, options: Options | None = None) -> Location:
    """The location that a path or URI names.

    Args:
        uri: local path or URI.
        options: storage options of fsspec, or a group of them for each protocol.

    Raises:
        UsageError: the scheme is unknown, or its package is not installed.
    """
    try:
        chosen = _options_for(uri, options or {})
        fs, path = url_to_fs(uri, **with_client_defaults(get_protocol(uri), chosen))
    except (ValueError, ImportError) as error:
        raise UsageError(redact(f"{uri}: {error}")) from error
    if isinstance(fs, LocalFileSystem):
        path = Path(path).as_posix()  # without // and /./, so that names below it are cut correctly
    return Location(fs, path.rstrip("/"))


def local_path(name: str | Path) -> Path:
    """A path on this machine.

    Raises:
        UsageError: it is a URI.
    """
    if is_uri(str(name)):
        raise UsageError(
            f"{name}: expected a path on this machine, found a URI; write to a path, and copy it "
            "from there"
        )
    return Path(name)


def redact(text: str) -> str:
    """The text without the secrets that URIs in it may hold: ``user:password@``, signed queries."""
    return _QUERY.sub(r"\1", _USER.sub(r"\1", text))


def find(location: Location) -> FileInfos:
    """Every file below a folder, by path; empty if the folder does not exist.

    Stores list all keys at once. Other file systems are walked here: fsspec's own walk leaves out
    folders that it cannot list, and does not pass its ``on_error`` on to subfolders.

    Raises:
        OSError: a folder cannot be listed. Clients of stores raise errors of their own, too.
    """
    fs = location.fs
    files: FileInfos = {}
    if _lists_all_at_once(fs):
        files = fs.find(location.path, detail=True)
        return files
    folders = [location.path]
    while folders:
        folder = folders.pop()
        try:
            entries = fs.ls(folder, detail=True)
        except FileNotFoundError:  # never there, or deleted since its parent was listed
            continue
        for entry in entries:
            if entry["type"] != "directory":
                files[entry["name"]] = entry
            elif entry["name"].rstrip("/") != folder:
                folders.append(entry["name"].rstrip("/"))
    return files


def _lists_all_at_once(fs: AbstractFileSystem) -> bool:
    if isinstance(fs, AsyncFileSystem):
        return type(fs)._find is not AsyncFileSystem._find
    return type(fs).find is not AbstractFileSystem.find


def _options_for(uri: str, options: Options) -> dict[str, Any]:
    """The options without the groups that are meant for other protocols."""
    parts = uri.split("::") if "::" in uri else [uri]
    protocols = {split_protocol(part)[0] or "file" for part in parts}
    return {
        name: value
        for name, value in options.items()
        if name not in known_implementations or name in protocols or not isinstance(value, dict)
    }


def is_storage_error(error: BaseException) -> bool:
    """Whether an error comes from the storage and not from our code.

    It does if it is an OSError, if its class is one of a storage client's, or if it is a ValueError
    that a client raised: s3fs does so for a bucket name that S3 does not allow. Errors of other
    processes have no traceback, so a ValueError from there never counts.
    """
    if isinstance(error, OSError) or _package(type(error).__module__) in _CLIENTS:
        return True
    if not isinstance(error, ValueError) or error.__traceback__ is None:
        return False
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return _package(frame.f_globals.get("__name__", "")) in _CLIENTS


def _package(module: str) -> str:
    return module.split(".", maxsplit=1)[0]


def explain_failure(uri: str, error: Exception) -> UsageError:
    """The error for the user that explains a storage error at a URI."""
    uri, text = redact(uri), redact(str(error))
    name = type(error).__name__
    if isinstance(error, FileNotFoundError):
        if uri.startswith("file://") or "://" not in uri:
            path = uri.removeprefix("file://")
            return UsageError(f"{path}: not found. There is no such file or folder.")
        return UsageError(f"{uri}: not found. Check the bucket and the path.")
    if isinstance(error, PermissionError):
        local = error.errno in (errno.EACCES, errno.EPERM)  # buckets have no numbers
        advice = "its owner and permissions" if local else "the credentials"
        return UsageError(f"{uri}: permission denied ({text}). Check {advice}.")
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return UsageError(f"{uri}: the disk is full. Free some space, or choose another place.")
    if uri.startswith("hf://"):
        return UsageError(
            f"{uri}: the Hugging Face hub did not answer ({name}: {text}). Where there is a "
            "network, `hf download REPO --repo-type dataset --local-dir FOLDER` fetches the data; "
            "then name FOLDER here. Private data need `hf auth login`."
        )
    if "EndpointConnection" in name:
        return UsageError(f"{uri}: {text}. Check AWS_ENDPOINT_URL and the network.")
    if "credentials" in f"{name} {text}".lower():
        return UsageError(
            f"{uri}: no credentials. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and "
            "AWS_ENDPOINT_URL for a store other than AWS), or source.options and output_options; "
            "commands that read an output take --storage-option."
        )
    return UsageError(f"{uri}: {name}: {text}")
