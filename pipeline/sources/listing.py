"""List the files of a source, with their names relative to its root."""

import fnmatch
import glob
import os
import re
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

from fsspec.utils import glob_translate

from pipeline.config import Root
from pipeline.errors import UsageError
from pipeline.machine import map_in_threads
from pipeline.sources.foreign_layouts import foreign_layout
from pipeline.storage.location import (
    FileInfos,
    Location,
    Options,
    explain_failure,
    find,
    is_storage_error,
    open_location,
    redact,
)


@dataclass(frozen=True)
class SourceFile:
    """One file of a source.

    Attributes:
        path: path within the file system.
        name: path relative to the root, below the root's alias where it has one. It is part of
            image ids, so it has no bucket and no query string.
        size: size in bytes; 0 where a web server does not say.
        version: text that changes with the contents (``etag:...`` or ``mtime:...``); empty where
            the storage gives neither.
        alias: alias of the root, or empty.
        sidecars: paths of the files of the same name that describe it (image folders).
    """

    path: str
    name: str
    size: int
    version: str = ""
    alias: str = ""
    sidecars: tuple[str, ...] = ()

    @property
    def below(self) -> str:
        """The name without the root's alias."""
        return self.name.removeprefix(f"{self.alias}/") if self.alias else self.name


def list_files(
    root: str | Root, options: Options, suffixes: Sequence[str] = ()
) -> list[SourceFile]:
    """List the files that a path or URI stands for, sorted by name.

    Args:
        root: a file, a folder (with all its subfolders), a glob, or any of these with brace ranges:
            ``s3://bucket/train-{0000..0127}.tar``. A web server (https://) has files only.
        options: storage options.
        suffixes: endings of the files that are taken from a folder; empty: all files.

    Raises:
        UsageError: there are no files, or the storage refuses.
    """
    root = root if isinstance(root, Root) else Root("", root)
    by_path: dict[str, SourceFile] = {}
    patterns = expand_braces(root.uri)
    for listed in map_in_threads(lambda pattern: _list(pattern, options, suffixes), patterns):
        by_path.update({file.path: file for file in listed})
    files = sorted(by_path.values(), key=lambda file: file.name)
    if not root.alias:
        return files
    return [replace(file, name=f"{root.alias}/{file.name}", alias=root.alias) for file in files]


def _list(pattern: str, options: Options, suffixes: Sequence[str]) -> list[SourceFile]:
    location = open_location(pattern, options)
    try:
        files = _list_web(location, pattern) if location.is_web else _list_one(location, suffixes)
    except Exception as error:
        if not is_storage_error(error):
            raise
        reason = str(explain_failure(pattern, error)).rstrip(".")
        raise UsageError(f"{reason}{_hint(pattern) or '.'}") from error
    if not files:
        wanted = f" ending in {' or '.join(suffixes)}" if suffixes else ""
        others = _list_one(location, ()) if suffixes else []
        advice = foreign_layout(redact(pattern), [file.name for file in others])
        raise UsageError(
            f"{redact(pattern)}: no files{wanted} found there{_hint(pattern)}"
            + (f". It holds {advice}" if advice else "")
        )
    return files


def _hint(pattern: str) -> str:
    """Advice for a pattern that joins several places with commas, semicolons or blanks."""
    parts = re.split(r"[,;\s]+", redact(pattern))
    if len(parts) < 2 or not ("," in pattern or all("." in part for part in parts)):
        return ""
    return f". Write several locations as a list: `uri: [{', '.join(parts)}]`"


def _list_web(location: Location, uri: str) -> list[SourceFile]:
    plain = uri.split("?", 1)[0]
    name = plain.rsplit("/", 1)[-1]
    if "*" in plain or "[" in plain or not name:
        raise UsageError(
            f"{redact(uri)}: a web server cannot list its files. Name each of them, for example "
            "with a brace range (https://host/train-{000..127}.tar), or make a `list` source."
        )
    info = location.fs.info(location.path)
    return [SourceFile(location.path, name, int(info.get("size") or 0), version_of(info))]


def expand_braces(uri: str) -> list[str]:
    """Expand braces as a shell does: ranges of numbers, alternatives, and both within each other.

    ``a-{00..02}.tar`` stands for a-00.tar, a-01.tar and a-02.tar, ``{00..10..5}`` for 00, 05 and
    10, ``{a..c}`` for a, b and c, and ``{x,y}`` for x and y. Braces without a comma or range are
    part of a name.

    Raises:
        UsageError: a range that is not one of ascending numbers or letters.
    """
    braces = re.search(r"\{([^{}]*(?:,|\.\.)[^{}]*)\}", uri)
    if not braces:
        return [uri]
    before, after = uri[: braces.start()], uri[braces.end() :]
    expanded = [expand_braces(f"{before}{part}{after}") for part in _alternatives(braces[1])]
    return list(dict.fromkeys(chain.from_iterable(expanded)))


