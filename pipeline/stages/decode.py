"""Decoding: encoded bytes become uint8 pixels, or a row that says why not."""

import faulthandler
import hashlib
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from PIL import Image, UnidentifiedImageError

from legrad.image_files import open_image
from legrad.preprocess import Preprocess, orientation, rgb_and_note
from pipeline.schema import Status, decoded_schema, property_column
from pipeline.stages.jpeg import missing_data
from pipeline.stages.properties import Sample, measure, take_sample

if TYPE_CHECKING:  # it imports Ray, which explaining single images does without
    from pipeline.progress.progress import Reporter


@dataclass(frozen=True)
class Decoded:
    """One decoded image, or the reason why there is none.

    Attributes:
        status: `Status.OK`, or what went wrong.
        pixels: uint8, 3 * height * width bytes at the model's input size; None unless ok.
        width, height: size of the upright original in pixels; None if unknown, and as stored if
            the image is broken.
        error: the reason in words; of a decoded image, what was guessed about its values.
        sample: what its properties are measured on; None unless it was asked for.
    """

    status: Status
    pixels: bytes | None = None
    width: int | None = None
    height: int | None = None
    error: str | None = None
    sample: Sample | None = None


def decode(
    data: bytes, preprocess: Preprocess, max_pixels: int, *, sample: bool = False
) -> Decoded:
    """Decode one encoded image and bring it to the model's input size; never raises on bad data.

    An animation gives its first frame. JPEGs are decoded in full: Pillow's reduced decoding changes
    the resized pixels by up to 3 levels at four times the target size, which is more than rounding.

    Args:
        data: contents of the file.
        preprocess: the model's preprocessing.
        max_pixels: larger images are refused.
        sample: whether to take a sample for the properties of the image.
    """
    size: tuple[int | None, int | None] = (None, None)
    try:
        with _pixel_limit(max_pixels), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of odd files; statuses say it
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with open_image(data) as image:
                size = image.size
                image.load()
                lack = missing_data(data, image) if image.format in ("JPEG", "MPO") else None
                if lack:
                    return Decoded(Status.TRUNCATED, None, *size, lack)
                size = _upright_size(image)  # after the limit: asking a PNG for EXIF decodes it
                rgb, note = rgb_and_note(image)
                pixels = preprocess.resize(rgb).tobytes()
                taken = take_sample(image, rgb) if sample else None
    except UnidentifiedImageError as error:
        return Decoded(Status.NOT_AN_IMAGE, error=_unknown_format(data, error))
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        return Decoded(Status.TOO_MANY_PIXELS, None, *size, _too_many(error, max_pixels))
    except Exception as error:  # noqa: BLE001 - decoders raise anything; the row says what
        return Decoded(_status_of(error), None, *size, f"{type(error).__name__}: {error}"[:500])
    return Decoded(Status.OK, pixels, *size, note, sample=taken)


_OTHER_CONTENTS = {
    b"version https://git-lfs": "a Git LFS pointer and not the image; run `git lfs pull`",
    b"<!doctype html": "a web page and not an image: its download failed",
    b"<html": "a web page and not an image: its download failed",
    b"<svg": "an SVG drawing; convert it to PNG",
    b"<?xml": "XML, perhaps an SVG drawing; convert it to PNG",
    b"/9j/": "a JPEG file as base64 text; store its bytes",
    b"ivborw0kgg": "a PNG file as base64 text; store its bytes",
}
"""What files are that are often found in place of an image, by their beginning in lower case."""


@contextmanager
def _pixel_limit(pixels: int) -> Iterator[None]:
    """Pillow's own limit, which holds for pictures inside a file, too, as in icons."""
    before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, pixels
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def _unknown_format(data: bytes, error: UnidentifiedImageError) -> str:
    if not data:
        return "no bytes"
    has_advice = "cannot identify" not in str(error)
    if has_advice:
        return str(error)
    head = data[:256].lstrip().lower()
    kinds = (kind for start, kind in _OTHER_CONTENTS.items() if head.startswith(start))
    return next(kinds, f"{len(data)} bytes of no known image format")


def _too_many(error: Exception, limit: int) -> str:
    """The setting and its value, with the number of pixels that Pillow's message gives."""
    pixels = re.search(r"\((\d+) pixels\)", str(error))
    count = f"{int(pixels[1]):,} pixels are" if pixels else "it has"
    return f"{count} more than source.max_pixels: {limit}; raise it to decode the image"


def _status_of(error: Exception) -> Status:
    truncated = "truncated" in str(error).lower() or isinstance(error, EOFError)
    return Status.TRUNCATED if truncated else Status.DECODE_ERROR


class Decoder:
    """The decode stage: a batch of source rows in, the same rows with pixels out.

    Args:
        preprocess: the model's preprocessing.
        max_pixels: larger images are refused.
        carry: columns of the source that are passed through, with their types.
        store_captions: whether captions are kept.
        reporter: receives the busy time of every batch.
        seconds: time limit per image; this process ends itself when it is reached, and
            `pipeline.stages.isolated` does the image again. None for no limit.
        store_properties: whether properties of the images are measured.
    """

    def __init__(
        self,
        preprocess: Preprocess,
        max_pixels: int,
        carry: dict[str, str],
        store_captions: bool,
        reporter: "Reporter",
        seconds: float | None = None,
        store_properties: bool = False,
    ) -> None:
        self.preprocess = preprocess
        self.max_pixels = max_pixels
        self.schema = decoded_schema(carry, properties=store_properties)
        self.store_captions = store_captions
        self.reporter = reporter
        self.seconds = seconds
        self.store_properties = store_properties

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Turn rows of `source_schema` into as many rows of `decoded_schema`."""
        with self.reporter.timed("decode"):
            samples: dict[int, Sample] = {}
            rows = batch.to_pylist()
            for number, row in enumerate(rows):
                sample = self._decode_row(row)
                if sample is not None:
                    samples[number] = sample
            for name, values in measure(list(samples.values())).items():
                for number, value in zip(samples, values, strict=True):
                    rows[number][property_column(name)] = value
            table = pa.Table.from_pylist(rows, schema=self.schema)
        return table

    def _decode_row(self, row: dict[str, Any]) -> Sample | None:
        """Replace the bytes of a row by its pixels, and return the sample of its image."""
        data: bytes | None = row.pop("bytes")
        if not self.store_captions:
            row["caption"] = None
        if data is None:
            return None
        row["sha256"] = hashlib.sha256(data).hexdigest()
        if row["status"] != Status.OK:
            return None
        with _deadline(self.seconds):
            decoded = decode(data, self.preprocess, self.max_pixels, sample=self.store_properties)
        row["status"], row["error"] = str(decoded.status), decoded.error
        row["width"], row["height"], row["pixels"] = decoded.width, decoded.height, decoded.pixels
        return decoded.sample


@contextmanager
def _deadline(seconds: float | None) -> Iterator[None]:
    """End this process if the block takes longer, even in C code that holds the interpreter."""
    if seconds is None:
        yield
        return
    faulthandler.dump_traceback_later(seconds, exit=True, file=sys.__stderr__ or sys.stderr)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


def _upright_size(image: Image.Image) -> tuple[int, int]:
    """(width, height) after EXIF rotation."""
    turned = orientation(image) in (5, 6, 7, 8)
    return (image.height, image.width) if turned else (image.width, image.height)
