"""Values of unknown range: the rule, its notes, and no black picture from one that is not black."""

import io
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from legrad.image_files import open_image
from legrad.preprocess import Preprocess, rgb_and_note
from pipeline.schema import Status
from pipeline.stages.decode import Decoding, decode

RAMP = np.linspace(0, 1, 64 * 64, dtype=np.float64).reshape(64, 64)
DECODING = Decoding(10**9)


def tiff(values: NDArray[Any], **options: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, values, **options)
    return buffer.getvalue()


def png(values: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "PNG")
    return buffer.getvalue()


def seen(data: bytes) -> tuple[NDArray[np.uint8], str | None]:
    with open_image(data) as image:
        rgb, note = rgb_and_note(image)
    return np.asarray(rgb), note


def whole(top: float, kind: str) -> NDArray[Any]:
    return np.round(RAMP * top).astype(kind)


DECLARED = {
    "16 bits": tiff(whole(65535, "u2")),
    "16 bits, big-endian": tiff(whole(65535, "u2"), byteorder=">"),
    "16 bits in PNG": png(whole(65535, "u2")),
    "12 bits, said by the largest sample": tiff(whole(4095, "u2"), extratags=[(281, 3, 1, 4095)]),
    "floats": tiff(RAMP.astype("f4")),
    "floats, big-endian": tiff(RAMP.astype("f4"), byteorder=">"),
}
GUESSED = {
    "12 bits in 16": (tiff(whole(4095, "u2")), 255),
    "12 bits in 16, big-endian": (tiff(whole(4095, "u2"), byteorder=">"), 255),
    "12 bits in PNG": (png(whole(4095, "u2")), 255),
    "10 bits, not all used": (tiff(whole(700, "u2")), round(700 / 1023 * 255)),
    "int32": (tiff(whole(4095, "i4")), 255),
    "int32, big-endian": (tiff(whole(4095, "i4"), byteorder=">"), 255),
    "uint32": (tiff(whole(2**20, "u4")), 255),
    "floats of 12 bits": (tiff(whole(4095, "f4")), 255),
    "floats of 8 bits": (tiff(whole(255, "f4")), 255),
    "floats up to 3": (tiff((3 * RAMP).astype("f4")), 255),
    "tiny floats": (tiff((1e-6 * RAMP).astype("f4")), 255),
    "signed": (tiff((whole(4095, "i2") - 1000).astype("i2")), 255),
    "floats around zero": (tiff((2 * RAMP - 1).astype("f4")), 255),
}


@pytest.mark.parametrize("name", DECLARED)
def test_declared_ranges_are_taken_at_their_word(name: str) -> None:
    pixels, note = seen(DECLARED[name])
    assert note is None
    assert np.abs(pixels[..., 0] - np.round(RAMP * 255)).max() <= 1


@pytest.mark.parametrize("name", GUESSED)
def test_guessed_ranges_are_noted_and_not_black(name: str) -> None:
    data, brightest = GUESSED[name]
    pixels, note = seen(data)
    assert note is not None
    assert "guessed" in note
    assert np.abs(pixels[..., 0] - np.round(RAMP * brightest)).max() <= 1


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_no_numbers_are_black(bad: float) -> None:
    values = RAMP.astype("f4")
    values[3, 4] = bad
    pixels, note = seen(tiff(values))
    assert note is not None
    assert "finite" in note
    assert pixels[3, 4].max() == 0
    assert pixels.max() == 255
    assert pixels[32, 32, 0] == round(RAMP[32, 32] * 255)


def test_a_picture_without_any_number_is_an_error() -> None:
    found = decode(tiff(np.full((8, 8), np.nan, "f4")), Preprocess((8, 8)), DECODING)
    assert found.status is Status.DECODE_ERROR
    assert "finite" in str(found.error)


@pytest.mark.parametrize("kind", ["u2", "i4", "f4"])
def test_black_stays_black_without_a_note(kind: str) -> None:
    pixels, note = seen(tiff(np.zeros((8, 8), kind)))
    assert (pixels.max(), note) == (0, None)


@pytest.mark.parametrize("bits", [10, 12, 14, 16])
def test_colours_of_16_bits(bits: int) -> None:
    """Pillow keeps the upper byte of each."""
    colours = np.stack([whole(2**bits - 1, "u2")] * 3, axis=-1)
    pixels, note = seen(tiff(colours, photometric="rgb"))
    assert pixels.max() == 255
    assert (note is None) == (bits == 16)
    opaque = np.concatenate([colours, np.full_like(colours[..., :1], 65535)], axis=-1)
    with_alpha, note = seen(tiff(opaque, photometric="rgb", extrasamples=["unassalpha"]))
    assert np.array_equal(with_alpha, pixels)
    assert (note is None) == (bits == 16)


def test_a_mask_of_few_values_is_not_black() -> None:
    pixels, note = seen(tiff(whole(5, "u2")))
    assert note is not None
    assert sorted(set(pixels.ravel().tolist())) == [0, 51, 102, 153, 204, 255]


def test_dark_bytes_stay_dark() -> None:
    pixels, note = seen(png(np.full((8, 8, 3), 9, np.uint8)))
    assert (pixels.max(), note) == (9, None)


def test_the_note_is_in_the_row() -> None:
    found = decode(GUESSED["12 bits in 16"][0], Preprocess((32, 32)), DECODING)
    assert found.status is Status.OK
    assert found.pixels is not None
    assert max(found.pixels) > 250
    assert "4095" in str(found.error)
    assert decode(DECLARED["floats"], Preprocess((32, 32)), DECODING).error is None