def _alternatives(inside: str) -> list[str]:
    if "," in inside:
        return inside.split(",")
    if re.fullmatch(r"[a-z]\.\.[a-z]|[A-Z]\.\.[A-Z]", inside) and inside[0] <= inside[-1]:
        return [chr(code) for code in range(ord(inside[0]), ord(inside[-1]) + 1)]
    span = re.fullmatch(r"(\d+)\.\.(\d+)(?:\.\.(\d+))?", inside)
    first, last, step = span.groups() if span else ("1", "0", None)
    if int(last) < int(first) or step == "0":
        raise UsageError(
            f"brace range {{{inside}}}: expected ascending numbers such as {{000..127}}, letters "
            "such as {a..f}, or alternatives such as {a,b}"
        )
    return [str(i).zfill(len(first)) for i in range(int(first), int(last) + 1, int(step or 1))]


def _list_one(location: Location, suffixes: Sequence[str]) -> list[SourceFile]:
    fs = location.fs
    if glob.has_magic(location.path) and not fs.exists(location.path):
        literal = re.split(r"[*?\[]", location.path)[0]
        root = literal.rsplit("/", 1)[0]
        details: FileInfos = (
            _glob_local(location.path, root)
            if location.is_local
            else _without_markers(fs.glob(location.path, detail=True))
        )
        return [_file(path, root, info) for path, info in details.items() if _is_file(info)]
    info = fs.info(location.path)
    if _is_file(info):
        return [_file(location.path, location.path.rsplit("/", 1)[0], info)]
    details = _find_local(location.path) if location.is_local else _without_markers(find(location))
    endings = tuple(suffixes) or ("",)
    return [
        _file(path, location.path, entry)
        for path, entry in details.items()
        if _is_file(entry) and not _hidden(path, location.path) and path.lower().endswith(endings)
    ]


def _glob_local(pattern: str, root: str) -> FileInfos:
    """The files that match a pattern; folders without a possible match are not entered.

    fsspec's own glob leaves out folders that it cannot read, and does not follow links to folders.

    Args:
        pattern: a pattern as fsspec takes it.
        root: the folder above its first wildcard.

    Raises:
        OSError: a folder that a match may lie in cannot be read.
    """
    parts = pattern[len(root) :].strip("/").split("/")

    def enter(depth: int, name: str) -> bool:
        if any("**" in part for part in parts[: depth + 1]):
            return True
        return depth + 1 < len(parts) and fnmatch.fnmatchcase(name, parts[depth])

    wanted = re.compile(glob_translate(pattern))
    files = _find_local(root or "/", enter)
    return {path: info for path, info in files.items() if wanted.match(path)}


def _find_local(
    root: str, enter: Callable[[int, str], bool] = lambda depth, name: True
) -> FileInfos:
    """Every file below a local folder; links are followed, which fsspec does not do.

    A link to a folder that it lies in itself is left out: what is there is listed already.

    Args:
        root: the folder.
        enter: whether to look into a folder, by the number of folders above it and its name.

    Raises:
        OSError: a folder cannot be read, so its images would be missing silently.
    """
    files: FileInfos = {}
    above = {root: frozenset([_identity(root)])}  # the folders that a folder lies in, and itself
    for folder, subfolders, names in os.walk(root, onerror=_raise, followlinks=True):
        depth = len(Path(folder).relative_to(root).parts)
        containing = above.pop(folder)
        for name in list(subfolders):
            below = os.path.join(folder, name)  # noqa: PTH118 - as `os.walk` names it
            if enter(depth, name) and (identity := _identity(below)) not in containing:
                above[below] = containing | {identity}
            else:
                subfolders.remove(name)
        for name in names:
            path = Path(folder, name)
            status = path.stat() if path.exists() else None
            if status and not stat.S_ISREG(status.st_mode):
                continue  # a pipe or a device
            size, mtime = (status.st_size, status.st_mtime) if status else (0, 0.0)
            files[path.as_posix()] = {"type": "file", "size": size, "mtime": mtime}
    return files


def _identity(folder: str) -> tuple[int, int]:
    """Device and inode, which identify a folder whatever links lead to it."""
    status = Path(folder).stat()
    return status.st_dev, status.st_ino


def _raise(error: OSError) -> None:
    raise error


def _is_file(info: dict[str, Any]) -> bool:
    """Whether it is a file or a link to a file; a broken link counts, and becomes a failed row."""
    if info.get("islink"):
        return not Path(str(info["name"])).is_dir()
    return info["type"] in ("file", "link")  # SFTP names links without following them


def _without_markers(details: FileInfos) -> FileInfos:
    """Leave out empty objects without an extension, which stand for a bucket's folders or jobs."""
    return {
        path: info
        for path, info in details.items()
        if info.get("size") != 0 or "." in path.rstrip("/").rsplit("/", 1)[-1]
    }


def _hidden(path: str, root: str) -> bool:
    return any(part.startswith(".") for part in path[len(root) :].split("/"))


def _file(path: str, root: str, info: dict[str, Any]) -> SourceFile:
    size = info.get("size") or 0
    return SourceFile(path, path[len(root) :].lstrip("/"), int(str(size)), version_of(info))


def version_of(info: dict[str, Any]) -> str:
    """Text that changes with a file's contents, from its file system's info; empty without one."""
    for kind, names in (("etag", ("ETag", "etag")), ("mtime", ("mtime", "LastModified"))):
        for name in names:
            if info.get(name) is not None:
                return f"{kind}:{str(info[name]).strip(chr(34))}"
    return ""
