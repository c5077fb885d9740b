"""What measuring brightness, sharpness and the like adds to decoding.

    python -m benchmarks.properties

Drawn scenes are decoded to 224 px with and without their properties, in turns, and the properties
are measured alone, on images that are decoded already. CPU time is counted, and the fastest turn of
each kind. With other work on the machine the difference of the first two is mostly noise, and the
third is a lower bound, since its images are in the processor's cache.
"""

import argparse
import io
import time
from collections.abc import Sequence

from PIL import Image

from legrad.mini.world import BACKGROUNDS, OBJECTS, OVERLAYS, SceneSpec, render
from legrad.preprocess import Preprocess, to_rgb
from pipeline.stages.decode import Decoding, decode
from pipeline.stages.properties import measure, take_sample

SIDES = (300, 500, 1000)
_IMAGES, _QUALITY = 32, 90
_DECODING = Decoding(10**8)


def drawn(side: int) -> list[bytes]:
    """JPEG files of scenes with different contents."""
    files = []
    for number in range(_IMAGES):
        spec = SceneSpec(
            OBJECTS[number % len(OBJECTS)],
            BACKGROUNDS[number % len(BACKGROUNDS)],
            OVERLAYS[: number % 3],
            number,
        )
        buffer = io.BytesIO()
        render(spec, side).image.save(buffer, "JPEG", quality=_QUALITY)
        files.append(buffer.getvalue())
    return files


def seconds(files: list[bytes], *, properties: bool) -> float:
    """CPU time of decoding the files, and of measuring them."""
    preprocess = Preprocess((224, 224))
    began = time.process_time()
    decoded = [decode(data, preprocess, _DECODING, sample=properties) for data in files]
    if properties:
        measure([image.sample for image in decoded if image.sample is not None])
    return time.process_time() - began


def seconds_alone(images: Sequence[Image.Image], upright: Sequence[Image.Image]) -> float:
    """CPU time of measuring decoded images."""
    began = time.process_time()
    measure([take_sample(image, rgb, rgb.size) for image, rgb in zip(images, upright, strict=True)])
    return time.process_time() - began


def main() -> None:
    """Print a row for each size."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--turns", type=int, default=40)
    turns = parser.parse_args().turns
    print("CPU time in ms an image\nside    decode  with properties       properties alone")
    for side in SIDES:
        files = drawn(side)
        images = [Image.open(io.BytesIO(data)) for data in files]
        upright = [to_rgb(image) for image in images]
        times = [
            (
                seconds(files, properties=False),
                seconds(files, properties=True),
                seconds_alone(images, upright),
            )
            for _ in range(turns)
        ]
        plain, both, alone = (1000 * min(column) / _IMAGES for column in zip(*times, strict=True))
        print(
            f"{side:4} {plain:9.3f} {both:10.3f} ({both / plain - 1:+5.1%}) "
            f"{alone:12.3f} ({alone / plain:.1%})",
            flush=True,
        )


if __name__ == "__main__":
    main()
