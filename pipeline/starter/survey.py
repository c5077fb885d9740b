"""What lies at a URI: image files or tar shards, and the labels that come with them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal

from pipeline.config import SourceConfig
from pipeline.errors import UsageError
from pipeline.sources.listing import SourceFile, list_files
from pipeline.sources.webdataset import IMAGE_EXTENSIONS, read_shard
from pipeline.storage import locate

_TARS = (".tar", ".tar.gz", ".tgz")
_SHARDS_READ = 3
_SAMPLES_READ = 500


@dataclass(frozen=True)
class Survey:
    """What was found.

    Attributes:
        uri: that was looked at.
        format: of the source, as settings name it.
        labels: label -> images, most frequent first; of shards only the samples that were read.
        unlabelled: images without a label, likewise.
        summary: what was found, in words.
        notes: what the user should know.
    """

    uri: str
    format: Literal["folder", "webdataset"]
    labels: Counter[str]
    unlabelled: int
    summary: str
    notes: tuple[str, ...]


def survey(uri: str) -> Survey:
    """List the files, and read labels: folder names, or those of some shards' samples.

    Raises:
        UsageError: nothing is there, the storage refuses, or no file is an image or a tar.
    """
    files = list_files(uri, {})
    tars = [file for file in files if file.name.lower().endswith(_TARS)]
    images = [file for file in files if _extension(file) in IMAGE_EXTENSIONS]
    if tars:
        return _of_shards(uri, tars, len(images))
    if images:
        return _of_folder(uri, images, len(files) - len(images))
    kinds = ", ".join(sorted({_extension(file) or "none" for file in files})[:8])
    raise UsageError(
        f"{uri}: {len(files)} files, but no images and no .tar shards (extensions: {kinds})"
    )


def _of_folder(uri: str, images: Sequence[SourceFile], others: int) -> Survey:
    folders = [file.name.split("/")[-2] if "/" in file.name else None for file in images]
    labels = Counter(folder for folder in folders if folder is not None)
    notes = []
    if others:
        notes.append(
            f"files there that are no images: {others:,}; each becomes a row with a status"
        )
    return Survey(
        uri,
        "folder",
        _sorted(labels),
        folders.count(None),
        f"{len(images):,} image files, {_classes(len(labels))} (folders)",
        tuple(notes),
    )


def _of_shards(uri: str, tars: Sequence[SourceFile], images: int) -> Survey:
    source = SourceConfig(format="webdataset", uri=(uri,))
    labels: Counter[str] = Counter()
    samples = unlabelled = 0
    # Shards may be sorted by class: the ends and the middle show more than the beginning.
    chosen = sorted({0, len(tars) // 2, len(tars) - 1})[:_SHARDS_READ]
    for number in chosen:
        with locate(uri).fs.open(tars[number].path, "rb") as stream:
            for row in islice(read_shard(stream, tars[number].name, "", source), _SAMPLES_READ):
                samples += 1
                if row.get("label"):
                    labels[row["label"]] += 1
                else:
                    unlabelled += 1
    notes = [
        f"labels are those of {samples:,} samples in {len(chosen)} of {len(tars):,} shards; add "
        "classes that are missing"
    ]
    if images:
        notes.append(f"{images:,} image files beside the shards are not part of the source")
    if unlabelled:
        notes.append(
            f"{unlabelled:,} of {samples:,} samples have no label: if their json names it "
            "otherwise, set source.label_field"
        )
    summary = f"{len(tars):,} tar shards, {_classes(len(labels))} seen"
    return Survey(uri, "webdataset", _sorted(labels), unlabelled, summary, tuple(notes))


def _classes(count: int) -> str:
    return f"{count:,} {'class' if count == 1 else 'classes'}"


def _sorted(labels: Counter[str]) -> Counter[str]:
    return Counter(dict(sorted(labels.items(), key=lambda item: (-item[1], item[0]))))


def _extension(file: SourceFile) -> str:
    return file.name.rpartition(".")[2].lower() if "." in file.name else ""
