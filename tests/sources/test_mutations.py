"""A thousand mutated inputs, seeded: every one is accounted for and none ends a run."""

import bz2
import gzip
import io
import lzma
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from legrad.preprocess import Preprocess
from pipeline.errors import UsageError
from pipeline.progress.progress import Reporter
from pipeline.schema import Status, source_schema
from pipeline.stages.decode import Decoder, Decoding, decode
from tests.data import encoded, hugging_face, picture, read_all, samples, settings, tar_bytes

PREPROCESS = Preprocess((16, 16))
DECODING = Decoding(20_000)
PICTURE = picture(1, (64, 48))
FORMATS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "jpeg": ("RGB", "JPEG", {}),
    "jpeg 4:4:4": ("RGB", "JPEG", {"subsampling": 0}),
    "jpeg progressive": ("RGB", "JPEG", {"progressive": True}),
    "jpeg restarts": ("RGB", "JPEG", {"restart_marker_blocks": 2}),
    "jpeg grey": ("L", "JPEG", {}),
    "jpeg cmyk": ("CMYK", "JPEG", {}),
    "mpo": ("RGB", "MPO", {"save_all": True, "append_images": [PICTURE]}),
    "png": ("RGB", "PNG", {}),
    "png alpha": ("RGBA", "PNG", {}),
    "png palette": ("P", "PNG", {"transparency": 3}),
    "png 16 bit": ("I;16", "PNG", {}),
    "png 1 bit": ("1", "PNG", {}),
    "apng": ("RGB", "PNG", {"save_all": True, "append_images": [PICTURE]}),
    "gif": ("P", "GIF", {}),
    "gif animated": ("RGB", "GIF", {"save_all": True, "append_images": [picture(2, (64, 48))]}),
    "webp": ("RGB", "WEBP", {}),
    "webp lossless": ("RGBA", "WEBP", {"lossless": True}),
    "tiff": ("RGB", "TIFF", {}),
    "tiff lzw": ("LAB", "TIFF", {"compression": "tiff_lzw"}),
    "tiff jpeg": ("YCbCr", "TIFF", {"compression": "jpeg"}),
    "bmp": ("RGB", "BMP", {}),
    "ppm": ("RGB", "PPM", {}),
    "jpeg 2000": ("RGB", "JPEG2000", {}),
    "avif": ("RGB", "AVIF", {"speed": 10}),
    "ico": ("RGBA", "ICO", {"sizes": [(32, 32)]}),
    "tga": ("RGB", "TGA", {"compression": "tga_rle"}),
}


def in_mode(mode: str) -> Image.Image:
    if mode == "I;16":
        return Image.fromarray(np.asarray(PICTURE.convert("L")).astype(np.uint16) * 257)
    if mode == "LAB":
        return Image.merge("LAB", PICTURE.split())
    return PICTURE.convert(mode)


def files() -> dict[str, bytes]:
    return {
        name: encoded(in_mode(mode), kind, **options)
        for name, (mode, kind, options) in FORMATS.items()
    }


