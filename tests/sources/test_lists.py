"""Lists of image URIs: CSV, JSON lines and Parquet give the same rows."""

import csv
import gzip
import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import UsageError
from pipeline.schema import Status
from pipeline.sources import lists
from pipeline.sources.datasource import open_source
from pipeline.sources.fetch import Origin
from tests.data import jpeg, read_all, settings

RECORDS = [
    {"image": "a.jpg", "label": "cat", "caption": 'a "cat",\nasleep', "year": 1999},
    {"image": "deep/b.jpg", "label": "", "caption": "", "year": None},
    {"image": "gone.jpg", "label": "dog", "caption": "x", "year": 2001},
    {"image": "", "label": "dog", "caption": "x", "year": 2002},
    {"image": "a.jpg", "label": "dog", "caption": "again", "year": 2003},
]


def write(place: Path, records: list[dict[str, Any]]) -> None:
    if place.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(records), place, row_group_size=2)
    elif place.suffix == ".csv":
        with place.open("w", newline="", encoding="utf-8-sig") as stream:
            writer = csv.DictWriter(stream, list(records[0]))
            writer.writeheader()
            writer.writerows(records)
    else:
        place.write_text("\n\n".join(json.dumps(record) for record in records))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "deep").mkdir()
    (tmp_path / "a.jpg").write_bytes(jpeg(0))
    (tmp_path / "deep" / "b.jpg").write_bytes(jpeg(1))
    return tmp_path


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("per_part", [1, 2, 512])
def test_rows(folder: Path, kind: str, per_part: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lists, "ROWS_PER_PART", per_part)
    write(folder / f"list.{kind}", RECORDS)
    source = settings("list", f"{folder}/list.{kind}", alias="t", carry={"year": "int"})
    rows = read_all(source)
    prefix = f"t/list.{kind}/"
    assert [row["image_id"].removeprefix(prefix) for row in rows] == [
        *("a.jpg", "deep/b.jpg", "gone.jpg", "#3")
    ]
    assert [row["status"] for row in rows] == ["ok", "ok", "read_error", "no_image"]
    assert [row["label"] for row in rows] == ["cat|dog", None, "dog", "dog"]
    assert [row["year"] for row in rows] == [1999, None, 2001, 2002]
    assert rows[0]["caption"] == 'a "cat",\nasleep\nagain'
    assert [row["bytes"] for row in rows[:2]] == [jpeg(0), jpeg(1)]
    for number in (0, 1):
        row = rows[number] | {"sha256": hashlib.sha256(jpeg(number)).hexdigest()}
        assert Origin(source.roots, {}, "list").fetch(row) == jpeg(number)


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_images_are_fetched_with_one_reading_of_the_list(
    folder: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lists, "ROWS_PER_PART", 2)
    records = [{"image": f"{n}.jpg", "label": "x"} for n in range(9)]
    for number in range(9):
        (folder / f"{number}.jpg").write_bytes(jpeg(number))
    write(folder / f"l.{kind}", records)
    source = settings("list", f"{folder}/l.{kind}")
    rows = read_all(source)
    read: list[int] = []
    records_of = lists.read_records

    def counted(*arguments: Any) -> Iterator[Any]:
        for record in records_of(*arguments):
            read.append(record.number)
            yield record

    monkeypatch.setattr(lists, "read_records", counted)
    origin = Origin(source.roots, {}, "list")
    for number, row in reversed(list(enumerate(rows))):
        digest = hashlib.sha256(jpeg(number)).hexdigest()
        assert origin.fetch(row | {"sha256": digest}) == jpeg(number)
    assert len(read) <= 9 + 9 + 2 * 9  # the first ones, all once, then the part of each image
    write(folder / f"l.{kind}", records[::-1])  # a list that changes is read anew
    with pytest.raises(UsageError, match="changed"):
        origin.fetch(rows[0] | {"sha256": hashlib.sha256(jpeg(0)).hexdigest()})


