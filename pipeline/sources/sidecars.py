"""Files beside images that are not images: descriptions, annotations, statistics of tools."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import PurePosixPath

from pipeline.sources.listing import SourceFile

_EXTENSIONS = frozenset(
    "txt json jsonl ndjson xml csv tsv yaml yml md html htm pdf log parquet arrow npy npz pkl mat "
    "py ipynb sh ini toml cfg db sha256 md5 license "
    "tar tgz gz bz2 xz zst zip 7z rar mp4 avi mov mkv webm mp3 wav flac".split()
)
_DESCRIPTIONS = (".json", ".txt")


def attach_sidecars(files: Sequence[SourceFile]) -> tuple[list[SourceFile], Counter[str]]:
    """Take the files that are no images out of a folder's files.

    Files with an extension that is not listed here stay, because they may be images: what they are
    is seen when they are decoded.

    Returns:
        The other files, each with the paths of its own JSON and text file, and the number of files
        that were taken out, by extension.
    """
    sidecars = [file for file in files if _extension(file) in _EXTENSIONS]
    if not sidecars:
        return list(files), Counter()
    others = [file for file in files if _extension(file) not in _EXTENSIONS]
    paths = {_lower_extension(file.path): file.path for file in sidecars}
    counts = Counter(map(_extension, sidecars))
    return [replace(file, sidecars=_own(file, paths)) for file in others], counts


def told(counts: Counter[str], files: Sequence[SourceFile]) -> str:
    """A line about the files that were taken out."""
    kinds = ", ".join(f"{count:,} .{extension}" for extension, count in counts.most_common())
    described = sum(bool(file.sidecars) for file in files)
    used = f"; {described:,} images take label or caption from a file of their name"
    return f"files beside the images that are no images: {kinds}{used if described else ''}"


def _own(file: SourceFile, paths: Mapping[str, str]) -> tuple[str, ...]:
    """Paths of ``a.json`` and ``a.txt``, or ``a.jpg.json`` and ``a.jpg.txt``, for ``a.jpg``.

    Args:
        file: an image.
        paths: path of every sidecar, by the path with its extension in lower case.
    """
    stem, _, extension = file.path.rpartition(".")
    stems = [file.path] if not stem or "/" in extension else [stem, file.path]
    candidates = ([f"{stem}{ending}" for stem in stems] for ending in _DESCRIPTIONS)
    own = (next((paths[name] for name in names if name in paths), None) for names in candidates)
    return tuple(path for path in own if path is not None)


def _lower_extension(path: str) -> str:
    stem, _, extension = path.rpartition(".")
    return f"{stem}.{extension.lower()}"


def _extension(file: SourceFile) -> str:
    return PurePosixPath(file.name).suffix.lower().lstrip(".")
