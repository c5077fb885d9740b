"""The photographs of the benchmark: how they are read, and what is planted in them."""

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from benchmarks.photographs_sets import ELSEWHERE, SHARES, Planting, truth, write_set
from benchmarks.photographs_world import Photographs, read_photographs, split
from legrad.mini.world import OVERLAYS

CLASSES = ("bus", "cow", "dog", "elk", "fox")


def _jpeg(colour: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30), colour).save(buffer, "JPEG")
    return buffer.getvalue()


def _photographs(count: int) -> Photographs:
    rng = np.random.default_rng(5)
    pixels = rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    return Photographs(pixels, np.arange(count) % len(CLASSES), CLASSES)


def test_class_folders_and_parquet_are_read_alike(tmp_path: Path) -> None:
    colours = {"cow": "red", "dog": "blue"}
    for name, colour in colours.items():
        (tmp_path / "folders" / name).mkdir(parents=True)
        (tmp_path / "folders" / name / "a.jpg").write_bytes(_jpeg(colour))
    rows = [{"image": {"bytes": _jpeg(c), "path": None}, "label": n} for n, c in colours.items()]
    (tmp_path / "parquet").mkdir()
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "parquet" / "train.parquet")
    folders, parquet = (read_photographs(tmp_path / name) for name in ("folders", "parquet"))
    assert folders.classes == parquet.classes == ("cow", "dog")
    assert folders.pixels.shape == (2, 32, 32, 3)
    np.testing.assert_array_equal(folders.pixels, parquet.pixels)
    assert (folders.pixels[:, 0, 0, 0] > 128).tolist() == [True, False]


def test_no_photographs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="0 photographs of 0 classes"):
        read_photographs(tmp_path)


def test_no_photograph_is_on_both_sides_of_the_split() -> None:
    photographs = _photographs(50)
    training, held_out = split(photographs)
    assert (len(training.labels), len(held_out.labels)) == (40, 10)
    seen = {pixels.tobytes() for pixels in training.pixels}
    assert not seen & {pixels.tobytes() for pixels in held_out.pixels}


def test_cues_have_the_shares_that_are_planted() -> None:
    planting = Planting.drawn(3, CLASSES)
    assert {share for _, share in planting.planted.values()} == set(SHARES)
    assert len({host for host, _ in planting.planted.values()}) == len(SHARES)
    assert sorted((*planting.cues, *planting.decoys)) == sorted(OVERLAYS)
    for cls in CLASSES:
        counts = [planting.has(row, cls) for row in range(2000)]
        for cue in OVERLAYS:
            share = np.mean([cue in names for names in counts])
            assert abs(share - planting.share(cls, cue)) < 0.05
    unplanted = set(planting.cues) - set(planting.planted)
    assert all(planting.share(cls, cue) == ELSEWHERE for cls in CLASSES for cue in unplanted)


def test_the_written_set_says_what_its_pictures_show(tmp_path: Path) -> None:
    planting, photographs = Planting.drawn(1, CLASSES), _photographs(60)
    write_set(planting, photographs, tmp_path / "set.parquet")
    table = pq.read_table(tmp_path / "set.parquet").to_pandas()
    assert table["label"].tolist() == [CLASSES[code] for code in photographs.labels]
    for row in range(len(table)):
        cls = CLASSES[photographs.labels[row]]
        assert [cue for cue in planting.cues if table[f"has_{cue}"][row]] == planting.has(row, cls)
        _, ink = planting.image(row, photographs.pixels[row], cls)
        assert all(mask.any() for mask in ink.values())
    shares = truth(table, planting.cues).set_index(["class", "cue"])
    cue, (host, _) = next(iter(planting.planted.items()))
    has, inside = table[f"has_{cue}"], table["label"] == host
    assert shares.loc[(host, cue), "true_share"] == has[inside].mean()
    assert shares.loc[(host, cue), "true_elsewhere"] == has[~inside].mean()