def test_a_key_column_names_the_images(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["a.jpg", "deep/b.jpg", "a.jpg", "a.jpg", "deep/b.jpg"]
    records = [
        {"id": key, "file": f"file://{folder}/{name}"}
        for key, name in zip((5, 5, 5, 6, 5), names, strict=True)
    ]
    write(folder / "list.csv", records)
    source = settings("list", str(folder / "list.csv"), image_field="file", key_field="id")
    rows = read_all(source)
    assert [row["image_id"] for row in rows] == ["list.csv/5", "list.csv/5#2", "list.csv/6"]
    assert [row["status"] for row in rows] == ["ok", "duplicate_key", "ok"]
    assert [row["bytes"] for row in rows] == [jpeg(0), jpeg(1), jpeg(0)]
    monkeypatch.setattr(lists, "ROWS_PER_PART", 1)
    origin = Origin(source.roots, {}, "list", image_field="file")
    for row in rows:
        digest = hashlib.sha256(row["bytes"]).hexdigest()
        assert origin.fetch(row | {"sha256": digest}) == row["bytes"]


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("sample", [None, 4])
def test_images_in_several_rows_are_explained_once(
    tmp_path: Path, kind: str, sample: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lists, "ROWS_PER_PART", 3)
    for number in range(10):
        (tmp_path / f"{number}.jpg").write_bytes(jpeg(number))
    records = [
        {"image": f"{number}.jpg", "caption": f"caption {number % 2} {turn}"}
        for turn in (0, 1, 1, 2)  # rows of one image are far from each other
        for number in range(10)
    ]
    write(tmp_path / f"l.{kind}", records)
    source = settings("list", f"{tmp_path}/l.{kind}", sample=sample)
    rows = read_all(source)
    assert {row["status"] for row in rows} == {"ok"}
    assert len({row["key"] for row in rows}) == len(rows) == (sample or 10)
    for row in rows:
        kind_of = int(row["key"][0]) % 2
        assert row["caption"] == "\n".join(f"caption {kind_of} {turn}" for turn in range(3))
    opened = open_source(source)
    assert sum(unit.rows or 0 for unit in opened.units) == (sample or 10)
    (note,) = opened.facts.notes
    assert "30 of 40" in note


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("l.csv", "size,label\n3,cat\n", "'size', 'label'"),
        ("l.csv", 'image,label\n"a.jpg,cat\n', r"l\.csv.*end of data"),
        ("l.csv", "image,label\n", "image_field"),
        ("l.csv", "", "image_field"),
        ("l.jsonl", '{"image": "a.jpg"}\n{"image": \n', "record 1 .*JSON"),
        ("l.jsonl", "[1]\n", "record 0"),
        ("l.jsonl", '{"a": 1}\n', "it has 'a'"),
        ("l.csv", "a.jpg,cat\nb.jpg,dog\n", "image,label before it"),
        ("l.tsv", "x\ty\n1\t2\n", "it has 'x', 'y'"),
        ("l.parquet", "PAR1", r"l\.parquet"),
        ("l.txt", "a.jpg\n", r"\.csv or \.tsv"),
    ],
)
def test_broken_lists_are_refused(folder: Path, name: str, text: str, words: str) -> None:
    (folder / name).write_text(text)
    with pytest.raises(UsageError, match=words):
        open_source(settings("list", str(folder / name)))


def test_json_lines_need_not_have_every_field(folder: Path) -> None:
    lines = ['{"other": 1}', '{"image": {"path": "a.jpg"}, "label": 3}', '{"image": "gone"}']
    (folder / "l.jsonl").write_text("\n".join(lines))
    rows = read_all(settings("list", str(folder / "l.jsonl"), label_field="label"))
    assert [(row["status"], row["label"]) for row in rows] == [
        *((Status.NO_IMAGE, None), (Status.OK, "3"), (Status.READ_ERROR, None))
    ]


def test_many_images_keep_their_order(tmp_path: Path) -> None:
    names = [f"{i}.jpg" for i in range(100)]
    for i, name in enumerate(names):
        (tmp_path / name).write_bytes(bytes([i]))
    write(tmp_path / "l.csv", [{"image": name} for name in names])
    rows = read_all(settings("list", str(tmp_path / "l.csv")))
    assert [row["bytes"] for row in rows] == [bytes([i]) for i in range(100)]


