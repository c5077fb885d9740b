"""Any PIL image -> upright RGB bytes of the model's size, and where they lie in the image."""

import numpy as np
import pytest
from PIL import Image

from legrad.preprocess import Preprocess, to_rgb

WHITE, RED = (255, 255, 255), (255, 0, 0)
ORIENTATION = 0x0112


def array(image: Image.Image) -> np.ndarray:
    assert image.mode == "RGB"
    return np.asarray(image)


def corners() -> np.ndarray:
    """6 x 4 pixels with a different colour in every pixel."""
    rows, columns = np.mgrid[:4, :6]
    return np.stack([rows * 60, columns * 40, 0 * rows + 7], axis=-1).astype(np.uint8)


@pytest.mark.parametrize("mode", ["RGB", "RGBX"])
def test_colours_pass_through(mode: str) -> None:
    image = Image.fromarray(corners()).convert(mode)
    assert np.array_equal(array(to_rgb(image)), corners())


@pytest.mark.parametrize("mode", ["YCbCr", "HSV", "LAB", "CMYK"])
def test_other_colour_spaces_are_converted(mode: str) -> None:
    image = Image.fromarray(corners())
    if mode == "LAB":
        image = Image.new("LAB", (6, 4), (0, 0, 0))
        assert to_rgb(image).size == (6, 4)
        return
    seen = array(to_rgb(image.convert(mode))).astype(int)
    assert np.abs(seen - corners()).max() <= 8


def test_cmyk_is_not_inverted() -> None:
    assert to_rgb(Image.new("CMYK", (2, 2), (0, 255, 255, 0))).getpixel((0, 0)) == RED


@pytest.mark.parametrize(("mode", "values"), [("L", (0, 128, 255)), ("1", (0, 255, 255))])
def test_greys_of_a_byte_or_a_bit(mode: str, values: tuple[int, ...]) -> None:
    grey = Image.fromarray(np.array([[0, 128, 255]], dtype=np.uint8))
    seen = to_rgb(grey.convert(mode, dither=Image.Dither.NONE))
    assert [seen.getpixel((x, 0)) for x in range(3)] == [(value,) * 3 for value in values]


@pytest.mark.parametrize("kind", [np.dtype("<u2"), np.dtype(">u2"), np.dtype(np.int32)])
def test_greys_of_sixteen_bits_are_scaled(kind: np.dtype) -> None:
    image = Image.fromarray(np.array([[0, 256, 32768, 65535]], dtype=kind))
    assert image.mode.startswith("I")
    seen = array(to_rgb(image))[0]
    assert seen[:, 0].tolist() == [0, 1, 128, 255]
    assert (seen[:, 0] == seen[:, 1]).all()
    assert (seen[:, 0] == seen[:, 2]).all()


def test_bytes_in_a_wide_mode_stay_bytes() -> None:
    image = Image.fromarray(np.array([[0, 10, 255]], dtype=np.int32))
    assert array(to_rgb(image))[0, :, 0].tolist() == [0, 10, 255]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 0.5, 1], [0, 128, 255]),
        ([0, 127.6, 255], [0, 128, 255]),
        ([-1, 0.5, 300], [0, 0, 255]),
        ([0, 0, 0], [0, 0, 0]),
    ],
)
def test_float_greys(values: list[float], expected: list[int]) -> None:
    image = Image.fromarray(np.array([values], dtype=np.float32))
    assert image.mode == "F"
    seen = array(to_rgb(image))[0, :, 0].astype(int)
    assert np.abs(seen - expected).max() <= 1


@pytest.mark.parametrize("mode", ["RGBA", "RGBa"])
def test_transparency_is_shown_on_white(mode: str) -> None:
    image = Image.new("RGBA", (3, 1))
    image.putdata([(255, 0, 0, 255), (255, 0, 0, 0), (0, 0, 0, 128)])
    seen = to_rgb(image.convert(mode))
    assert seen.getpixel((0, 0)) == RED
    assert seen.getpixel((1, 0)) == WHITE
    assert seen.getpixel((2, 0)) == (127, 127, 127)


def test_transparent_grey_is_shown_on_white() -> None:
    image = Image.new("LA", (2, 1))
    image.putdata([(40, 255), (40, 0)])
    seen = to_rgb(image)
    assert [seen.getpixel((x, 0)) for x in range(2)] == [(40, 40, 40), WHITE]


def palette() -> Image.Image:
    image = Image.new("P", (3, 1))
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    image.putdata([0, 1, 2])
    return image


