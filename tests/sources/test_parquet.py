"""Parquet with images inside: every row once, whatever is broken, and each found again."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import UsageError
from pipeline.schema import Status
from pipeline.sources import parquet_file
from pipeline.sources.datasource import open_source, read_units
from pipeline.sources.fetch import Origin
from tests.data import hugging_face, jpeg, read_all, settings

NAMES = ("cat", "dog")


def image(seed: int, path: str | None = None) -> dict[str, Any]:
    return {"bytes": jpeg(seed), "path": path}


def examples(count: int) -> list[dict[str, Any]]:
    return [{"image": image(i), "label": i % 2, "text": f"text {i}"} for i in range(count)]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    hugging_face(tmp_path / "train-0.parquet", examples(10), NAMES)
    return tmp_path / "train-0.parquet"


def test_rows_as_hugging_face_writes_them(file: Path) -> None:
    source = settings("parquet", str(file.parent), alias="pets", caption_field="text")
    rows = read_all(source)
    assert [row["image_id"] for row in rows] == [f"pets/train-0.parquet/{i}" for i in range(10)]
    assert [row["label"] for row in rows] == ["cat", "dog"] * 5
    assert [row["caption"] for row in rows] == [f"text {i}" for i in range(10)]
    assert [row["bytes"] for row in rows] == [jpeg(i) for i in range(10)]
    assert [(row["row_group"], row["row"]) for row in rows[3:6]] == [(0, 3), (1, 0), (1, 1)]


def test_images_are_found_again_by_row_group_and_row(file: Path) -> None:
    source = settings("parquet", str(file))
    for number, row in enumerate(read_all(source)):
        row["sha256"] = hashlib.sha256(row["bytes"]).hexdigest()
        assert Origin(source.roots, {}, "parquet").fetch(row) == jpeg(number)
    with pytest.raises(UsageError, match=r"\.parquet"):
        Origin(source.roots, {}, "parquet").fetch(row | {"sha256": "0"})
    with pytest.raises(UsageError, match=r"\.parquet"):
        Origin(source.roots, {}, "parquet").fetch(row | {"row": 99})


def test_a_file_is_cut_at_row_groups(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = read_all(settings("parquet", str(file)))
    monkeypatch.setattr(parquet_file, "BYTES_PER_PART", 1)
    monkeypatch.setattr(parquet_file, "READ_BLOCK_BYTES", 1)  # a batch a row
    source = settings("parquet", str(file))
    units = open_source(source).units
    assert [unit.name for unit in units] == [f"train-0.parquet@{i}" for i in (0, 4, 8)]
    assert sum(unit.size for unit in units) > sum(len(row["bytes"]) for row in whole)
    assert read_all(source) == whole


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), pa.binary_view()])
def test_plain_binary(tmp_path: Path, kind: pa.DataType) -> None:
    table = pa.table({"id": [7, 8], "jpg": pa.array([jpeg(0), None], kind)})
    try:
        pq.write_table(table, tmp_path / "x.parquet")
    except pa.ArrowNotImplementedError as error:
        pytest.skip(f"this pyarrow cannot write it: {error}")
    first, second = read_all(settings("parquet", str(tmp_path), key_field="id", carry=["id"]))
    assert (first["image_id"], first["bytes"], first["id"]) == ("x.parquet/7", jpeg(0), "7")
    assert (second["status"], second["label"]) == (Status.NO_IMAGE, None)


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a.jpg").write_bytes(jpeg(1))
    (tmp_path / "b.jpg").write_bytes(jpeg(2))
    paths = ["a.jpg", "../b.jpg", str(tmp_path / "b.jpg"), "gone.jpg", None, "nix://a"]
    rows = [{"image": {"bytes": None, "path": path}} for path in paths]
    hugging_face(tmp_path / "deep" / "x.parquet", rows)
    source = settings("parquet", f"{tmp_path}/deep/x.parquet")
    found = read_all(source)
    assert [row["status"] for row in found] == [*["ok"] * 3, "read_error", "no_image", "read_error"]
    assert [row["bytes"] for row in found[:3]] == [jpeg(1), jpeg(2), jpeg(2)]
    assert "gone.jpg: not found" in found[3]["error"]
    row = found[1] | {"sha256": hashlib.sha256(jpeg(2)).hexdigest()}
    assert Origin(source.roots, {}, "parquet").fetch(row) == jpeg(2)


def test_repeated_keys_of_other_images_are_told_apart(tmp_path: Path) -> None:
    keys = ["a", "b", "a", None, "a#2", "a", "b"]
    rows = [
        {"image": image(number) | {"path": f"{number}.jpg"}, "id": key}
        for number, key in enumerate(keys)
    ]
    hugging_face(tmp_path / "x.parquet", rows, (), 2)
    rows = read_all(settings("parquet", str(tmp_path), key_field="id"))
    ids = [row["image_id"].removeprefix("x.parquet/") for row in rows]
    assert ids == ["a", "b", "a#3", "#3", "a#2", "a#4", "b#2"]
    twice = [row["status"] == Status.DUPLICATE_KEY for row in rows]
    assert twice == [False, False, True, False, False, True, True]


def test_images_in_several_rows_are_explained_once(tmp_path: Path) -> None:
    rows = [
        {"image": image(number), "id": f"i{number}", "caption": [f"{number} {turn}", "same"]}
        for turn in range(3)
        for number in range(4)
    ]
    hugging_face(tmp_path / "x.parquet", rows, (), 2)
    rows = read_all(settings("parquet", str(tmp_path), key_field="id"))
    assert [(row["key"], row["status"]) for row in rows] == [(f"i{n}", "ok") for n in range(4)]
    assert rows[1]["caption"] == "1 0\nsame\n1 1\n1 2"


def test_labels_without_names_and_without_label(tmp_path: Path) -> None:
    rows = [{"image": image(0), "label": label} for label in (1, 5, -1, None)]
    hugging_face(tmp_path / "x.parquet", rows, NAMES)
    assert [r["label"] for r in read_all(settings("parquet", str(tmp_path)))] == [
        *("dog", "5", None, None)
    ]
    named = settings("parquet", str(tmp_path), label_names=["kat", "hond"])
    assert [r["label"] for r in read_all(named)] == ["hond", "5", None, None]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"image_field": "picture"}, "image_field.*'picture'.*'image', 'label', 'text'"),
        ({"image_field": "text"}, "holds string; expected binary"),
        ({"label_field": "class"}, "label_field.*no column 'class'"),
        ({"key_field": "id"}, "key_field"),
        ({"carry": ["size"]}, r"carry\.size"),
    ],
)
def test_wrong_columns_are_named_before_the_run(
    file: Path, change: dict[str, Any], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        open_source(settings("parquet", str(file), **change))


def test_no_images_at_all(tmp_path: Path) -> None:
    pq.write_table(pa.table({"url": ["a"]}), tmp_path / "x.parquet")
    with pytest.raises(UsageError, match="image_field"):
        open_source(settings("parquet", str(tmp_path)))


def test_damage_is_a_row(file: Path) -> None:
    data = bytearray(file.read_bytes())
    source = settings("parquet", str(file.parent))
    start = pq.ParquetFile(file).metadata.row_group(1).column(0).data_page_offset
    data[start : start + 8] = b"\xff" * 8
    file.write_bytes(data)
    rows = read_all(source)
    assert [row["key"] for row in rows] == [*"0123", "#unreadable-1", "8", "9"]
    assert rows[4]["status"] == Status.SHARD_ERROR
    assert "row group 1 after 0 of 4 rows" in rows[4]["error"]
    file.write_bytes(data[:-9])
    (row,) = read_all(source)
    assert (row["image_id"], row["status"]) == ("train-0.parquet/#unreadable", "shard_error")


def test_parts_of_a_file_that_breaks_after_the_listing_have_ids_of_their_own(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet_file, "BYTES_PER_PART", 1)
    source = settings("parquet", str(file))
    opened = open_source(source)
    file.write_bytes(file.read_bytes()[:-9])
    tables = [next(read_units(source, [unit], opened.reporter)) for unit in opened.units]
    ids = [table["image_id"].to_pylist() for table in tables]
    assert ids == [[f"train-0.parquet/#unreadable-from-{first}"] for first in (0, 4, 8)]


def test_text_that_is_not_utf8(tmp_path: Path) -> None:
    text = pa.StringArray.from_buffers(1, pa.py_buffer(b"\0\0\0\0\2\0\0\0"), pa.py_buffer(b"a\xff"))
    pq.write_table(pa.table({"jpg": [jpeg(0)], "label": text}), tmp_path / "x.parquet")
    (row,) = read_all(settings("parquet", str(tmp_path)))
    assert (row["status"], row["label"]) == ("ok", "a\\xff")


def test_an_empty_file_has_no_rows(tmp_path: Path) -> None:
    hugging_face(tmp_path / "x.parquet", [])
    assert read_all(settings("parquet", str(tmp_path))) == []


def test_an_image_of_a_file_that_broke_since_is_named(tmp_path: Path) -> None:
    file = tmp_path / "x.parquet"
    hugging_face(file, [{"image": {"bytes": jpeg(0), "path": None}}])
    source = settings("parquet", str(file))
    (row,) = read_all(source)
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(UsageError, match=r"x\.parquet"):
        Origin(source.roots, {}, "parquet").fetch(row | {"sha256": "0"})


def test_folders_name_columns(tmp_path: Path) -> None:
    for number, (site, name) in enumerate((("a%20b", "cat"), ("c", "dog"), ("c", None))):
        label = name or "__HIVE_DEFAULT_PARTITION__"
        folder = tmp_path / f"site={site}" / f"label={label}"
        folder.mkdir(parents=True)
        pq.write_table(pa.table({"image": [jpeg(number)]}), folder / "part-0.parquet")
    source = settings("parquet", str(tmp_path), carry={"site": "string"})
    rows = sorted(read_all(source), key=lambda row: row["image_id"])
    assert [row["status"] for row in rows] == ["ok"] * 3
    assert [(row["site"], row["label"]) for row in rows] == [
        ("a b", "cat"), ("c", None), ("c", "dog"),
    ]  # fmt: skip
    assert len(read_all(settings("parquet", str(tmp_path), sample=1))) == 3


PICTURES = pa.array([[{"bytes": b"x", "path": None}]])
BYTES = pa.array([[b"x", b"y"]])


@pytest.mark.parametrize(
    ("column", "feature", "advice"),
    [
        (PICTURES, {"_type": "Sequence", "feature": {"_type": "Image"}}, "explode"),
        (PICTURES, {"_type": "List", "feature": {"_type": "Image"}}, "explode"),
        (PICTURES, None, "explode"),
        (BYTES, None, "explode"),
        (pa.array(["a.mp4"]), {"_type": "Video"}, "ffmpeg"),
        (pa.array([{"bytes": b"x", "path": "a.mp4"}]), {"_type": "Video"}, "ffmpeg"),
    ],
)
def test_lists_of_images_and_videos_are_refused_with_the_next_step(
    column: pa.Array, feature: Any, advice: str, tmp_path: Path
) -> None:
    table = pa.table({"frames": column, "label": ["a"]})
    if feature:
        meta = {"huggingface": json.dumps({"info": {"features": {"frames": feature}}})}
        table = table.replace_schema_metadata(meta)
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(UsageError, match=advice) as refused:
        open_source(settings("parquet", str(tmp_path)))
    assert "'frames'" in str(refused.value)


def test_the_command_that_writes_a_row_for_each_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = [[{"bytes": jpeg(0), "path": None}, {"bytes": jpeg(1), "path": None}]]
    pq.write_table(pa.table({"frames": pictures, "label": ["a"]}), tmp_path / "a.parquet")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError) as refused:
        open_source(settings("parquet", "a.parquet"))
    code = re.search(r'python -c "(.*)", then', str(refused.value))
    assert code is not None
    exec(code[1])
    rows = read_all(settings("parquet", "images.parquet"))
    assert [(row["bytes"], row["label"]) for row in rows] == [(jpeg(0), "a"), (jpeg(1), "a")]


HASH = bytes(range(32))
MASK = jpeg(9)


@pytest.mark.parametrize(
    ("columns", "declared", "expected"),
    [
        ({"hash": HASH, "image": jpeg(0)}, [], "image"),
        ({"sha256": HASH, "picture_of_it": jpeg(0)}, [], "picture_of_it"),
        ({"mask": MASK, "content": jpeg(0)}, [], "content"),
        ({"thumbnail": MASK, "jpg": jpeg(0)}, [], "jpg"),
        ({"image_mask": MASK, "other": jpeg(0)}, [], "other"),
        ({"image": HASH, "scan": jpeg(0)}, ["scan"], "scan"),
        ({"annotation": MASK, "front": jpeg(0)}, ["annotation", "front"], "front"),
        ({"mask": MASK}, [], "mask"),
        ({"hash": HASH}, [], None),
    ],
)
@pytest.mark.parametrize("as_struct", [False, True])
def test_the_image_column(
    tmp_path: Path,
    columns: dict[str, bytes],
    declared: list[str],
    expected: str | None,
    as_struct: bool,
) -> None:
    data = {
        name: [{"bytes": value, "path": None} if as_struct and value != HASH else value] * 3
        for name, value in columns.items()
    }
    features = {name: {"_type": "Image"} for name in declared}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    table = pa.table(data).replace_schema_metadata(metadata)
    pq.write_table(table, tmp_path / "x.parquet")
    source = settings("parquet", f"{tmp_path}/x.parquet")
    if expected is None:
        with pytest.raises(UsageError, match="image_field"):
            open_source(source)
        return
    assert [row["bytes"] for row in read_all(source)] == [columns[expected]] * 3
