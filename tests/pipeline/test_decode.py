"""Bytes -> pixels or a status; nothing raises and nothing is silently half a picture."""

import struct
import zlib

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from legrad.preprocess import Preprocess
from pipeline.decode import Decoder, decode
from pipeline.progress import Reporter
from pipeline.schema import Status, decoded_schema, source_schema
from tests.data import encoded, picture

PREPROCESS = Preprocess((16, 24))
LIMIT = 100_000


def pixels_of(data: bytes) -> np.ndarray:
    found = decode(data, PREPROCESS, LIMIT)
    assert found.status is Status.OK, found.error
    assert found.pixels is not None
    return np.frombuffer(found.pixels, np.uint8).reshape(3, 16, 24)


PHOTO = picture(1)
VARIANTS = {
    "jpeg": encoded(PHOTO, quality=95),
    "progressive": encoded(PHOTO, quality=95, progressive=True),
    "cmyk": encoded(PHOTO.convert("CMYK"), quality=95),
    "png": encoded(PHOTO, "PNG"),
    "rgba": encoded(PHOTO.convert("RGBA"), "PNG"),
    "palette": encoded(PHOTO.quantize(256), "PNG"),
    "webp": encoded(PHOTO, "WEBP", lossless=True),
    "gif": encoded(PHOTO, "GIF"),
    "tiff": encoded(PHOTO, "TIFF"),
    "bmp": encoded(PHOTO, "BMP"),
}


@pytest.mark.parametrize("kind", VARIANTS)
def test_the_same_picture_in_every_format(kind: str) -> None:
    expected = PREPROCESS(PHOTO).astype(int)
    assert np.abs(pixels_of(VARIANTS[kind]).astype(int) - expected).mean() < 8


def test_grey_16_bit() -> None:
    ramp = np.linspace(0, 65535, 30 * 40).reshape(30, 40).astype(np.uint16)
    grey = pixels_of(encoded(Image.fromarray(ramp), "PNG"))
    assert grey.min() < 12
    assert grey.max() > 243
    assert (grey[0] == grey[1]).all()


def test_transparent_pixels_are_white() -> None:
    hidden = PHOTO.convert("RGBA")
    hidden.putalpha(0)
    assert (pixels_of(encoded(hidden, "PNG")) == 255).all()


def test_exif_rotation() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(PHOTO, quality=95, exif=exif)
    found = decode(data, PREPROCESS, LIMIT)
    assert (found.width, found.height) == (PHOTO.height, PHOTO.width)
    upright = PREPROCESS(PHOTO.transpose(Image.Transpose.ROTATE_270)).astype(int)
    assert np.abs(pixels_of(data).astype(int) - upright).mean() < 8


def test_animation_shows_its_first_frame() -> None:
    data = encoded(PHOTO, "PNG", save_all=True, append_images=[picture(2)])
    assert (pixels_of(data) == PREPROCESS(PHOTO)).all()


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds nothing."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rest = chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + rest


JPEG = VARIANTS["jpeg"]
BROKEN = {
    "text": (b"hello, I am no picture", Status.NOT_AN_IMAGE),
    "empty": (b"", Status.NOT_AN_IMAGE),
    "half a jpeg": (JPEG[: len(JPEG) // 2], Status.TRUNCATED),
    "half a png": (VARIANTS["png"][: len(VARIANTS["png"]) // 2], Status.TRUNCATED),
    "garbage inside": (VARIANTS["png"][:60] + b"\0" * 400, Status.DECODE_ERROR),
    "bomb": (png_header(400_000, 400_000), Status.TOO_MANY_PIXELS),
    "above the limit": (png_header(400, 300), Status.TOO_MANY_PIXELS),
    "only a header": (png_header(20, 20), Status.TRUNCATED),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_bytes_get_a_status(kind: str) -> None:
    data, status = BROKEN[kind]
    found = decode(data, PREPROCESS, LIMIT)
    assert found.status is status, found
    assert found.pixels is None
    assert found.error


def test_every_row_comes_out_again() -> None:
    rows = [
        {"image_id": "a", "bytes": JPEG, "status": "ok", "caption": "c", "extra": 3},
        {"image_id": "b", "bytes": b"x", "status": "ok"},
        {"image_id": "c", "bytes": JPEG, "status": "duplicate_key", "error": "twice"},
        {"image_id": "d", "bytes": None, "status": "no_image", "error": "none"},
    ]
    carry = {"extra": "int"}
    batch = pa.Table.from_pylist(rows, schema=source_schema(carry))
    decoder = Decoder(PREPROCESS, LIMIT, carry, store_captions=False, reporter=Reporter())
    table = decoder(batch)
    assert table.schema == decoded_schema(carry)
    found = table.to_pylist()
    assert [row["image_id"] for row in found] == list("abcd")
    assert [row["status"] for row in found] == [
        *("ok", "not_an_image", "duplicate_key", "no_image")
    ]
    assert [row["pixels"] is not None for row in found] == [True, False, False, False]
    assert found[0]["caption"] is None
    assert found[0]["extra"] == 3
    assert found[0]["sha256"] == found[2]["sha256"] != found[1]["sha256"]
