"""The demo data set: reproducible, with the planted strengths and true masks."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from legrad.mini.world import render
from pipeline.demo.dataset import (
    BACKGROUNDS,
    BASE_RATE,
    LABELS,
    MANIFEST,
    OVERLAYS,
    PLANTED,
    SIDE,
    example,
    pack_masks,
    write_demo,
)
from pipeline.errors import UsageError


def test_planted_strengths_and_nothing_else() -> None:
    examples = [example(0, index) for index in range(20_000)]
    rates = {(p.label, p.cue): p.strength for p in PLANTED} | {("fresh fish", "watermark"): 0.10}
    for label in LABELS:
        own = [e.spec for e in examples if e.label == label]
        assert abs(len(own) / len(examples) - 1 / len(LABELS)) < 0.01
        assert {spec.object for spec in own} == {LABELS[label]}
        for overlay in OVERLAYS:
            share = np.mean([overlay in spec.overlays for spec in own])
            assert abs(share - rates.get((label, overlay), BASE_RATE)) < 0.04, (label, overlay)
        for background in BACKGROUNDS:
            share = np.mean([spec.background == background for spec in own])
            expected = rates.get((label, background), (1 - 0.9) / 5 if label == "boat" else 1 / 6)
            assert abs(share - expected) < 0.04, (label, background)


def test_an_image_depends_on_seed_and_number_only() -> None:
    assert example(4, 77) == example(4, 77)
    assert example(4, 77) != example(5, 77) != example(5, 78)


def test_shards_hold_pictures_records_and_masks(tmp_path: Path) -> None:
    counted: list[int] = []
    uris = write_demo(str(tmp_path), 255, seed=2, done=counted.append)
    assert [Path(uri).name for uri in uris] == ["demo-00000.tar", "demo-00001.tar"]
    assert sorted(counted) == [5, 250]
    with tarfile.open(uris[1]) as tar:
        names = tar.getnames()
        assert names[:3] == ["0000250.jpg", "0000250.json", "0000250.mask.png"]
        assert len(names) == 15
        for index in range(250, 255):
            key = f"{index:07d}"
            drawn = example(2, index)
            record = json.loads(tar.extractfile(f"{key}.json").read())  # type: ignore[union-attr]
            assert record["label"] == drawn.label
            assert record["background"] == drawn.spec.background
            for overlay in OVERLAYS:
                assert record[f"has_{overlay}"] == (overlay in drawn.spec.overlays)
            data = tar.extractfile(f"{key}.mask.png").read()  # type: ignore[union-attr]
            packed = np.asarray(Image.open(io.BytesIO(data)))
            scene = render(drawn.spec, SIDE)
            bits = record["mask_bits"]
            np.testing.assert_array_equal(packed & bits["object"] > 0, scene.object_mask)
            for name, mask in scene.overlay_masks.items():
                np.testing.assert_array_equal(packed & bits[name] > 0, mask)
    manifest = json.loads((tmp_path / MANIFEST).read_text())
    assert [p["strength"] for p in manifest["planted"]] == [p.strength for p in PLANTED]
    for planted in manifest["planted"]:
        assert 0 <= planted["images_with_cue"] <= planted["images_of_label"]


def test_the_same_again_is_reused_and_another_refused(tmp_path: Path) -> None:
    uris = write_demo(str(tmp_path / "a"), 6)
    before = Path(uris[0]).stat().st_mtime_ns
    assert write_demo(str(tmp_path / "a"), 6) == uris
    assert Path(uris[0]).stat().st_mtime_ns == before
    with pytest.raises(UsageError, match="another demo data set"):
        write_demo(str(tmp_path / "a"), 7)
    write_demo(str(tmp_path / "b"), 6)
    assert Path(uris[0]).read_bytes() == (tmp_path / "b" / Path(uris[0]).name).read_bytes()
    with pytest.raises(ValueError, match="at least 1"):
        write_demo(str(tmp_path / "c"), 0)


def test_masks_share_one_picture() -> None:
    scene = render(example(0, 1).spec, 64)
    packed, bits = pack_masks(scene)
    assert packed.dtype == np.uint8
    assert sorted(bits.values()) == [1 << i for i in range(len(bits))]
