"""WebDataset shards: a tar is read front to back, and every image in it becomes a row.

Members of one key are a sample: the key is the name up to the first dot of its last part, the rest
is the field (``a/001.seg.png``: key ``a/001``, field ``seg.png``). A sample with several images
gives a row for each, unless ``source.image_field`` chooses one; images whose field is named as a
mask or the like (`COMPANIONS`) give none. webdataset's own reader is not used because it knows
neither byte offsets nor damaged archives.
"""

import bz2
import gzip
import lzma
import re
import tarfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import IO, Self, cast

import pyarrow as pa

from pipeline.config import SourceConfig
from pipeline.schema import UNREADABLE, Status
from pipeline.sources.descriptions import described
from pipeline.sources.input_rows import Row, clean, failure, is_corruption, make_row

IMAGE_EXTENSIONS = frozenset(
    "jpg jpeg jfif png webp gif bmp tif tiff ppm pgm jp2 avif heic heif jxl".split()
)
COMPANIONS = frozenset(
    "mask masks seg segm segmentation semantic instance panoptic labelmap annotation matte alpha "
    "depth normal normals flow edge edges heatmap saliency thumb thumbnail preview".split()
)
"""Words in a field's own name that mark data about an image of the sample, not a further image."""
BROKEN_TAR = (
    *(tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, lzma.LZMAError),
    pa.ArrowException,
)
_DECOMPRESSORS: dict[bytes, Callable[[IO[bytes]], IO[bytes]]] = {
    b"\x1f\x8b": lambda stream: cast(IO[bytes], gzip.GzipFile(fileobj=stream)),
    b"BZh": lambda stream: cast(IO[bytes], bz2.BZ2File(stream)),
    b"\xfd7zXZ": lambda stream: cast(IO[bytes], lzma.LZMAFile(stream)),  # noqa: SIM115
    b"\x28\xb5\x2f\xfd": lambda stream: cast(IO[bytes], pa.CompressedInputStream(stream, "zstd")),
}
"""What opens a compressed stream, by its first bytes."""
_SAMPLE_NAME = re.compile(r"((?:.*/)?[^/.][^/.]*)(?:\.([^/]*))?", re.DOTALL)


@dataclass
class TarSample:
    """Neighbouring members of a tar that share a key.

    Attributes:
        key: the common key.
        fields: content of each field, in the order of the tar.
        spans: offset and length in bytes of each field within the tar.
        whole: False where an error cut the sample short.
        link: what the only member points to where it is a link, which holds no bytes.
    """

    key: str
    fields: dict[str, bytes] = field(default_factory=dict)
    spans: dict[str, tuple[int, int]] = field(default_factory=dict)
    whole: bool = True
    link: str | None = None


class _StrictMember(tarfile.TarInfo):
    """A member whose damaged or missing header is an error; `tarfile` would see an end there."""

    @classmethod
    def fromtarfile(cls, tar: tarfile.TarFile) -> Self:
        """Read the next header; an archive ends with zero blocks, and another one may follow."""
        assert isinstance(tar, _StrictTar)
        try:
            member = super().fromtarfile(tar)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            tar.has_end = True
            raise
        except tarfile.HeaderError as error:
            is_short = type(error).__name__ in ("EmptyHeaderError", "TruncatedHeaderError")
            if tar.has_end and is_short:
                raise
            raise tarfile.ReadError(f"{error} at byte {tar.offset}") from error
        tar.has_end = False
        return member


class _StrictTar(tarfile.TarFile):
    """A tar, or several that were joined with ``cat``, which `tarfile` would end after the first.

    Attributes:
        has_end: whether the zero blocks that end an archive were the last that was read.
    """

    tarinfo = _StrictMember
    ignore_zeros = True
    has_end = False


def read_shard(stream: IO[bytes], shard: str, prefix: str, source: SourceConfig) -> Iterator[Row]:
    """Yield the rows of one tar, in its order.

    A sample without an image, a repeated key, and the rest of a damaged shard give rows with a
    status. Folders, and members whose name begins with a dot, are not samples. An error of the
    storage is raised: it says nothing about the data, so the shard is read again.

    Args:
        stream: the tar, plain or compressed; read once, front to back.
        shard: its name relative to the source's root.
        prefix: what image ids begin with, before ``shard``.
        source: which fields hold image, label and caption.
    """
    stream, has_offsets = _decompressed(stream)
    seen: Counter[str] = Counter()
    taken: set[str] = {UNREADABLE}
    samples = 0
    try:
        for sample in _samples(stream):
            samples += 1
            for key, image in _images(sample, source.image_field, seen):
                seen[key] += 1
                name = _unused(key, seen[key], taken)
                row = _row(sample, image, shard, key, source)
                row |= _outcome(sample, image, seen[key], has_offsets)
                yield row | {"image_id": clean(f"{prefix}{shard}/{name}")}
    except Exception as error:
        if not _is_broken(error):
            raise
        yield make_row(
            f"{prefix}{shard}/{UNREADABLE}",
            shard,
            UNREADABLE,
            status=Status.SHARD_ERROR,
            error=f"after {samples} samples: {failure(error)}"[:500],
        )


def _is_broken(error: BaseException) -> bool:
    return isinstance(error, BROKEN_TAR) or is_corruption(error)  # the latter is bz2's