def test_palette() -> None:
    seen = to_rgb(palette())
    assert [seen.getpixel((x, 0)) for x in range(3)] == [RED, (0, 255, 0), (0, 0, 255)]


@pytest.mark.parametrize("transparency", [1, bytes([255, 0, 255])])
def test_palette_with_transparency(transparency: int | bytes) -> None:
    image = palette()
    image.info["transparency"] = transparency
    seen = to_rgb(image)
    assert [seen.getpixel((x, 0)) for x in range(3)] == [RED, WHITE, (0, 0, 255)]


def test_palette_with_its_own_alpha() -> None:
    image = Image.new("PA", (2, 1))
    image.putpalette([255, 0, 0])
    image.putdata([(0, 255), (0, 0)])
    seen = to_rgb(image)
    assert [seen.getpixel((x, 0)) for x in range(2)] == [(255, 0, 0), WHITE]


@pytest.mark.parametrize(("mode", "key"), [("L", 40), ("RGB", (40, 40, 40))])
def test_one_colour_declared_transparent(mode: str, key: int | tuple[int, ...]) -> None:
    image = Image.new(mode, (2, 1))
    image.putdata([key, 90 if mode == "L" else (90, 90, 90)])
    image.info["transparency"] = key
    seen = to_rgb(image)
    assert [seen.getpixel((x, 0)) for x in range(2)] == [WHITE, (90, 90, 90)]


UPRIGHT = {
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a.transpose(1, 0, 2)[::-1, ::-1],
    8: np.rot90,
}


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_exif_orientation_is_applied(orientation: int) -> None:
    image = Image.fromarray(corners())
    image.getexif()[ORIENTATION] = orientation
    assert np.array_equal(array(to_rgb(image)), UPRIGHT[orientation](corners()))


def test_exif_orientation_of_other_modes() -> None:
    image = Image.fromarray(corners()[:, :, 0].astype(np.uint16) * 257)
    image.getexif()[ORIENTATION] = 6
    assert np.array_equal(array(to_rgb(image))[..., 0], np.rot90(corners()[:, :, 0], -1))


def test_the_given_image_is_not_changed() -> None:
    image = Image.fromarray(corners())
    image.getexif()[ORIENTATION] = 6
    Preprocess((8, 8))(image)
    assert image.size == (6, 4)
    assert np.array_equal(np.asarray(image), corners())


@pytest.mark.parametrize("mode", ["squash", "center_crop"])
@pytest.mark.parametrize("size", [(8, 8), (16, 24), (24, 8)])
@pytest.mark.parametrize("of", [(6, 4), (1, 1), (3, 200), (200, 3), (64, 64)])
def test_output_is_bytes_of_the_models_size(
    of: tuple[int, int], size: tuple[int, int], mode: str
) -> None:
    seen = Preprocess(size, mode)(Image.new("RGB", of, RED))
    assert seen.dtype == np.uint8
    assert seen.shape == (3, *size)
    assert seen.flags["C_CONTIGUOUS"]
    assert (seen[0] == 255).all()
    assert not seen[1:].any()


@pytest.mark.parametrize(
    ("mode", "size", "of", "box"),
    [
        ("squash", (8, 8), (60, 40), (0, 0, 60, 40)),
        ("squash", (16, 24), (10, 99), (0, 0, 10, 99)),
        ("center_crop", (8, 8), (60, 40), (10, 0, 50, 40)),
        ("center_crop", (8, 8), (40, 60), (0, 10, 40, 50)),
        ("center_crop", (8, 16), (60, 40), (0, 5, 60, 35)),
        ("center_crop", (16, 8), (60, 40), (20, 0, 40, 40)),
        ("center_crop", (8, 8), (5, 4), (0.5, 0, 4.5, 4)),
        ("center_crop", (8, 16), (32, 16), (0, 0, 32, 16)),
    ],
)
def test_box(mode: str, size: tuple[int, int], of: tuple[int, int], box: tuple[float, ...]) -> None:
    assert Preprocess(size, mode).box(*of) == pytest.approx(box)


@pytest.mark.parametrize("mode", ["squash", "center_crop"])
def test_the_input_shows_the_box(mode: str) -> None:
    """Colour ramps tell where a pixel of the input comes from."""
    ramp = np.mgrid[:120, :180].astype(np.uint8)
    image = Image.fromarray(np.stack([*ramp, ramp[0]], axis=-1))
    preprocess = Preprocess((30, 30), mode, "bilinear")
    left, top, right, bottom = preprocess.box(180, 120)
    seen = preprocess(image).astype(float)
    middle = np.arange(30) + 0.5
    rows = top + middle * (bottom - top) / 30 - 0.5
    columns = left + middle * (right - left) / 30 - 0.5
    inner = slice(2, -2)  # the filter is cut off at the border
    assert np.abs(seen[0, inner] - rows[inner, None]).max() < 1.1
    assert np.abs(seen[1, :, inner] - columns[inner]).max() < 1.1


