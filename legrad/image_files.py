"""Open encoded images with Pillow, and with the decoders of HEIC and JPEG XL where installed.

Pillow refuses a PNG file whose texts or colour profile are large, and one in which such a chunk has
a wrong checksum. Its switch against the latter (``LOAD_TRUNCATED_IMAGES``) would also accept files
that end early, and paint the rest grey. So chunks that no pixel depends on are left out here.
"""

import io
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from threading import RLock

from PIL import Image, ImageFile, UnidentifiedImageError

from legrad.value_range import WIDE

_PNG = b"\x89PNG\r\n\x1a\n"
_KEPT = (b"tRNS", b"eXIf")
"""Ancillary chunks that change the picture: transparency and rotation."""
_HEIC = (b"ftypheic", b"ftypheix", b"ftypheim", b"ftypheis", b"ftyphevc", b"ftypmif1", b"ftypmsf1")
_JPEG_XL = (b"\xff\x0a", b"\x00\x00\x00\x0cJXL \r\n\x87\n")
_LIMIT = RLock()
_ADVICE = {
    "pillow_heif": (
        "a HEIC image: install the decoder with pip install 'legrad-audit[heif]', or convert it, "
        "for example with heif-convert a.heic a.jpg"
    ),
    "pillow_jxl": (
        "a JPEG XL image: install the decoder with pip install pillow-jxl-plugin, or convert it, "
        "for example with djxl a.jxl a.png"
    ),
}


@contextmanager
def pixel_limit(pixels: int | None) -> Iterator[None]:
    """Set Pillow's own limit, which holds for pictures inside a file, too, as in icons.

    The limit belongs to the process, so threads take turns here.

    Args:
        pixels: largest number of pixels without a warning; None: as it is.
    """
    with _LIMIT:
        before = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = before if pixels is None else pixels
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before


def open_image(data: bytes, max_pixels: int | None = None) -> Image.Image:
    """Open an encoded image; pixels are decoded when they are asked for.

    Args:
        data: contents of the file.
        max_pixels: see `pixel_limit`.

    Raises:
        UnidentifiedImageError: it is of no known format, or its decoder is not installed; the
            message says how to get it.
        DecompressionBombError: it has more than twice as many pixels as the limit.
    """
    decoder = _decoder(data)
    if decoder is not None and not _registered(decoder):
        raise UnidentifiedImageError(_ADVICE[decoder])
    with pixel_limit(max_pixels):
        image = Image.open(io.BytesIO(_without_ancillary_chunks(data)))
    # Only the raw mode of the undecoded data says how wide the values are.
    if any(";16" in raw and not raw.startswith("BGR") for raw in _raw_modes(image)):
        image.info[WIDE] = True
    return image


def _raw_modes(image: ImageFile.ImageFile) -> list[str]:
    """Texts among the arguments of the decoder of the first tile; ``BGR;16`` has 5 or 6 bits."""
    arguments = image.tile[0].args if image.tile else ()
    values = arguments if isinstance(arguments, tuple) else (arguments,)
    return [value for value in values if isinstance(value, str)]


def _decoder(data: bytes) -> str | None:
    """The module beside Pillow that decodes an image; None for Pillow itself."""
    if data[4:12] in _HEIC:
        return "pillow_heif"
    return "pillow_jxl" if data.startswith(_JPEG_XL) else None


@cache
def _registered(decoder: str) -> bool:
    """Make a decoder known to Pillow; returns whether it is installed."""
    if find_spec(decoder) is None:
        return False
    module = import_module(decoder)  # pillow_jxl is known to Pillow once it is imported
    if decoder == "pillow_heif":
        module.register_heif_opener()
    return True


def _without_ancillary_chunks(data: bytes) -> bytes:
    """A PNG file with only the chunks that decoding needs; other files as they are.

    What follows the last whole chunk stays, so that a file that ends early still does.
    """
    if not data.startswith(_PNG):
        return data
    pieces, start = [_PNG], len(_PNG)
    while start + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, start)
        end = start + 12 + length
        if end > len(data):
            break
        chunk, start = data[start:end], end
        is_critical = not kind[0] & 0x20  # PNG says so by a capital first letter
        if is_critical or (kind in _KEPT and _has_right_checksum(chunk)):
            pieces.append(chunk)
    return b"".join([*pieces, data[start:]])


def _has_right_checksum(chunk: bytes) -> bool:
    return zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:], "big")
