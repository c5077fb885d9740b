"""Bytes -> pixels or a status; nothing raises and nothing is silently half a picture."""

import struct
import zlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from legrad.preprocess import RESIZE_MODES, Preprocess, ResizeMode
from pipeline.progress.progress import Reporter
from pipeline.schema import Status, decoded_schema, source_schema
from pipeline.stages.decode import Decoder, Decoding, decode
from pipeline.stages.properties import measure
from tests.data import encoded, picture

PREPROCESS = Preprocess((16, 24))
DECODING = Decoding(100_000)


def pixels_of(data: bytes) -> np.ndarray:
    found = decode(data, PREPROCESS, DECODING)
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
    found = decode(data, PREPROCESS, DECODING)
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
    found = decode(data, PREPROCESS, DECODING)
    assert found.status is status, found
    assert found.pixels is None
    assert found.error


NOISE = Image.fromarray(
    np.random.default_rng(0).integers(60, 200, (90, 100, 3), dtype=np.uint8)
).resize((150, 130))
JPEGS = {
    "baseline": (NOISE, {}),
    "no subsampling": (NOISE, {"subsampling": 0}),
    "progressive": (NOISE, {"progressive": True}),
    "grey": (NOISE.convert("L"), {}),
    "cmyk": (NOISE.convert("CMYK"), {}),
    "restart markers": (NOISE, {"restart_marker_blocks": 5}),
    "photo": (picture(5, (150, 130)), {}),
}


@pytest.mark.parametrize("kind", JPEGS)
@pytest.mark.parametrize("share", [0.01, 0.3, 0.6, 0.8])
def test_a_jpeg_that_lost_data_is_truncated_even_with_an_end_marker(
    kind: str, share: float
) -> None:
    image, options = JPEGS[kind]
    data = encoded(image, quality=85, **options)
    assert decode(data, PREPROCESS, DECODING).status is Status.OK
    start = data.index(b"\xff\xda") + 14
    cut = data[: start + int((len(data) - start) * share)]
    for end in (b"", b"\xff\xd9", b"\xff\xff\xff\xd9", b"\xff\xd9" + data[-500:]):
        if kind == "progressive" and end and share > 0.55:
            continue  # the last refinement: nobody sees it
        found = decode(cut + end, PREPROCESS, DECODING)
        assert found.status is Status.TRUNCATED, (end, found.error)
        assert found.pixels is None


def test_a_jpeg_that_lost_its_last_rows_only() -> None:
    data = encoded(picture(5, (160, 128)), quality=85)
    lost = [decode(data[:-n] + b"\xff\xd9", PREPROCESS, DECODING).status for n in range(40, 200, 8)]
    assert set(lost) == {Status.TRUNCATED}


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_grey_jpeg_is_whole(mode: str, progressive: bool) -> None:
    grey = Image.new(mode, (99, 70), (128,) * 3 if mode == "RGB" else 128)
    data = encoded(grey, progressive=progressive, restart_marker_rows=0 if progressive else 1)
    assert decode(data + b"\0" * 100, PREPROCESS, DECODING).status is Status.OK


def test_a_jpeg_without_its_end_marker_is_truncated() -> None:
    assert decode(JPEG[:-2], PREPROCESS, DECODING).status is Status.TRUNCATED


def test_cmyk_is_inverted_as_adobe_writes_it() -> None:
    ink = Image.new("CMYK", (32, 32), (0, 255, 255, 0))
    adobe = encoded(ink, quality=95)
    assert b"Adobe" in adobe
    red, green, blue = pixels_of(adobe)[:, 8, 8].tolist()
    assert red > 250
    assert max(green, blue) < 5


SCENE = picture(3, (1101, 813))


