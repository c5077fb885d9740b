"""Decoding: encoded bytes become uint8 pixels, or a row that says why not."""

import faulthandler
import hashlib
import math
import re
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from PIL import Image, UnidentifiedImageError

from legrad.image_files import open_image, pixel_limit
from legrad.preprocess import Box, Preprocess, orientation, rgb_and_note
from pipeline.schema import Status, decoded_schema, property_column
from pipeline.stages.jpeg import missing_data
from pipeline.stages.properties import PixelSample, measure, take_sample

if TYPE_CHECKING:  # the second imports Ray, which explaining single images does without
    from pipeline.config.source_settings import SourceConfig
    from pipeline.progress.progress import Reporter


_DETAIL = 2
"""A reduced JPEG keeps at least this many pixels for each of the model's input, along each side."""
_LONGER_SIDE = 512
"""A reduced JPEG's longer side has at least this many pixels, twice those that properties need."""
_SIDEWAYS = (5, 6, 7, 8)
_ENDS_LEFT, _ENDS_ABOVE = (2, 3, 6, 7), (3, 4, 7, 8)
"""EXIF orientations that bring the last stored column or row to the left, and to the top."""


@dataclass(frozen=True)
class Decoded:
    """One decoded image, or the reason why there is none.

    Attributes:
        status: `Status.OK`, or what went wrong.
        pixels: uint8, 3 * height * width bytes at the model's input size; None unless ok.
        width, height: size of the upright original in pixels; None if unknown, and as stored if
            the image is broken.
        error: the reason in words; of a decoded image, what was guessed about its values.
        sample: pixels on which its properties are measured; None unless it was asked for.
    """

    status: Status
    pixels: bytes | None = None
    width: int | None = None
    height: int | None = None
    error: str | None = None
    sample: PixelSample | None = None


@dataclass(frozen=True)
class Decoding:
    """How encoded images are decoded.

    Attributes:
        max_pixels: larger images are refused.
        fast: decode a JPEG at the smallest scale (1/2, 1/4, 1/8) of libjpeg that still has twice
            the model's input, and 512 pixels along the longer side; otherwise at its full size.
    """

    max_pixels: int
    fast: bool = False

    @classmethod
    def of_source(cls, source: "SourceConfig") -> "Decoding":
        """The decoding that the settings ask for."""
        return cls(source.max_pixels, source.decode == "fast")

    @classmethod
    def of_run(cls, identity: Mapping[str, Any]) -> "Decoding":
        """The decoding of a run; at full size if its identity does not mention it."""
        return cls(identity["source.max_pixels"], identity.get("source.decode") == "fast")


def decode(
    data: bytes, preprocess: Preprocess, decoding: Decoding, *, sample: bool = False
) -> Decoded:
    """Decode one encoded image and bring it to the model's input size; never raises on bad data.

    An animation gives its first frame.

    Args:
        data: contents of the file.
        preprocess: the model's preprocessing.
        decoding: how to decode it.
        sample: whether to take a sample for the properties of the image.
    """
    max_pixels = decoding.max_pixels
    size: tuple[int | None, int | None] = (None, None)
    try:
        with pixel_limit(max_pixels), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of odd files; statuses say it
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with open_image(data) as image:
                size = stored = image.size
                is_jpeg = image.format in ("JPEG", "MPO")
                scale = _reduce(image, preprocess) if is_jpeg and decoding.fast else 1
                image.load()
                lack = missing_data(data, image, scale) if is_jpeg else None
                if lack:
                    return Decoded(Status.TRUNCATED, None, *size, lack)
                turn = orientation(image)  # after the limit: asking a PNG for EXIF decodes it
                size = upright = stored[::-1] if turn in _SIDEWAYS else stored
                rgb, note = rgb_and_note(image)
                pixels = preprocess.resize(rgb, _area(rgb, upright, scale, turn)).tobytes()
                taken = take_sample(image, rgb, upright) if sample else None
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
"""Kinds of files that often take the place of an image, by their first bytes in lower case."""


def _reduce(image: Image.Image, preprocess: Preprocess) -> int:
    """Let libjpeg decode at a reduced scale; returns the factor: 1, 2, 4 or 8."""
    longer = max(image.size)
    upright = image.size[::-1] if orientation(image) in _SIDEWAYS else image.size
    factor = min(preprocess.scale(*upright) / _DETAIL, longer / _LONGER_SIDE)
    if factor >= 2:
        image.draft(None, (math.ceil(image.width / factor), math.ceil(image.height / factor)))
    return round(longer / max(image.size))


def _area(rgb: Image.Image, size: tuple[int, int], scale: int, turn: int) -> Box:
    """The area of the picture in an image that was decoded at a reduced scale and turned upright.

    The last row and column as stored are whole pixels, of which the picture may fill a part.

    Args:
        rgb: the upright image.
        size: (width, height) of the upright original in pixels.
        scale: factor by which it was reduced.
        turn: EXIF orientation.
    """
    width, height = size[0] / scale, size[1] / scale
    left = rgb.width - width if turn in _ENDS_LEFT else 0.0
    top = rgb.height - height if turn in _ENDS_ABOVE else 0.0
    return (left, top, left + width, top + height)


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
        decoding: how to decode them.
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
        decoding: Decoding,
        carry: dict[str, str],
        store_captions: bool,
        reporter: "Reporter",
        seconds: float | None = None,
        store_properties: bool = False,
    ) -> None:
        self.preprocess = preprocess
        self.decoding = decoding
        self.schema = decoded_schema(carry, properties=store_properties)
        self.store_captions = store_captions
        self.reporter = reporter
        self.seconds = seconds
        self.store_properties = store_properties

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Turn rows of `source_schema` into as many rows of `decoded_schema`."""
        with self.reporter.timed("decode"):
            samples: dict[int, PixelSample] = {}
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

    def _decode_row(self, row: dict[str, Any]) -> PixelSample | None:
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
            decoded = decode(data, self.preprocess, self.decoding, sample=self.store_properties)
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
