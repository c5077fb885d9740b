"""WebDataset shards: one row per sample, a tar read front to back, whatever is broken in it."""

import gzip
import json
import lzma
import re
import tarfile
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO, Any, Self

from pipeline.config import SourceConfig
from pipeline.schema import UNREADABLE, Status
from pipeline.sources.rows import (
    Row,
    carried,
    clean,
    failure,
    is_corruption,
    make_row,
    text_of,
)

IMAGE_EXTENSIONS = frozenset("jpg jpeg jfif png webp gif bmp tif tiff ppm pgm jp2 avif".split())
BROKEN_TAR = (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, lzma.LZMAError)
_SAMPLE_NAME = re.compile(r"((?:.*/)?[^/.][^/.]*)(?:\.([^/]*))?", re.DOTALL)


@dataclass
class Sample:
    """The members of a tar that share a key."""

    key: str
    fields: dict[str, bytes] = field(default_factory=dict)
    places: dict[str, tuple[int, int]] = field(default_factory=dict)
    whole: bool = True


class _StrictMember(tarfile.TarInfo):
    """A member whose damaged or missing header is an error, which `tarfile` takes for the end."""

    @classmethod
    def fromtarfile(cls, tar: tarfile.TarFile) -> Self:
        """Read the next header; only zero blocks end an archive."""
        try:
            return super().fromtarfile(tar)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"{error} at byte {tar.offset}") from error


def read_shard(stream: IO[bytes], shard: str, prefix: str, source: SourceConfig) -> Iterator[Row]:
    """Rows of one tar, in its order.

    A sample without an image, a repeated key, and what follows a truncation each give a row with a
    status. Members whose name begins with a dot and folders are no samples. An error of the storage
    is raised: it says nothing of the data, and the shard is to be read again.

    Args:
        stream: the tar, plain or compressed; read once, front to back.
        shard: its name relative to the source's root.
        prefix: put before ``shard`` in image ids.
        source: which fields hold image, label and caption.
    """
    ranged = not _is_compressed(stream)
    seen: Counter[str] = Counter()
    taken: set[str] = {UNREADABLE}
    try:
        for sample in _samples(stream):
            seen[sample.key] += 1
            name = _unused(sample.key, seen[sample.key], taken)
            row = _row(sample, shard, seen[sample.key], source, ranged)
            yield row | {"image_id": clean(f"{prefix}{shard}/{name}")}
    except Exception as error:
        if not _is_broken(error):
            raise
        yield make_row(
            f"{prefix}{shard}/{UNREADABLE}",
            shard,
            UNREADABLE,
            status=Status.SHARD_ERROR,
            error=f"after {seen.total()} samples: {failure(error)}"[:500],
        )


def _is_broken(error: BaseException) -> bool:
    return isinstance(error, BROKEN_TAR) or is_corruption(error)  # the latter is bz2's


def _is_compressed(stream: IO[bytes]) -> bool:
    """By content, as `tarfile` decides; names lie."""
    if not stream.seekable():
        return True
    head = stream.read(6)
    stream.seek(0)
    return head.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd"))


def _unused(key: str, count: int, taken: set[str]) -> str:
    """The key, with ``#2``, ``#3``, ... where its name is taken already."""
    name = key if count == 1 else f"{key}#{count}"
    while name in taken:
        count += 1
        name = f"{key}#{count}"
    taken.add(name)
    return name


def _samples(stream: IO[bytes]) -> Iterator[Sample]:
    """Group neighbouring members by key; a field that comes twice starts a new sample.

    A sample that an error cuts short is yielded as not whole before the error is raised.
    """
    sample: Sample | None = None
    with tarfile.open(fileobj=stream, mode="r|*", tarinfo=_StrictMember) as tar:
        try:
            for member in tar:
                named = _SAMPLE_NAME.fullmatch(member.name)
                if named is None or not (member.isfile() or member.islnk() or member.issym()):
                    continue
                key, extension = named.group(1), (named.group(2) or "").lower()
                if not member.isfile():  # read front to back, a link's target may be long past
                    key, extension, data = f"{key}.{extension}", "link", member.linkname.encode()
                else:
                    data = _content(tar, member)
                if sample is None or sample.key != key or extension in sample.fields:
                    if sample is not None:
                        yield sample
                    sample = Sample(key)
                sample.fields[extension] = data
                sample.places[extension] = (member.offset_data, member.size)
        except Exception as error:
            if sample is not None and _is_broken(error):
                sample.whole = False
                yield sample
            raise
    if sample is not None:
        yield sample


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    handle = tar.extractfile(member)
    data = handle.read() if handle is not None else b""
    if len(data) != member.size:
        raise EOFError(f"{member.name} ends after {len(data)} of {member.size} bytes")
    return data


def _row(sample: Sample, shard: str, count: int, source: SourceConfig, ranged: bool) -> Row:
    record = _record(sample)
    values = {
        "label": text_of(record.get(source.label_field, _text(sample, source.label_field))),
        "caption": text_of(record.get(source.caption_field, _text(sample, "txt"))),
        **carried(record, source.carry),
    }
    if values["label"] is None:
        values["label"] = text_of(_text(sample, "cls"))
    image = _image_field(sample, source)
    if image is None:
        fields = ", ".join(sorted(sample.fields)) or "none"
        values |= {"status": Status.NO_IMAGE, "error": f"fields of the sample: {fields}"}
    else:
        offset, length = sample.places[image]
        values |= {"bytes": sample.fields[image]}
        values |= {"source_offset": offset, "source_length": length} if ranged else {}
        if not sample.whole:
            values |= {
                "status": Status.SHARD_ERROR,
                "error": "the shard breaks off here: members may be missing",
            }
        elif count > 1:
            values |= {
                "status": Status.DUPLICATE_KEY,
                "error": f"key {sample.key!r} stands {count} times in this shard",
            }
    return make_row(sample.key, shard, sample.key, **values)


def _image_field(sample: Sample, source: SourceConfig) -> str | None:
    if source.image_field is not None:
        wanted = source.image_field.lower()
        return wanted if wanted in sample.fields else None
    return next((name for name in sample.fields if name in IMAGE_EXTENSIONS), None)


def _record(sample: Sample) -> dict[str, Any]:
    """The sample's JSON; broken or other JSON counts as absent, the image is still explained."""
    try:
        value = json.loads(sample.fields.get("json", b"{}"))
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _text(sample: Sample, name: str) -> str | None:
    data = sample.fields.get(name)
    return None if data is None else data.decode("utf-8", errors="replace")
