"""Layouts as tools write them: what `legrad init` finds in them, and what a run then reads."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.config import ModelConfig
from pipeline.config.loading import load_config
from pipeline.errors import UsageError
from pipeline.starter.files import Starter, write_starter
from tests.data import jpeg, read_all, samples, tar_bytes

MODEL = ModelConfig(name="mini")


def start(data: Path, place: Path, **source: Any) -> tuple[Starter, list[dict[str, Any]]]:
    """The starter, and the rows that a run with its configuration reads."""
    starter = write_starter(str(data), MODEL, place / "c" / "run.yaml", source)
    return starter, read_all(load_config(starter.config).source)


def labels_of(rows: list[dict[str, Any]]) -> list[Any]:
    assert {row["status"] for row in rows} == {"ok"}
    return [row["label"] if row["labels"] is None else row["labels"] for row in rows]


def parquet(place: Path, **columns: Any) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    count = len(next(iter(columns.values())))
    pq.write_table(pa.table({"image": [jpeg(i) for i in range(count)], **columns}), place)


def coco(place: Path, images: dict[str, list[str]]) -> None:
    names = sorted({name for labels in images.values() for name in labels})
    content = {
        "images": [{"id": i, "file_name": name} for i, name in enumerate(images)],
        "categories": [{"id": i, "name": name} for i, name in enumerate(names)],
        "annotations": [
            {"image_id": i, "category_id": names.index(name)}
            for i, labels in enumerate(images.values())
            for name in labels
        ],
    }
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(json.dumps(content))


SETS = {"a.jpg": ["cat", "dog"], "b.jpg": [], "c.jpg": ["cat"]}


def pictures(folder: Path, names: Any = tuple(SETS)) -> Path:
    folder.mkdir(parents=True)
    for number, name in enumerate(names):
        (folder / name).write_bytes(jpeg(number))
    return folder


@pytest.mark.parametrize(
    ("images", "annotations", "named"),
    [
        ("val2017", "annotations/instances_val2017.json", "val2017"),
        ("coco/val2017", "coco/annotations/instances_val2017.json", "coco"),
        ("valid", "valid/_annotations.coco.json", "valid"),
    ],
)
def test_coco(images: str, annotations: str, named: str, tmp_path: Path) -> None:
    pictures(tmp_path / images)
    coco(tmp_path / annotations, SETS)
    starter, rows = start(tmp_path / named, tmp_path)
    assert starter.survey.labels == {"cat": 2, "dog": 1}
    assert starter.classes == 2
    assert labels_of(rows) == list(SETS.values())


@pytest.mark.parametrize(
    ("kind", "named"), [("txt", "img_align_celeba"), ("txt", "."), ("csv", ".")]
)
def test_celeba(kind: str, named: str, tmp_path: Path) -> None:
    data = tmp_path / "celeba"
    pictures(data / "img_align_celeba", ["000001.jpg", "000002.jpg"])
    text = {
        "txt": "2\nBald Smiling \n000001.jpg  1 -1\n000002.jpg  1  1\n",
        "csv": "image_id,Bald,Smiling\n000001.jpg,1,-1\n000002.jpg,1,1\n",
    }
    (data / f"list_attr_celeba.{kind}").write_text(text[kind])
    starter, rows = start(data / named, tmp_path)
    assert starter.survey.labels == {"Bald": 2, "Smiling": 1}
    assert labels_of(rows) == [["Bald"], ["Bald", "Smiling"]]


def test_lists_in_parquet(tmp_path: Path) -> None:
    parquet(tmp_path / "d" / "a.parquet", label=[[0], [0, 2], []])
    starter, rows = start(tmp_path / "d", tmp_path)
    assert starter.survey.labels == {"0": 2, "2": 1}
    assert labels_of(rows) == [["0"], ["0", "2"], []]


def test_columns_that_the_user_names(tmp_path: Path) -> None:
    parquet(tmp_path / "d" / "a.parquet", kind=["x", "y"], thumb=[b"1", b"2"])
    starter, rows = start(tmp_path / "d", tmp_path, label_field="kind", image_field="image")
    assert starter.survey.labels == {"x": 1, "y": 1}
    assert labels_of(rows) == ["x", "y"]
    with pytest.raises(UsageError, match="absent"):
        start(tmp_path / "d", tmp_path / "other", label_field="absent")


def test_files_sorted_by_class_hide_none(tmp_path: Path) -> None:
    for number in range(20):
        parquet(tmp_path / "d" / f"{number:02}.parquet", label=[f"class {number}"] * 2)
    starter, _ = start(tmp_path / "d", tmp_path)
    assert len(starter.survey.labels) == 20
    members: list[tuple[str, bytes]] = []
    for number in range(600):
        members += [(f"{number:03}.jpg", b"x"), (f"{number:03}.cls", b"%d" % (number // 60))]
    (tmp_path / "a.tar").write_bytes(tar_bytes(members))
    tar = write_starter(str(tmp_path / "a.tar"), MODEL, tmp_path / "t" / "run.yaml")
    assert len(tar.survey.labels) == 10


def test_folders_that_name_columns(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        parquet(tmp_path / "d" / f"label={name}" / "0.parquet", size=[1])
    starter, rows = start(tmp_path / "d", tmp_path)
    assert starter.survey.labels == {"cat": 1, "dog": 1}
    assert labels_of(rows) == ["cat", "dog"]


def test_broken_and_empty_files_are_named(tmp_path: Path) -> None:
    parquet(tmp_path / "d" / "b.parquet", label=["a"])
    (tmp_path / "d" / "a.parquet").write_bytes(b"")
    pq.write_table(pa.table({"image": pa.array([], pa.binary())}), tmp_path / "d" / "c.parquet")
    starter, rows = start(tmp_path / "d", tmp_path)
    assert [row["status"] for row in rows] == ["shard_error", "ok"]
    assert any("a.parquet" in note and "b.parquet" not in note for note in starter.notes)
    assert any("c.parquet" in note for note in starter.notes)
    (tmp_path / "d" / "b.parquet").write_bytes(b"no table")
    (tmp_path / "d" / "c.parquet").unlink()
    with pytest.raises(UsageError, match=r"a\.parquet"):
        start(tmp_path / "d", tmp_path / "other")


def test_pictures_beside_tables_do_not_change_the_format(tmp_path: Path) -> None:
    parquet(tmp_path / "d" / "a.parquet", label=["x", "y"])
    (tmp_path / "d" / "preview.png").write_bytes(jpeg(0))
    starter, _ = start(tmp_path / "d", tmp_path)
    assert starter.survey.format == "parquet"
    pictures(tmp_path / "f" / "cat")
    pq.write_table(pa.table({"file_name": ["cat/a.jpg"]}), tmp_path / "f" / "metadata.parquet")
    starter, _ = start(tmp_path / "f", tmp_path / "other")
    assert starter.survey.format == "folder"


@pytest.mark.parametrize("kind", ["parquet", "tar", "folder"])
def test_splits_are_told_apart(kind: str, tmp_path: Path) -> None:
    data = tmp_path / "d"
    data.mkdir()
    for number, split in enumerate(("train", "validation")):
        if kind == "parquet":
            parquet(data / f"{split}-00000-of-00001.parquet", label=[split[0]] * (3 - number))
        elif kind == "tar":
            made = tar_bytes(samples([f"{split}{i}" for i in range(3 - number)]))
            (data / f"{split}-0000.tar").write_bytes(made)
        else:
            pictures(data / split / "cat", list(SETS)[: 3 - number])
    starter, rows = start(data, tmp_path)
    assert len(rows) == 5
    (note,) = (note for note in starter.notes if "source.shards" in note)
    shards = note.split("source.shards: '")[1].split("'")[0]
    source = load_config(starter.config).source.model_copy(update={"shards": shards})
    assert len(read_all(source)) == 3


def test_folders_of_splits_are_no_classes(tmp_path: Path) -> None:
    for split in ("train", "val"):
        pictures(tmp_path / "d" / split)
    starter = write_starter(str(tmp_path / "d"), MODEL, tmp_path / "run.yaml")
    assert starter.classes == 0
    assert any("train, val" in note for note in starter.notes)