def _decompressed(stream: IO[bytes]) -> tuple[IO[bytes], bool]:
    """A tar as a plain one, and whether it was plain; its content decides, names can be wrong.

    `tarfile` stops at the end of the first compressed stream, but pigz, bgzip, pzstd and ``cat``
    write several one after another.
    """
    if not stream.seekable():
        return stream, False  # `tarfile` decompresses it
    head = stream.read(6)
    stream.seek(0)
    for magic, opener in _DECOMPRESSORS.items():
        if head.startswith(magic):
            return opener(stream), False
    return stream, True


def _unused(key: str, count: int, taken: set[str]) -> str:
    """The key, followed by ``#2``, ``#3``, ... where that name is taken already."""
    name = key if count == 1 else f"{key}#{count}"
    while name in taken:
        count += 1
        name = f"{key}#{count}"
    taken.add(name)
    return name


def _samples(stream: IO[bytes]) -> Iterator[TarSample]:
    """Group neighbouring members by key; a repeated field starts a new sample.

    A sample that an error cuts short is yielded as not whole before the error is raised.
    """
    sample: TarSample | None = None
    with _StrictTar.open(fileobj=stream, mode="r|*") as tar:
        try:
            for member in tar:
                name = member.name.removeprefix("./")  # as `tar -C FOLDER .` writes them
                named = _SAMPLE_NAME.fullmatch(name)
                if named is None or not (member.isfile() or member.islnk() or member.issym()):
                    continue
                key, extension = named.group(1), (named.group(2) or "").lower()
                if not member.isfile():  # the target of a link may have been read long before
                    key, extension, data = name, "link", b""
                else:
                    data = _content(tar, member)
                if sample is None or sample.key != key or extension in sample.fields:
                    if sample is not None:
                        yield sample
                    sample = TarSample(key, link=None if member.isfile() else member.linkname)
                sample.fields[extension] = data
                sample.spans[extension] = (member.offset_data, member.size)
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


def _images(
    sample: TarSample, image_field: str | None, seen: Counter[str]
) -> list[tuple[str, str | None]]:
    """The images of a sample, each as the key of its row and its field.

    The sample's key goes to its only image, or to the one without a further name (``a.jpg`` beside
    ``a.left.jpg``, whose key is ``a.left``). A sample without an image is one row without a field.
    Companions of an image, such as its mask, give no rows.
    """
    fields = [field for field in sample.fields if _parts(field)[1] in IMAGE_EXTENSIONS]
    if image_field is not None:
        wanted = image_field.lower()
        named = [field for field in fields if _parts(field)[0] == wanted]
        return [(sample.key, wanted if wanted in sample.fields else next(iter(named), None))]
    if not fields:
        return [(sample.key, None)]
    fields = [field for field in fields if not _is_companion(field)] or fields
    plain = [field for field in fields if "." not in field]
    main = fields[0] if len(fields) == 1 else next(iter(plain), None)
    if main not in plain and seen[sample.key]:  # a second image, in a tar not sorted by key
        main = None
    return [
        (sample.key if field == main else f"{sample.key}.{_parts(field)[0] or field}", field)
        for field in fields
    ]


def _is_companion(field: str) -> bool:
    return not COMPANIONS.isdisjoint(re.split(r"[._-]", _parts(field)[0]))


def _parts(field: str) -> tuple[str, str]:
    """Name (often empty) and extension of a field: ``left.jpg`` -> ``left``, ``jpg``."""
    name, _, extension = field.rpartition(".")
    return name, extension


def _row(sample: TarSample, image: str | None, shard: str, key: str, source: SourceConfig) -> Row:
    """The row of one image, with what the sample says about it."""
    values = described(sample.fields, _parts(image or "")[0], source)
    return make_row(key, shard, key, **values)


def _outcome(sample: TarSample, image: str | None, count: int, has_offsets: bool) -> Row:
    """The bytes of an image and where they are, or why there are none.

    Args:
        sample: the image's sample.
        image: field of the image; None without an image.
        count: number of rows with its key in the shard so far.
        has_offsets: whether the tar can be read by byte range.
    """
    if image is None:
        fields = ", ".join(sorted(sample.fields)) or "none"
        error = f"fields of the sample: {fields}"
        if sample.link is not None:
            error = (
                f"a link to {sample.link!r}, which holds no bytes. Pack the tar with `tar "
                "--dereference --hard-dereference`, which stores the file instead"
            )
        elif count > 1:
            error = (
                f"the tar is not sorted by key: {sample.key!r} appears again without its image "
                f"({error}). Pack it with `tar --sort=name`, so that a key's members are neighbours"
            )
        return {"status": Status.NO_IMAGE, "error": error}
    outcome: Row = {"bytes": sample.fields[image]}
    if has_offsets:
        outcome["source_offset"], outcome["source_length"] = sample.spans[image]
    if not sample.whole:
        error = "the shard breaks off here: members may be missing"
        return outcome | {"status": Status.SHARD_ERROR, "error": error}
    if count > 1:
        error = f"key {sample.key!r} is in this shard {count} times so far"
        return outcome | {"status": Status.DUPLICATE_KEY, "error": error}
    return outcome
