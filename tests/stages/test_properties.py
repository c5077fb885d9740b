"""Properties of drawn images with known values."""

import io
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image, ImageFilter

from legrad.preprocess import Preprocess, to_rgb
from pipeline.progress.progress import Reporter
from pipeline.schema import PROPERTIES, property_column, source_schema
from pipeline.stages.decode import Decoder, Decoding
from pipeline.stages.properties import measure, take_sample
from tests.data import encoded


def properties(data: bytes) -> dict[str, float | None]:
    with Image.open(io.BytesIO(data)) as image:
        rgb = to_rgb(image)
        sample = take_sample(image, rgb, rgb.size)
    return {name: values[0] for name, values in measure([sample]).items()}


def png(pixels: Any) -> dict[str, float | None]:
    return properties(encoded(Image.fromarray(np.asarray(pixels, np.uint8)), "PNG"))


def noise(height: int = 300, width: int = 400, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def number(value: float | None) -> float:
    assert value is not None
    return value


def test_a_uniform_image() -> None:
    found = png(np.full((60, 90, 3), (51, 102, 204)))
    luma = 0.299 * 51 + 0.587 * 102 + 0.114 * 204
    assert found["brightness"] == pytest.approx(luma / 255, abs=1e-5)
    assert found["colourfulness"] == pytest.approx(0.3 * np.hypot(-51, -127.5), rel=1e-4)
    for name in ("contrast", "sharpness", "greyness"):
        assert found[name] == pytest.approx(0, abs=1e-5), name
    assert found["uniform_frame"] == 1
    assert found["aspect_ratio"] == 1.5
    assert found["megapixels"] == pytest.approx(0.0054)
    assert found["jpeg_quality"] is None


def test_halves_black_and_white() -> None:
    pixels = np.zeros((96, 96, 3))
    pixels[:, 48:] = 255
    found = png(pixels)
    assert found["brightness"] == pytest.approx(0.5)
    assert found["contrast"] == pytest.approx(0.5, abs=1e-5)
    assert found["colourfulness"] == pytest.approx(0, abs=1e-4)
    assert found["greyness"] == 1
    assert found["uniform_frame"] == 0


def test_colourfulness_as_published() -> None:
    """Hasler and Suesstrunk (2003): halves of pure red and pure blue."""
    pixels = np.zeros((96, 96, 3))
    pixels[:48, :, 0] = 255
    pixels[48:, :, 2] = 255
    deviation = np.hypot(127.5, 191.25)  # of red - green, and of yellow - blue
    mean = np.hypot(127.5, -63.75)
    assert png(pixels)["colourfulness"] == pytest.approx(deviation + 0.3 * mean, rel=1e-5)


@pytest.mark.parametrize("quality", [1, 30, 50, 75, 95, 100])
def test_jpeg_quality(quality: int) -> None:
    image = Image.fromarray(noise())
    assert properties(encoded(image, quality=quality))["jpeg_quality"] == quality
    grey = properties(encoded(image.convert("L"), quality=quality, progressive=True))
    assert grey["jpeg_quality"] == quality


def test_sharpness_falls_with_blur_and_not_with_size() -> None:
    small = Image.fromarray(noise(60, 80)).resize((640, 480), Image.Resampling.BICUBIC)
    values = [
        number(properties(encoded(small.filter(ImageFilter.GaussianBlur(r)), "PNG"))["sharpness"])
        for r in (0, 2, 4, 8)
    ]
    assert values[0] > 1.3 * values[1] > 2 * values[2] > 8 * values[3]
    large = number(properties(encoded(small.resize((1280, 960)), "PNG"))["sharpness"])
    assert large == pytest.approx(values[0], rel=0.25)


@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 500), (2000, 3), (3, 2), (40, 30)])
def test_any_shape_is_measured(width: int, height: int) -> None:
    found = png(noise(height, width))
    assert set(found) == set(PROPERTIES)
    assert (found["sharpness"] is None) == (min(width, height) / max(width, height) * 256 < 2.5)
    missing = {name for name, value in found.items() if value is None}
    assert missing <= {"sharpness", "jpeg_quality"}


@pytest.mark.parametrize("sides", ["all", "top and bottom", "one"])
def test_a_frame_of_one_colour(sides: str) -> None:
    pixels = noise(200, 400)
    pixels[:20] = (255, 255, 250)
    if sides != "one":
        pixels[-20:] = (255, 255, 250)
    if sides == "all":
        pixels[:, :40] = pixels[:, -40:] = (255, 255, 250)
    expected = {"all": 1 - 0.8 * 0.8, "top and bottom": 0.2, "one": 0.0}[sides]
    jpeg = properties(encoded(Image.fromarray(pixels), quality=90))
    assert number(jpeg["uniform_frame"]) == pytest.approx(expected, abs=0.08)
    assert number(png(noise(200, 400, seed=3))["uniform_frame"]) == 0


def test_a_grey_image_in_colour_is_grey() -> None:
    grey = Image.fromarray(noise()).convert("L")
    assert properties(encoded(grey.convert("RGB"), quality=60))["greyness"] == 1
    assert number(png(noise())["greyness"]) < 0.05


def test_columns_beside_pixels_that_stay_the_same() -> None:
    """Broken images have nulls; properties change nothing else."""
    files = [encoded(Image.fromarray(noise(30 + n, 40))) for n in range(20)] + [b"broken", None]
    rows = [{"image_id": str(n), "bytes": f, "status": "ok"} for n, f in enumerate(files)]
    batch, decoding = pa.Table.from_pylist(rows, source_schema({})), Decoding(10**6)
    tables = [
        Decoder(Preprocess((16, 16)), decoding, {}, True, Reporter(), None, properties)(batch)
        for properties in (False, True)
    ]
    columns = [property_column(name) for name in PROPERTIES]
    assert tables[1].drop_columns(columns).equals(tables[0])
    for name in columns:
        nulls = tables[1][name].is_null().to_pylist()
        assert nulls == [False] * 20 + [True, True], name
        assert tables[1].schema.field(name).type == pa.float32()
    assert tables[1][property_column("aspect_ratio")][10].as_py() == 1.0
