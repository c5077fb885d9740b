"""Files beside the images of a folder: they give no rows, but labels and captions."""

import json
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from pipeline.errors import UsageError
from pipeline.sources.datasource import open_source
from pipeline.sources.listing import list_files
from tests.data import jpeg, read_all, settings


def img2dataset(root: Path, labels: bool = False) -> Path:
    """Two shards as img2dataset writes them with ``output_format="files"``."""
    for shard in range(2):
        folder = root / f"{shard:05d}"
        folder.mkdir(parents=True)
        (root / f"{shard:05d}.parquet").write_bytes(b"PAR1")
        (root / f"{shard:05d}_stats.json").write_text("{}")
        for number in range(3):
            key = f"{shard:05d}{number:04d}"
            record = {"key": key, "caption": f"caption {key}", "pixels_wide": 8}
            record |= {"label": f"kind {number}"} if labels else {}
            (folder / f"{key}.jpg").write_bytes(jpeg(number))
            (folder / f"{key}.txt").write_text(f"caption {key}")
            (folder / f"{key}.json").write_text(json.dumps(record))
    return root


@pytest.mark.parametrize("labels", [False, True])
def test_files_of_img2dataset(tmp_path: Path, labels: bool) -> None:
    source = settings("folder", str(img2dataset(tmp_path, labels)), carry={"pixels_wide": "int"})
    rows = read_all(source)
    assert [row["key"] for row in rows][:2] == ["00000/000000000.jpg", "00000/000000001.jpg"]
    assert {row["status"] for row in rows} == {"ok"}
    assert [row["label"] for row in rows] == [f"kind {i % 3}" if labels else None for i in range(6)]
    assert rows[4]["caption"] == "caption 000010001"
    assert rows[4]["pixels_wide"] == 8
    (note,) = open_source(source).facts.notes
    assert all(count in note for count in ("8 .json", "6 .txt", "2 .parquet"))


def test_a_class_folder_stays_the_label_of_described_images(tmp_path: Path) -> None:
    for name, kind in (("cat", "0 0.5 0.5 0.2 0.2\n1 .1 .1 .1 .1\n"), ("dog", "a dog")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.jpg").write_bytes(jpeg(0))
        (tmp_path / name / "a.txt").write_text(kind)
        (tmp_path / name / "a.xml").write_text("<annotation/>")
        (tmp_path / name / "b.JPG").write_bytes(jpeg(1))
        (tmp_path / name / "c.JPG").write_bytes(jpeg(2))
        (tmp_path / name / "c.TXT").write_bytes("ein Käfer".encode("utf-16"))
        (tmp_path / name / "b.JPG.json").write_text('{"caption": ["one", "two", "one"]}')
    rows = read_all(settings("folder", str(tmp_path)))
    assert [row["label"] for row in rows] == ["cat"] * 3 + ["dog"] * 3
    texts = ["one\ntwo", "ein Käfer"]
    assert [row["caption"] for row in rows] == [None, *texts, "a dog", *texts]


def test_files_that_may_be_images_stay(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.heic", "c", "d.txt", "e.zip", "f.mp4"):
        (tmp_path / name).write_bytes(b"?")
    rows = read_all(settings("folder", str(tmp_path)))
    assert [row["key"] for row in rows] == ["a.jpg", "b.heic", "c"]
    with pytest.raises(UsageError, match=r"1 \.txt"):
        open_source(settings("folder", str(tmp_path / "d.txt")))


def test_a_sample_is_drawn_by_the_labels_in_the_json(tmp_path: Path) -> None:
    source = settings("folder", str(img2dataset(tmp_path, labels=True)), sample=1)
    assert {row["label"] for row in read_all(source)} == {"kind 0", "kind 1", "kind 2"}
    assert len(read_all(source)) == 3


def test_empty_objects_that_stand_for_folders_are_nothing() -> None:
    memory = MemoryFileSystem()
    for name, data in {"a/0.jpg": b"x", "c": b"", "b_$folder$": b"", "_SUCCESS": b""}.items():
        memory.pipe_file(f"/markers/{name}", data)
    memory.pipe_file("/markers/a/empty.jpg", b"")
    names = [file.name for file in list_files("memory://markers", {})]
    assert names == ["a/0.jpg", "a/empty.jpg"]
