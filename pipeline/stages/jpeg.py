"""Detects JPEGs that lack a part of their data, which decoders silently paint grey.

Pillow refuses a file without its end marker. It accepts one that lost data but has an end marker (a
repaired download, a damaged byte that looks like a marker); this module finds those. It is written
here because no decoder with a Python interface reports them.
"""

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_SOF = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = frozenset((0xC2, 0xC6, 0xCA, 0xCE))
_SOS, _DRI, _EOI = 0xDA, 0xDD, 0xD9
_ALONE = frozenset((0x01, *range(0xD0, 0xD9)))
_WITHIN_SCANS = np.isin(np.arange(256), (0x00, *range(0xD0, 0xD8), 0xFF))
"""Whether a byte that follows 0xFF does not end a scan: stuffing, restart markers and padding."""
_BLOCK = 8
_GREY = range(126, 131)
_PROBE = bytes(range(1, 255, 2)) * 4


@dataclass
class _Frame:
    """Facts from the headers of the first picture in a file.

    Attributes:
        size: (width, height) in pixels.
        sampling: (horizontal, vertical) factors by component id.
        progressive: whether coefficients come in several scans.
        interval: units between two restart markers; 0 if there are none.
        restarts: number of restart markers in the last scan.
        scans: number of scans.
        missing_bits: number of low bits that are still to come, by component id and coefficient;
            None before the first scan of the coefficient.
        data_end: where the data of the last scan ends.
    """

    size: tuple[int, int] = (0, 0)
    sampling: dict[int, tuple[int, int]] = field(default_factory=dict)
    progressive: bool = False
    interval: int = 0
    restarts: int = 0
    scans: int = 0
    missing_bits: dict[int, list[int | None]] = field(default_factory=dict)
    data_end: int = 0


def missing_data(data: bytes, image: Image.Image, scale: int = 1) -> str | None:
    """Why a JPEG that was decoded without an error is incomplete; None if it is complete.

    It finds missing scans (of progressive files, or files with one component per scan), missing
    restart markers, and a last block without data. It does not find a loss of less than one block,
    or of the last refinement of a progressive picture, which is invisible.

    Args:
        data: contents of the file.
        image: the decoded image, as stored (not rotated).
        scale: factor by which it was reduced when it was decoded: 1, 2, 4 or 8.
    """
    try:
        frame = _frame(data)
    except (struct.error, IndexError):
        return "a header breaks off"
    lacking = [bits for bits in frame.missing_bits.values() if any(bit != 0 for bit in bits)]
    if lacking:
        return f"the data of {len(lacking)} of {len(frame.missing_bits)} colours ends early"
    if frame.interval and frame.scans == 1 and frame.restarts < _restarts_due(frame):
        return f"{frame.restarts} of {_restarts_due(frame)} restart markers"
    if not frame.progressive and _ends_early(data, frame, image, scale):
        return "the picture data ends early, the rest would be grey"
    return None


def _frame(data: bytes) -> _Frame:
    frame, markers = _Frame(), _markers(data)
    for marker, start, body in _segments(data, markers):
        if marker in _SOF and not frame.sampling:
            height, width, count = struct.unpack_from(">HHB", body, 1)
            frame.size, frame.progressive = (width, height), marker in _PROGRESSIVE
            for offset in range(6, 6 + 3 * count, 3):
                component, factors = body[offset], body[offset + 1]
                frame.sampling[component] = (factors >> 4, factors & 15)
                frame.missing_bits[component] = [None] * (64 if frame.progressive else 1)
        elif marker == _DRI:
            (frame.interval,) = struct.unpack_from(">H", body)
        elif marker == _SOS:
            _note_scan(frame, body)
            frame.data_end = _data_end(data, markers, start + len(body))
            frame.restarts = _count_restarts(data[start : frame.data_end]) if frame.interval else 0
    return frame


def _markers(data: bytes) -> NDArray[np.intp]:
    """Where the bytes 0xFF are that would end a scan, in order."""
    values = np.frombuffer(data, np.uint8)
    at = np.flatnonzero(values[:-1] == 0xFF)
    return at[~_WITHIN_SCANS[values[at + 1]]]


def _segments(data: bytes, markers: NDArray[np.intp]) -> Iterator[tuple[int, int, bytes]]:
    """Yield (marker, start of its body, body) up to the end of the first picture."""
    at = 2
    while at + 4 <= len(data):
        prefix = data.find(b"\xff", at)
        if prefix < 0:
            return
        marker = data[prefix + 1]
        at = prefix + 1 if marker == 0xFF else prefix + 2
        if marker == _EOI:
            return
        if marker in (0x00, 0xFF) or marker in _ALONE:
            continue
        (length,) = struct.unpack_from(">H", data, at)
        yield marker, at + 2, data[at + 2 : at + length]
        at += length
        if marker == _SOS:
            at = _data_end(data, markers, at)


def _data_end(data: bytes, markers: NDArray[np.intp], start: int) -> int:
    """Where the data of a scan ends that begins at ``start``: at a marker, or padding before it."""
    number = int(np.searchsorted(markers, start))
    if number == len(markers):
        return len(data)
    end = int(markers[number])
    while end > start and data[end - 1] == 0xFF:
        end -= 1
    return end


def _note_scan(frame: _Frame, body: bytes) -> None:
    count = body[0]
    first, last, low = body[1 + 2 * count], body[2 + 2 * count], body[3 + 2 * count] & 15
    frame.scans += 1
    for component in body[1 : 1 + 2 * count : 2]:
        bits = frame.missing_bits.get(component)
        if bits is None:
            continue
        if not frame.progressive:
            bits[0] = 0
        else:
            bits[first : last + 1] = [low] * len(bits[first : last + 1])


def _count_restarts(scan: bytes) -> int:
    return sum(scan.count(bytes((0xFF, 0xD0 + number))) for number in range(8))


def _restarts_due(frame: _Frame) -> int:
    across, down = _BLOCK, _BLOCK
    if len(frame.sampling) > 1:
        across *= max(h for h, _ in frame.sampling.values())
        down *= max(v for _, v in frame.sampling.values())
    units = -(-frame.size[0] // across) * -(-frame.size[1] // down)
    return max(0, -(-units // frame.interval) - 1)


def _ends_early(data: bytes, frame: _Frame, image: Image.Image, scale: int) -> bool:
    """Whether the last block has no data. A reduced image is decoded in full if it may be so."""
    if not _corner_is_blank(image, _BLOCK // scale):
        return False
    if scale == 1:
        return _more_would_change(data, frame, image)
    with Image.open(io.BytesIO(data)) as full:
        return _ends_early(data, frame, full, 1)


def _corner_is_blank(image: Image.Image, block: int) -> bool:
    """Whether the last block has the uniform brightness that decoders give to missing data.

    Colours are no sign of it: they are interpolated from the previous block.

    Args:
        image: the decoded image.
        block: side of a block in pixels of the image.
    """
    left, top = ((side - 1) // block * block for side in image.size)
    corner = image.crop((left, top, *image.size))
    band = corner.getchannel("K") if image.mode == "CMYK" else corner.convert("L")
    low, high = band.getextrema()
    return low in _GREY and high in _GREY


def _more_would_change(data: bytes, frame: _Frame, image: Image.Image) -> bool:
    """Whether the decoder would use more data if there were any; a complete picture ignores it."""
    longer = data[: frame.data_end] + _PROBE + data[frame.data_end :]
    with Image.open(io.BytesIO(longer)) as other:
        other.load()
        return other.tobytes() != image.tobytes()