def mutate(data: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    """Flip bits, cut, drop or repeat a piece, put a piece of another file in, or zero one."""
    raw = bytearray(data)
    first, last = sorted(rng.integers(0, len(raw) + 1, 2))
    match int(rng.integers(6)):
        case 0:
            for place in rng.integers(0, len(raw), rng.integers(1, 20)):
                raw[place] ^= 1 << int(rng.integers(8))
        case 1:
            del raw[last:]
        case 2:
            del raw[first:last]
        case 3:
            raw[first:first] = raw[first:last]
        case 4:
            raw[first:last] = other[first:last]
        case 5:
            raw[first:last] = bytes(last - first)
    return bytes(raw)


def test_a_thousand_images() -> None:
    rng = np.random.default_rng(20)
    originals = files()
    names = list(originals)
    rows = []
    for number in range(1000):
        name, other = names[number % len(names)], names[int(rng.integers(len(names)))]
        data = mutate(originals[name], originals[other], rng)
        rows.append({"image_id": f"{number} {name}", "bytes": data, "status": "ok"})
    decoder = Decoder(PREPROCESS, DECODING, {}, store_captions=True, reporter=Reporter())
    found = decoder(pa.Table.from_pylist(rows, schema=source_schema({}))).to_pylist()
    assert [row["image_id"] for row in found] == [row["image_id"] for row in rows]
    for row in found:
        whole = row["status"] == Status.OK
        assert (row["pixels"] is not None) == whole == (row["error"] is None), row["image_id"]
    counts = Counter(row["status"] for row in found)
    assert set(counts) <= set(Status)
    assert len(counts) >= 4, counts
    assert counts["ok"] < 700


@pytest.mark.parametrize("name", FORMATS)
def test_what_is_cut_off_is_never_ok_unless_nothing_is_lost(name: str) -> None:
    data = files()[name]
    whole = decode(data, PREPROCESS, DECODING)
    assert whole.status is Status.OK, whole
    for share in np.linspace(0.02, 0.99, 40):
        found = decode(data[: int(len(data) * share)], PREPROCESS, DECODING)
        assert found.pixels in (None, whole.pixels), share


@pytest.mark.parametrize("packed", ["plain", "gz", "bz2", "xz", "zst"])
def test_mutated_tars(packed: str, tmp_path: Path) -> None:
    pack = {
        "plain": bytes,
        "gz": gzip.compress,
        "bz2": bz2.compress,
        "xz": lzma.compress,
        "zst": partial(pa.compress, codec="zstd", asbytes=True),
    }[packed]
    data = pack(tar_bytes(samples(["a", "b", "c"])))
    check_containers(data, tmp_path / "s.tar", settings("webdataset", str(tmp_path)), 60)


def test_mutated_parquet(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    rows = [
        {"image": {"bytes": encoded(picture(i, (16, 16))), "path": "x"}, "label": i, "id": f"k{i}"}
        for i in range(12)
    ]
    hugging_face(buffer, rows, ("a", "b"))
    source = settings("parquet", str(tmp_path), key_field="id")
    check_containers(buffer.getvalue(), tmp_path / "x.parquet", source, 150)


def test_mutated_footers_do_not_end_the_process(tmp_path: Path) -> None:
    place = tmp_path / "x.parquet"
    rows = [{"image": {"bytes": b"%d" % i, "path": "x"}, "label": i, "id": i} for i in range(12)]
    hugging_face(place, rows)
    data = place.read_bytes()
    footer = int.from_bytes(data[-8:-4], "little")
    rng = np.random.default_rng(3)
    source = settings("parquet", str(place), key_field="id", sample=2)
    outcomes: Counter[str] = Counter()
    for _ in range(150):
        raw = bytearray(data)
        for at in rng.integers(len(raw) - footer - 8, len(raw) - 8, rng.integers(1, 6)):
            raw[at] ^= 1 << int(rng.integers(8))
        place.write_bytes(raw)
        outcomes[_outcome(source)] += 1
    assert len(outcomes) >= 2, outcomes


def _outcome(source: Any) -> str:
    try:
        return "rows" if all(row["status"] == "ok" for row in read_all(source)) else "failures"
    except UsageError:
        return "refused"


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_mutated_lists(kind: str, tmp_path: Path) -> None:
    lines = {
        "csv": ["image,label", *(f'{i}.jpg,"a, {i}"' for i in range(20))],
        "jsonl": [f'{{"image": "{i}.jpg", "label": "a {i}"}}' for i in range(20)],
    }[kind]
    data = "\n".join(lines).encode()
    place = tmp_path / f"l.{kind}"
    check_containers(data, place, settings("list", str(place)), 60)


def check_containers(data: bytes, place: Path, source: Any, count: int) -> None:
    """Mutated, each gives rows with unique ids, or one clear message before the run."""
    rng = np.random.default_rng(7)
    outcomes: Counter[str] = Counter()
    refusals: list[str] = []
    for number in range(count):
        place.write_bytes(mutate(data, data[::-1], rng) if number else data)
        try:
            rows = read_all(source)
        except UsageError as error:
            refusals.append(str(error))
            continue
        ids = [row["image_id"] for row in rows]
        assert len(set(ids)) == len(ids)
        assert {row["status"] for row in rows} <= set(Status)
        outcomes.update({row["status"] for row in rows})
    assert all(place.name in text for text in refusals)
    assert len(outcomes) + bool(refusals) >= 2, outcomes