@pytest.mark.parametrize("mode", RESIZE_MODES)
@pytest.mark.parametrize("turn", range(1, 9))
def test_fast_decoding_shows_the_same_part_of_the_picture(mode: ResizeMode, turn: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = turn
    data = encoded(SCENE, quality=95, exif=exif)
    preprocess = Preprocess((96, 80), mode)
    fast, exact = (decode(data, preprocess, Decoding(10**7, fast)) for fast in (True, False))
    assert (fast.width, fast.height) == (exact.width, exact.height)
    levels = [np.frombuffer(each.pixels or b"", np.uint8).astype(int) for each in (fast, exact)]
    assert 0 < np.abs(levels[0] - levels[1]).max() <= 5


def test_fast_decoding_changes_no_status_and_hardly_a_property() -> None:
    rng = np.random.default_rng(0)
    options = ({}, {"progressive": True}, {"restart_marker_rows": 2}, {"subsampling": 0})
    whole = [encoded(SCENE, quality=85, **option) for option in options]
    whole.append(encoded(SCENE.convert("CMYK"), quality=85))
    whole.append(encoded(Image.new("RGB", (1100, 800), (128, 128, 128)), quality=85))
    statuses = Counter()
    for number in range(120):
        data = bytearray(whole[number % len(whole)])
        start = int(rng.integers(2, len(data) - 2))
        if number % 4:
            data[start : start + int(rng.integers(1, 400))] = b""
        if number % 4 > 1:
            data += b"\xff\xd9"
        fast, exact = (
            decode(bytes(data), PREPROCESS, Decoding(10**7, fast), sample=True)
            for fast in (True, False)
        )
        statuses[exact.status] += 1
        assert (fast.status, fast.error) == (exact.status, exact.error)
        if number % 4 == 0 and fast.sample and exact.sample:
            values = measure([fast.sample, exact.sample])
            assert all(pair == pytest.approx(pair[::-1], rel=0.1) for pair in values.values())
    assert min(statuses[Status.OK], statuses[Status.TRUNCATED]) > 30, statuses


def test_sixteen_bits_are_scaled_and_not_clipped() -> None:
    grey = np.full((20, 20), 32896, np.uint16)
    for kind in ("PNG", "TIFF"):
        assert (pixels_of(encoded(Image.fromarray(grey), kind)) == 128).all()


def test_a_turned_tiff_is_turned_once() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    upright = pixels_of(encoded(PHOTO.transpose(Image.Transpose.ROTATE_270), "TIFF"))
    found = decode(encoded(PHOTO, "TIFF", exif=exif), PREPROCESS, DECODING)
    assert found.pixels == upright.tobytes()
    assert (found.width, found.height) == (PHOTO.height, PHOTO.width)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF", "MPO"])
def test_the_first_frame_of_many(kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    more = [picture(2), picture(3)]
    first = pixels_of(encoded(PHOTO, kind, **options))
    many = pixels_of(encoded(PHOTO, kind, save_all=True, append_images=more, **options))
    assert np.abs(first.astype(int) - many).max() <= 40  # GIF chooses its palette anew
    assert np.abs(first.astype(int) - many).mean() < 4


def test_a_giant_inside_an_icon_is_refused() -> None:
    small, giant = encoded(picture(1, (16, 16)), "ICO", sizes=[(16, 16)]), png_header(9000, 9000)
    at = small.index(b"\x89PNG")
    header = small[:14] + struct.pack("<I", len(giant)) + small[18:at]
    found = decode(header + giant, PREPROCESS, DECODING)
    assert found.status is Status.TOO_MANY_PIXELS, found


def png_chunk(kind: bytes, content: bytes, *, right: bool = True) -> bytes:
    checksum = zlib.crc32(kind + content) ^ (not right)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


LARGE = zlib.compress(bytes(3_000_000))
ODD_CHUNKS = {
    "a large text": png_chunk(b"zTXt", b"prompt\0\0" + LARGE),
    "a large international text": png_chunk(b"iTXt", b"prompt\0\1\0\0\0" + LARGE),
    "a large colour profile": png_chunk(b"iCCP", b"icc\0\0" + LARGE),
    "much text": b"".join(
        png_chunk(b"zTXt", b"%d\0\0" % i + zlib.compress(bytes(10**6))) for i in range(70)
    ),
    "a wrong checksum of a text": png_chunk(b"tEXt", b"a\0b", right=False),
    "a wrong checksum of a time": png_chunk(b"tIME", b"1234567", right=False),
    "a short gamma": png_chunk(b"gAMA", b""),
}


@pytest.mark.parametrize("odd", ODD_CHUNKS)
@pytest.mark.parametrize("where", ["before", "after"])
def test_chunks_of_a_png_that_hold_no_pixels(odd: str, where: str) -> None:
    plain = encoded(PHOTO, "PNG")
    at = 33 if where == "before" else len(plain) - 12
    data = plain[:at] + ODD_CHUNKS[odd] + plain[at:]
    assert (pixels_of(data) == pixels_of(plain)).all()
    shorter = decode(data[: len(data) // 2], PREPROCESS, DECODING)
    assert shorter.status in (Status.TRUNCATED, Status.NOT_AN_IMAGE, Status.DECODE_ERROR)


def test_chunks_of_a_png_that_change_pixels() -> None:
    grey = Image.new("P", (40, 30))
    transparent = encoded(grey, "PNG", transparency=0)
    assert (pixels_of(transparent) == 255).all()
    damaged = bytearray(encoded(PHOTO, "PNG"))
    damaged[damaged.index(b"IDAT") + 20] ^= 1
    assert decode(bytes(damaged), PREPROCESS, DECODING).status is Status.DECODE_ERROR


def test_the_limit_of_pixels_is_named_with_its_value() -> None:
    for limit in (1000, 100):
        found = decode(encoded(PHOTO, "PNG"), PREPROCESS, Decoding(limit))
        assert found.status is Status.TOO_MANY_PIXELS
        assert f"source.max_pixels: {limit}" in str(found.error)
        assert "1,200" in str(found.error)


@pytest.mark.parametrize(
    ("module", "head"),
    [("heif", b"\0\0\0\x18ftypheic"), ("jxl", b"\xff\x0a"), ("jxl", b"\0\0\0\x0cJXL \r\n\x87\n")],
)
def test_an_image_whose_decoder_is_not_installed(
    module: str, head: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("legrad.image_files._registered", lambda decoder: False)
    found = decode(head + bytes(100), PREPROCESS, DECODING)
    assert found.status is Status.NOT_AN_IMAGE
    assert "pip install" in str(found.error)
    assert module in str(found.error)


def test_heic() -> None:
    heif = pytest.importorskip("pillow_heif")
    heif.register_heif_opener()
    found = pixels_of(encoded(PHOTO, "HEIF", quality=95))
    assert np.abs(found.astype(int) - PREPROCESS(PHOTO).astype(int)).mean() < 12


def test_every_row_comes_out_again() -> None:
    rows = [
        {"image_id": "a", "bytes": JPEG, "status": "ok", "caption": "c", "extra": 3},
        {"image_id": "b", "bytes": b"x", "status": "ok"},
        {"image_id": "c", "bytes": JPEG, "status": "duplicate_key", "error": "twice"},
        {"image_id": "d", "bytes": None, "status": "no_image", "error": "none"},
    ]
    carry = {"extra": "int"}
    batch = pa.Table.from_pylist(rows, schema=source_schema(carry))
    decoder = Decoder(PREPROCESS, DECODING, carry, store_captions=False, reporter=Reporter())
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


def test_five_bits_are_not_taken_for_sixteen() -> None:
    """Pillow calls the raw mode of a BMP file with 5, 6 and 5 bits ``BGR;16``."""
    masks = struct.pack("<3I", 0xF800, 0x07E0, 0x001F)
    row = struct.pack("<H", 4 << 11 | 8 << 5 | 4) * 16  # a dark grey, 32 of 255
    head = struct.pack("<IiiHHIIiiII", 40, 16, 16, 1, 16, 3, len(row) * 16, 2835, 2835, 0, 0)
    start = 14 + len(head) + len(masks)
    file = struct.pack("<2sIHHI", b"BM", start + 16 * len(row), 0, 0, start)
    found = decode(file + head + masks + row * 16, PREPROCESS, DECODING)
    assert (found.status, found.error) == (Status.OK, None)
    assert found.pixels is not None
    assert 28 <= min(found.pixels) <= max(found.pixels) <= 36


def test_threads_keep_their_limits() -> None:
    large, small = Decoding(10 * PHOTO.width * PHOTO.height), Decoding(10)
    data = encoded(PHOTO, "PNG")
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda limit: decode(data, PREPROCESS, limit), [large, small] * 200))
    statuses = [str(each.status) for each in found]
    assert statuses == ["ok", "too_many_pixels"] * 200