@pytest.mark.parametrize(
    ("name", "header", "row", "expected"),
    [
        ("train.csv", "id_code,diagnosis", "a,2", ("a", "2", None)),  # Kaggle's aptos2019
        ("labels.csv", "id,breed", "deep/b,pug", ("deep/b", "pug", None)),  # Kaggle's dog breeds
        ("train.csv", "fname,labels,is_valid", "a.jpg,chair,True", ("a.jpg", "chair", None)),
        ("labels.csv", "name,label", "deep/b.jpg,3", ("deep/b.jpg", "3", None)),  # fastai
        ("results.csv", "image_name| comment", "a.jpg| A dog ", ("a.jpg", None, "A dog")),
        ("laion.tsv", "SAMPLE_ID\tTEXT\tURL", "1\ta dog\ta.jpg", ("a.jpg", None, "a dog")),
        ("list.tsv", "hash\tFilepath\tClass Name", "00ff\ta.jpg\tpug", ("a.jpg", "pug", None)),
        ("list.csv", "label;thing", "cat;deep/b.jpg", ("deep/b.jpg", "cat", None)),
        ("list.csv", "image;label;size", "deep\\b.jpg; cat ;0,5", ("deep\\b.jpg", "cat", None)),
    ],
)
def test_columns_as_people_name_them(
    folder: Path, name: str, header: str, row: str, expected: tuple[str | None, ...]
) -> None:
    (folder / name).write_text(f"{header}\n{row}\n")
    (found,) = read_all(settings("list", str(folder / name)))
    assert found["status"] == Status.OK
    assert (found["key"], found["label"], found["caption"]) == expected
    facts = open_source(settings("list", str(folder / name))).facts
    assert set(facts.columns) == {
        what for what, value in zip(("image", "label", "caption"), expected, strict=True) if value
    }
    assert facts.labels == ({expected[1]} - {None})
    fetched = Origin(settings("list", str(folder / name)).roots, {}, "list")
    digest = hashlib.sha256(found["bytes"]).hexdigest()
    assert fetched.fetch(found | {"sha256": digest}) == found["bytes"]


@pytest.mark.parametrize(
    ("encoding", "told"),
    [("utf-16", True), ("utf-16-be", True), ("latin-1", True), ("utf8", False)],
)
@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_encodings(
    folder: Path, encoding: str, told: bool, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lists, "ROWS_PER_PART", 2)
    labels = [*("käfer", "gàü", "x", "ß")] + ([] if encoding == "latin-1" else ["\u0a0a\u010a"])
    records = [{"image": "a.jpg" if i else "deep/b.jpg", "label": v} for i, v in enumerate(labels)]
    for number, record in enumerate(records):
        record["id"] = str(number)
    write(folder / f"l.{kind}", records)
    text = (folder / f"l.{kind}").read_text(encoding="utf-8-sig")
    text = (
        "\n".join(f"{json.dumps(r, ensure_ascii=False)}" for r in records)
        if kind != "csv"
        else text
    )
    mark = "\ufeff" if encoding == "utf-16-be" else ""
    (folder / f"l.{kind}").write_bytes((mark + text).encode(encoding))
    source = settings("list", f"{folder}/l.{kind}", key_field="id")
    assert [row["label"] for row in read_all(source)] == labels
    assert bool(open_source(source).facts.notes) is told


@pytest.mark.starts
@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("l.json", b'[{"image": "a.jpg", "label": "x"}]'),
        ("l.txt", b"a.jpg x\n"),
        ("l.csv.gz", gzip.compress(b"image,label\na.jpg,x\n", mtime=0)),
    ],
)
def test_lists_of_other_kinds_are_refused_with_a_command_that_converts_them(
    folder: Path, name: str, data: bytes
) -> None:
    (folder / name).write_bytes(data)
    with pytest.raises(UsageError) as refused:
        open_source(settings("list", str(folder / name)))
    command = str(refused.value).split("Convert it: ")[1].replace("python ", f"{sys.executable} ")
    subprocess.run(command, shell=True, check=True)
    made = next(path for kind in ("csv", "jsonl") for path in folder.glob(f"*.{kind}"))
    (row,) = read_all(settings("list", str(made)))
    assert (row["label"], row["status"]) == ("x", "ok")


def test_relative_paths_below_another_folder(folder: Path, tmp_path: Path) -> None:
    lists_of = tmp_path / "lists"
    lists_of.mkdir()
    write(lists_of / "l.csv", [{"image": "b", "label": "x"}, {"image": "gone", "label": "x"}])
    source = settings("list", f"{lists_of}/l.csv", image_root=f"{folder}/deep")
    rows = read_all(source)
    assert [row["status"] for row in rows] == ["ok", "read_error"]
    assert rows[0]["bytes"] == jpeg(1)
    origin = Origin(source.roots, {}, "list", image_root=source.image_root)
    assert origin.fetch(rows[0] | {"sha256": hashlib.sha256(jpeg(1)).hexdigest()}) == jpeg(1)


def test_boxes_of_one_image_give_its_set_of_labels(folder: Path) -> None:
    boxes = [("a.jpg", "cat"), ("a.jpg", "dog"), ("deep/b.jpg", "dog"), ("a.jpg", "cat")]
    write(folder / "boxes.csv", [{"image": name, "class": label} for name, label in boxes])
    rows = read_all(settings("list", str(folder / "boxes.csv")))
    assert [(row["labels"], row["label"]) for row in rows] == [
        (["cat", "dog"], "cat|dog"),
        (None, "dog"),
    ]