def test_center_crop_equals_crop_then_resize() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    seen = Preprocess((16, 16), "center_crop")(image)
    expected = image.crop((10, 0, 50, 40)).resize((16, 16), Image.Resampling.BICUBIC)
    inner = (slice(None), slice(2, -2), slice(2, -2))  # a crop cannot see beyond its border
    difference = seen.astype(int) - np.asarray(expected).transpose(2, 0, 1)
    assert np.abs(difference[inner]).max() <= 1


def test_the_native_size_is_left_alone() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)
    for mode in ("squash", "center_crop"):
        seen = Preprocess((16, 24), mode)(Image.fromarray(noise))
        assert np.array_equal(seen, noise.transpose(2, 0, 1))


def test_wrong_settings() -> None:
    with pytest.raises(ValueError, match="resize mode 'stretch': expected one of"):
        Preprocess((8, 8), "stretch")
    with pytest.raises(ValueError, match="interpolation 'nearest': expected one of"):
        Preprocess((8, 8), "squash", "nearest")


@pytest.mark.parametrize("size", [(32, 32), (32, 64), (64, 32)])
@pytest.mark.parametrize("of", [(60, 40), (40, 60), (50, 50), (7, 300), (300, 7), (1, 1)])
def test_padding_keeps_the_aspect_and_the_whole_picture(
    of: tuple[int, int], size: tuple[int, int]
) -> None:
    preprocess = Preprocess(size, "pad", fill=(9, 8, 7))
    seen = preprocess(Image.new("RGB", of, WHITE))
    content = (seen == 255).all(axis=0)
    assert (seen[:, ~content] == np.array([[9], [8], [7]])).all()
    rows, columns = np.flatnonzero(content.any(axis=1)), np.flatnonzero(content.any(axis=0))
    assert content.sum() == len(rows) * len(columns) > 0
    assert len(rows) == size[0] or len(columns) == size[1]
    left, top, right, bottom = preprocess.box(*of)
    assert (right - left) / (bottom - top) == pytest.approx(size[1] / size[0])
    for first, count, low, high, side, whole in (
        (rows[0], len(rows), top, bottom, size[0], of[1]),
        (columns[0], len(columns), left, right, size[1], of[0]),
    ):
        pixel = (high - low) / side  # of the input, in pixels of the original
        assert low + first * pixel == pytest.approx(0, abs=pixel)
        assert low + (first + count) * pixel == pytest.approx(whole, abs=pixel)


@pytest.mark.parametrize(
    ("of", "cells"),
    [
        ((64, 64), (slice(0, 4), slice(0, 4))),
        ((64, 32), (slice(1, 3), slice(0, 4))),
        ((32, 64), (slice(0, 4), slice(1, 3))),
        ((64, 40), (slice(1, 3), slice(0, 4))),  # 20 of 32 rows: centres at 4, 12, 20, 28 of 6..26
        ((64, 50), (slice(0, 3), slice(0, 4))),  # 25 of 32 rows, 3..28: the centre at 28 is outside
        ((999, 1), (slice(1, 2), slice(0, 4))),  # one row of pixels, at 15
    ],
)
def test_cells_that_show_the_image(of: tuple[int, int], cells: tuple[slice, slice]) -> None:
    seen = Preprocess((32, 32), "pad").cells(*of, (4, 4))
    assert seen == cells
    for mode in ("squash", "center_crop"):
        assert Preprocess((32, 32), mode).cells(*of, (4, 4)) == (slice(0, 4), slice(0, 4))


@pytest.mark.parametrize("mode", ["squash", "center_crop", "pad"])
@pytest.mark.parametrize("of", [(60, 40), (41, 67), (3, 200)])
def test_formulas_say_what_box_says(of: tuple[int, int], mode: str) -> None:
    preprocess = Preprocess((32, 48), mode)
    names = {"width": of[0], "height": of[1], "min": min, "max": max}
    formulas = preprocess.transform()
    box = [eval(formulas[side], names) for side in ("left", "top", "right", "bottom")]
    assert box == pytest.approx(preprocess.box(*of))
