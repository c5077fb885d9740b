"""Images with several labels: lists, texts, columns of yes or no, COCO and CelebA."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import UsageError
from pipeline.sources.label_values import is_yes, label_value, value_at
from tests.data import jpeg, read_all, settings, tar_bytes

SETS = [["cat"], ["cat", "dog"], [], None]
JOINED = ["cat", "cat|dog", None, None]


def labels_of(rows: list[dict[str, Any]]) -> tuple[list[Any], list[Any]]:
    assert {row["status"] for row in rows} == {"ok"}
    return [row["label"] for row in rows], [row["labels"] for row in rows]


def parquet(place: Path, features: Any = None, **columns: Any) -> str:
    count = len(next(iter(columns.values())))
    table = pa.table({"image": [jpeg(i) for i in range(count)], **columns})
    if features:
        meta = {"huggingface": json.dumps({"info": {"features": features}})}
        table = table.replace_schema_metadata(meta)
    pq.write_table(table, place)
    return str(place)


def pictures(folder: Path, *names: str) -> Path:
    folder.mkdir()
    for number, name in enumerate(names):
        (folder / name).write_bytes(jpeg(number))
    return folder


def test_lists_in_parquet(tmp_path: Path) -> None:
    place = parquet(tmp_path / "a.parquet", label=SETS)
    assert labels_of(read_all(settings("parquet", place))) == (JOINED, SETS)


def test_single_labels_have_no_set(tmp_path: Path) -> None:
    place = parquet(tmp_path / "a.parquet", label=["cat", "dog"])
    assert labels_of(read_all(settings("parquet", place))) == (["cat", "dog"], [None, None])


@pytest.mark.parametrize(
    "feature",
    [
        {"_type": "Sequence", "feature": {"_type": "ClassLabel", "names": ["cat", "dog"]}},
        {"_type": "List", "feature": {"_type": "ClassLabel", "names": ["cat", "dog"]}},
        [{"_type": "ClassLabel", "names": ["cat", "dog"]}],
    ],
)
def test_numbers_in_lists_get_the_names_of_the_metadata(tmp_path: Path, feature: Any) -> None:
    numbers = pa.array([[0], [0, 1], [], None], pa.list_(pa.int64()))
    place = parquet(tmp_path / "a.parquet", {"label": feature}, label=numbers)
    assert labels_of(read_all(settings("parquet", place))) == (JOINED, SETS)


@pytest.mark.parametrize("nested", ["list of records", "record of lists"])
def test_the_categories_of_objects(tmp_path: Path, nested: str) -> None:
    names = {"_type": "ClassLabel", "names": ["cat", "dog"]}
    if nested == "list of records":
        objects: Any = [[{"category": 1, "area": 2.0}], [{"category": 0}, {"category": 1}], []]
        feature: Any = {"_type": "List", "feature": {"category": names}}
    else:
        objects = [{"category": [1]}, {"category": [0, 1, 0]}, {"category": []}]
        feature = {"category": {"_type": "List", "feature": names}}
    place = parquet(tmp_path / "a.parquet", {"objects": feature}, objects=objects)
    rows = read_all(settings("parquet", place, label_field="objects.category"))
    assert labels_of(rows)[1] == [["dog"], ["cat", "dog"], []]


def test_columns_of_yes_and_no(tmp_path: Path) -> None:
    place = parquet(tmp_path / "a.parquet", cat=[1, 1, -1, None], dog=["0", "1.0", "no", None])
    rows = read_all(settings("parquet", place, label_columns=["cat", "dog"]))
    assert labels_of(rows) == (JOINED, SETS)
    with pytest.raises(UsageError, match=r"label_columns\.cow"):
        read_all(settings("parquet", place, label_columns=["cow"]))


def test_texts_of_several_labels(tmp_path: Path) -> None:
    pictures(tmp_path / "d", "a.jpg", "b.jpg", "c.jpg")
    rows = ["file_name,label", "d/a.jpg,cat", "d/b.jpg,cat|dog", "d/c.jpg,"]
    (tmp_path / "list.csv").write_text("\n".join(rows))
    read = read_all(settings("list", str(tmp_path / "list.csv"), label_separator="|"))
    assert labels_of(read) == (["cat", "cat|dog", None], [["cat"], ["cat", "dog"], None])


def test_lists_in_json(tmp_path: Path) -> None:
    pictures(tmp_path / "d", "0.jpg", "1.jpg", "2.jpg", "3.jpg")
    lines = [json.dumps({"image": f"d/{i}.jpg", "label": value}) for i, value in enumerate(SETS)]
    (tmp_path / "list.jsonl").write_text("\n".join(lines))
    assert labels_of(read_all(settings("list", str(tmp_path / "list.jsonl")))) == (JOINED, SETS)
    members = []
    for i, value in enumerate(SETS):
        members.append((f"{i}.jpg", jpeg(i)))
        members.append((f"{i}.json", json.dumps({"label": value}).encode()))
    (tmp_path / "a.tar").write_bytes(tar_bytes(members))
    rows = read_all(settings("webdataset", str(tmp_path / "a.tar")))
    assert labels_of(rows) == (JOINED, SETS)


def test_coco_annotations_beside_a_folder(tmp_path: Path) -> None:
    data = pictures(tmp_path / "val", "a.jpg", "b.jpg", "c.jpg", "d.jpg")
    content = {
        "images": [{"id": 7, "file_name": "b.jpg"}, {"id": 9, "file_name": "c.jpg"},
                   {"id": 3, "file_name": "a.jpg"}],
        "categories": [{"id": 18, "name": "dog"}, {"id": 17, "name": "cat"}],
        "annotations": [{"image_id": 7, "category_id": c} for c in (17, 18, 17)]
        + [{"image_id": 3, "category_id": 17}],
    }  # fmt: skip
    place = tmp_path / "instances_val.json"
    place.write_text(json.dumps(content))
    rows = read_all(settings("folder", str(data), labels={"uri": str(place)}))
    assert labels_of(rows) == (JOINED, SETS)
    rows = read_all(settings("folder", f"{tmp_path}/*/*.jpg", labels={"uri": str(place)}))
    assert labels_of(rows)[1] == SETS
    place.write_text(json.dumps({"images": [], "annotations": []}))
    with pytest.raises(UsageError, match="categories"):
        read_all(settings("folder", str(data), labels={"uri": str(place)}))


def test_attributes_as_celeba_writes_them(tmp_path: Path) -> None:
    data = pictures(tmp_path / "img", "000001.jpg", "000002.jpg", "000003.jpg")
    place = tmp_path / "list_attr_celeba.txt"
    place.write_text("3\nBald Smiling\n000001.jpg -1  1\n000002.jpg  1  1\n000003.jpg -1 -1\n")
    rows = read_all(settings("folder", str(data), labels={"uri": str(place)}))
    assert labels_of(rows)[1] == [["Smiling"], ["Bald", "Smiling"], []]
    some = {"uri": str(place), "columns": ["Bald"]}
    rows = read_all(settings("folder", str(data), labels=some))
    assert labels_of(rows)[1] == [[], ["Bald"], []]
    with pytest.raises(UsageError, match="Bald, Smiling"):
        read_all(settings("folder", str(data), labels={"uri": str(place), "columns": ["Old"]}))
    table = tmp_path / "attributes.csv"
    table.write_text("image_id,Bald,Smiling\n000001.jpg,-1,1\n000002.jpg,1,1\n000003.jpg,,\n")
    labels = {"uri": str(table), "key": "image_id", "columns": ["Bald", "Smiling"]}
    rows = read_all(settings("folder", str(data), labels=labels))
    assert labels_of(rows)[1] == [["Smiling"], ["Bald", "Smiling"], None]


def test_a_table_of_lists(tmp_path: Path) -> None:
    data = pictures(tmp_path / "img", "a.jpg", "b.jpg", "c.jpg")
    names = ["a.jpg", "b.jpg", "c.jpg"]
    pq.write_table(pa.table({"key": names, "label": SETS[:3]}), tmp_path / "t.parquet")
    rows = read_all(settings("folder", str(data), labels={"uri": str(tmp_path / "t.parquet")}))
    assert labels_of(rows)[1] == SETS[:3]
    (tmp_path / "t.csv").write_text("key,label\na.jpg,0\nb.jpg,0 1\n")
    labels = {"uri": str(tmp_path / "t.csv"), "separator": " "}
    rows = read_all(settings("folder", str(data), labels=labels, label_names=["cat", "dog"]))
    assert labels_of(rows)[1] == [["cat"], ["cat", "dog"], None]


def test_a_sample_has_images_of_every_label(tmp_path: Path) -> None:
    sets = [["a"], ["a", "b"], ["a"], ["b"], ["a", "c"], []]
    place = parquet(tmp_path / "a.parquet", label=sets)
    rows = read_all(settings("parquet", place, sample=1))
    assert {label for row in rows for label in row["labels"] or [None]} == {"a", "b", "c", None}


@pytest.mark.parametrize(
    ("value", "labels"),
    [
        (["a", " b ", "a", None, ""], ("a", "b")),
        ("['a', 'b']", ("a", "b")),
        ('["a"]', ("a",)),
        ("[redacted]", "[redacted]"),
        ("[1] photo", "[1] photo"),
        ([1, 2], ("1", "2")),
        (3, "3"),
        (" ", None),
        (float("nan"), None),
        (["a", float("nan")], ("a",)),
        ([], ()),
    ],
)
def test_values(value: Any, labels: Any) -> None:
    assert label_value(value) == labels


def test_yes() -> None:
    assert [v for v in (1, "1", True, "Yes", 1.0, "true", "t") if not is_yes(v)] == []
    assert [v for v in (0, "0", False, "no", -1, "-1.0", None, "", "nan") if is_yes(v)] == []


def test_paths_of_fields() -> None:
    values = {"a.b": 1, "a": {"b": 2, "c": [{"d": 3}, {"d": 4}]}, "x": 5}
    assert [value_at(values, path) for path in ("a.b", "a.c.d", "x", "x.y", "z")] == [
        1, [3, 4], 5, None, None,
    ]  # fmt: skip
