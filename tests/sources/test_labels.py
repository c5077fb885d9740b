"""Labels from a table beside the images, and names of integer labels."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.cluster.preflight import check_source
from pipeline.config import SourceConfig
from pipeline.errors import UsageError
from pipeline.sources.datasource import open_source, read_rows
from pipeline.sources.label_checks import table_notes
from pipeline.sources.labels import label_table
from tests.data import jpeg, read_all, samples, settings, tar_bytes


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("0.tar", "1.tar"):
        (tmp_path / name).write_bytes(tar_bytes(samples(["a", "b"])))
    return tmp_path


def labelled(folder: Path, labels: dict[str, Any], **more: Any) -> list[str | None]:
    source = settings("webdataset", f"{folder}/*.tar", alias="t", labels=labels, **more)
    return [row["label"] for row in read_all(source)]


def test_by_image_id_and_by_key(folder: Path) -> None:
    table = folder / "labels.csv"
    table.write_text("label,key,more\ncat,0.tar/a,1\ndog,b,2\n,1.tar/b,3\n")
    assert labelled(folder, {"uri": str(table)}) == ["cat", "dog", None, "dog"]


@pytest.mark.parametrize("kind", [pa.string(), pa.int64()])
def test_parquet_with_other_columns(folder: Path, kind: pa.DataType) -> None:
    values = pa.array(["1", "0", "-1"]).cast(kind)
    table = pa.table({"class": values, "name": ["0.tar/b", "1.tar/a", "1.tar/b"]})
    pq.write_table(table, folder / "labels.parquet")
    labels = {"uri": f"{folder}/labels.parquet", "key": "name", "label": "class"}
    assert labelled(folder, labels) == [None, "1", "0", "-1"]
    assert labelled(folder, labels, label_names=["cat", "dog"]) == [None, "dog", "cat", None]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("key,size\na,3\n", "'label'.*found key, size"),
        ("key,label\na,cat,9\n", "CSV or Parquet"),
        ("key,label\na,cat\nb,cat\na,dog\n", "gives 'a' two labels, 'cat' and 'dog'"),
        (None, "not found"),
    ],
)
def test_a_table_that_cannot_be_used(folder: Path, text: str | None, words: str) -> None:
    table = folder / "labels.csv"
    if text is not None:
        table.write_text(text)
    with pytest.raises(UsageError, match=words):
        open_source(settings("webdataset", str(folder), labels={"uri": str(table)}))


def test_the_same_label_twice_is_no_clash(folder: Path) -> None:
    (folder / "labels.csv").write_text("key,label\na,cat\na,cat\n")
    found = labelled(folder, {"uri": str(folder / "labels.csv")})
    assert found == ["cat", None, "cat", None]


def test_a_table_that_changed_is_read_anew(folder: Path) -> None:
    table = folder / "labels.csv"
    digests = set()
    for label in ("cat", "dog"):
        table.write_text(f"key,label\na,{label}\n")
        assert labelled(folder, {"uri": str(table)})[0] == label
        found = label_table(settings("webdataset", "x", labels={"uri": str(table)}))
        assert found is not None
        digests.add(found.digest)
    assert len(digests) == 2


def test_many_keys(tmp_path: Path) -> None:
    names = [f"{i:05d} ü{i}" for i in range(3000)]
    lines = "".join(f"{name},{i}\n" for i, name in enumerate(reversed(names)))
    (tmp_path / "l.csv").write_text("key,label\n" + lines, encoding="utf-8")
    table = label_table(settings("folder", "x", labels={"uri": f"{tmp_path}/l.csv"}))
    assert table is not None
    assert [table.find(name) for name in names] == [str(2999 - i) for i in range(3000)]
    assert [table.find(key) for key in ("", "zzz", "00000", "\udcff")] == [None] * 4


@pytest.mark.parametrize(
    ("label", "name"),
    [("1", "dog"), ("0", "cat"), ("1.0", "dog"), ("-1", None), ("2", "2"), ("bird", "bird")],
)
def test_names_of_integer_labels(tmp_path: Path, label: str, name: str | None) -> None:
    members = [("a.jpg", jpeg(0)), ("a.cls", label.encode())]
    (tmp_path / "0.tar").write_bytes(tar_bytes(members))
    source = settings("webdataset", str(tmp_path), label_names=["cat", "dog"])
    assert [row["label"] for row in read_all(source)] == [name]


@pytest.mark.parametrize(
    "text",
    [
        "key,label\n./a/0.jpg,x\n./b/0.jpg,y\n",  # as `find .` names files
        "key,label\na\\0.jpg,x\nb\\0.jpg,y\n",  # as Windows does
        "a/0.jpg\tx\t9\nb/0.jpg\ty\t9\n",
        "a/0.jpg x\nb/0.jpg y\n",
        "x,a/0.jpg\ny,b/0.jpg\n",
    ],
)
def test_tables_as_people_write_them(text: str, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "in" / name).mkdir(parents=True)
        (tmp_path / "in" / name / "0.jpg").write_bytes(jpeg(0))
    (tmp_path / "t.txt").write_text(text)
    labels = {"uri": str(tmp_path / "t.txt")}
    rows = read_all(settings("folder", str(tmp_path / "in"), labels=labels))
    assert [row["label"] for row in rows] == ["x", "y"]


def test_folders_by_their_path(tmp_path: Path) -> None:
    (tmp_path / "in" / "x").mkdir(parents=True)
    (tmp_path / "in" / "x" / "1.jpg").write_bytes(jpeg(0))
    (tmp_path / "l.csv").write_text("key,label\nx/1.jpg,cat\n")
    source = settings("folder", f"{tmp_path}/in", labels={"uri": f"{tmp_path}/l.csv"})
    assert isinstance(source, SourceConfig)
    assert [row["label"] for row in read_all(source)] == ["cat"]


@pytest.mark.parametrize("key", ["x/1.jpg", "1.jpg", "x/1", "1"])
@pytest.mark.parametrize("header", ["key,label", "id_code;diagnosis", "Filename\tClass"])
def test_names_of_images_and_columns_as_people_have_them(
    tmp_path: Path, key: str, header: str
) -> None:
    (tmp_path / "in" / "x").mkdir(parents=True)
    (tmp_path / "in" / "x" / "1.jpg").write_bytes(jpeg(0))
    delimiter = next(mark for mark in ",;\t" if mark in header)
    table = f"{header}\n{key}{delimiter}k\u00e4fer\n"
    (tmp_path / "l.csv").write_bytes(table.encode("latin-1"))
    source = settings("folder", f"{tmp_path}/in", labels={"uri": f"{tmp_path}/l.csv"})
    assert [row["label"] for row in read_all(source)] == ["k\u00e4fer"]
    opened = open_source(source)
    assert len(opened.facts.notes) == 1  # the encoding
    assert table_notes(opened, []) == ()


@pytest.mark.parametrize("kind", ["folder", "webdataset"])
def test_a_table_that_names_no_image_is_told_before_the_model_loads(
    tmp_path: Path, kind: str
) -> None:
    (tmp_path / "in").mkdir()
    if kind == "folder":
        (tmp_path / "in" / "a.jpg").write_bytes(jpeg(0))
    else:
        (tmp_path / "in" / "0.tar").write_bytes(tar_bytes(samples(["a"])))
    (tmp_path / "l.csv").write_text("key,label\ntrain/b.jpg,cat\n")
    source = settings(kind, f"{tmp_path}/in", labels={"uri": f"{tmp_path}/l.csv"})
    opened = open_source(source)
    rows = list(read_rows(source, opened.units[0]))
    (note,) = table_notes(opened, rows)
    assert "'train/b.jpg'" in note
    assert "'a'" in note
    if kind == "folder":
        with pytest.raises(UsageError, match="train/b"):
            check_source(opened)
    else:
        assert note in check_source(opened)
