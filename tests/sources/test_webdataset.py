"""Rows of WebDataset tars, good and damaged, and images fetched again."""

import bz2
import gzip
import hashlib
import io
import json
import lzma
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline.config import SourceConfig
from pipeline.errors import UsageError
from pipeline.schema import Status
from pipeline.sources.datasource import open_source, read_units
from pipeline.sources.fetch import Origin
from pipeline.sources.input_rows import blocks
from pipeline.sources.webdataset import read_shard
from tests.data import jpeg, samples, tar_bytes


def rows_of(data: bytes, name: str = "s.tar", **settings: Any) -> list[dict[str, Any]]:
    source = SourceConfig(format="webdataset", uri=("x",), **settings)
    return list(read_shard(io.BytesIO(data), name, "", source))


def test_samples_become_rows() -> None:
    data = tar_bytes(samples(["a", "b", "c"]))
    rows = rows_of(data, carry={"size": "int", "absent": "string"})
    assert [row["image_id"] for row in rows] == ["s.tar/a", "s.tar/b", "s.tar/c"]
    assert [row["label"] for row in rows] == ["label 0", "label 1", "label 2"]
    assert rows[1]["caption"] == "caption of b"
    assert rows[2]["size"] == 2
    assert rows[2]["absent"] is None
    for number, row in enumerate(rows):
        start, length = row["source_offset"], row["source_length"]
        assert data[start : start + length] == row["bytes"] == jpeg(number)


def zstandard(data: bytes) -> bytes:
    packed: bytes = pa.compress(data, "zstd", asbytes=True)
    return packed


def in_pieces(compress: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    """Compress as bgzip, pigz and pzstd do: several compressed streams one after another."""
    return lambda data: b"".join(compress(data[i : i + 999]) for i in range(0, len(data), 999))


@pytest.mark.parametrize(
    "compress",
    [
        *(gzip.compress, zstandard),
        *map(in_pieces, (gzip.compress, bz2.compress, lzma.compress, zstandard)),
    ],
)
def test_packed_tars_have_no_ranges_but_the_same_rows(compress: Callable[[bytes], bytes]) -> None:
    plain = tar_bytes(samples(["a", "b"]))
    packed = rows_of(compress(plain), "s.tar.packed")
    assert [row["bytes"] for row in packed] == [row["bytes"] for row in rows_of(plain)]
    assert "source_offset" not in packed[0]
    for field in ("label", "caption"):
        assert [row[field] for row in packed] == [row[field] for row in rows_of(plain)]


def test_labels_and_captions_from_members() -> None:
    members = [
        *(("a.png", jpeg(0)), ("a.cls", b"7\n"), ("a.txt", b"a dog")),
        *(("b.jpg", jpeg(1)), ("b.json", b'{"label": 0}'), ("b.cls", b"9")),
        *(("c.jpg", jpeg(2)), ("c.json", b"{broken")),
        *(("d.jpg", jpeg(3)), ("d.kind", b"cat")),
    ]
    rows = rows_of(tar_bytes(members), label_field="label")
    assert [row["label"] for row in rows] == ["7", "0", None, None]
    assert rows[0]["caption"] == "a dog"
    assert rows_of(tar_bytes(members), label_field="kind")[3]["label"] == "cat"


def test_odd_names() -> None:
    members = [
        ("./train/a.b/x.y.jpg", jpeg(0)),
        ("deep/ünï cödé.JPG", jpeg(1)),
        ("deep/.hidden.jpg", jpeg(2)),
        ("noextension", b"?"),
        ("z.seg.png", jpeg(3)),
    ]
    rows = rows_of(tar_bytes(members))
    found = {row["key"]: row["status"] for row in rows}
    assert found == {
        "train/a.b/x": Status.OK,
        "deep/ünï cödé": Status.OK,
        "noextension": Status.NO_IMAGE,
        "z": Status.OK,
    }
    chosen = rows_of(tar_bytes(members), image_field="y.jpg")
    assert [row["status"] for row in chosen] == [Status.OK, *[Status.NO_IMAGE] * 3]


def images(names: list[str], **settings: Any) -> dict[str, tuple[str, Any]]:
    """Key, status and name of the picture of the rows of a tar with one picture for each name."""
    pictures = {jpeg(n): name for n, name in enumerate(names)}
    rows = rows_of(tar_bytes((name, data) for data, name in pictures.items()), **settings)
    return {row["key"]: (row["status"], pictures.get(row.get("bytes", b""))) for row in rows}


@pytest.mark.parametrize(
    ("names", "keys"),
    [
        (["scan.1.jpg", "scan.2.jpg", "scan.jpg"], ["scan.1", "scan.2", "scan"]),
        (["IMG_22.05.png", "IMG_22.06.png"], ["IMG_22.05", "IMG_22.06"]),
        (["a.1.jpg", "b.1.jpg", "a.2.jpg"], ["a", "b", "a.2"]),  # not sorted, and none lost
        (["7.left.jpg", "7.right.jpg"], ["7.left", "7.right"]),
        (["7.image.jpg", "8.image.jpg"], ["7", "8"]),
        (["7.jpg", "7.png", "7.back.png"], ["7", "7.png", "7.back"]),
        (["x.tar.d/1.5.JPG", "x.tar.d/1.6.JPG"], ["x.tar.d/1.5", "x.tar.d/1.6"]),
    ],
)
def test_every_image_of_a_sample_is_a_row(names: list[str], keys: list[str]) -> None:
    assert images(names) == {key: (Status.OK, name) for key, name in zip(keys, names, strict=True)}


@pytest.mark.parametrize(
    ("names", "keys"),
    [
        (["7.jpg", "7.mask.png", "7.depth.png"], {"7": "7.jpg"}),
        (["7.object_mask.png", "7.left.jpg"], {"7": "7.left.jpg"}),
        (["7.seg.png"], {"7": "7.seg.png"}),
        (["7.mask.png", "7.depth.png"], {"7.mask": "7.mask.png", "7.depth": "7.depth.png"}),
    ],
)
def test_masks_beside_an_image_are_no_rows(names: list[str], keys: dict[str, str]) -> None:
    assert images(names) == {key: (Status.OK, name) for key, name in keys.items()}


@pytest.mark.parametrize("field", ["right", "right.jpg", "RIGHT"])
def test_a_setting_chooses_one_image_of_a_sample(field: str) -> None:
    chosen = images(["7.left.jpg", "7.right.jpg"], image_field=field)
    assert chosen == {"7": (Status.OK, "7.right.jpg")}


def test_members_as_webdatasets_writer_names_them() -> None:
    members = [
        *(("a.image.jpg", jpeg(0)), ("a.label.cls", b"7"), ("a.caption.txt", b"a dog")),
        *(("b.1.jpg", jpeg(1)), ("b.1.json", b'{"label": "x"}'), ("b.1.txt", b"one")),
        *(("b.2.jpg", jpeg(2)), ("b.2.cls", b"y"), ("b.json", b'{"label": "z"}')),
        *(("c.jpg", jpeg(3)), ("c.alt.txt", b"a cat")),
    ]
    rows = {row["key"]: (row["label"], row["caption"]) for row in rows_of(tar_bytes(members))}
    assert rows == {
        "a": ("7", "a dog"),
        "b.1": ("x", "one"),
        "b.2": ("z", None),
        "c": (None, None),
    }
    named = rows_of(tar_bytes(members), caption_field="alt", label_field="alt")
    assert (named[-1]["label"], named[-1]["caption"]) == ("a cat", "a cat")


def test_a_tar_that_is_not_sorted_by_key_says_so() -> None:
    members = [(f"{n}.png", jpeg(n)) for n in range(2)]
    members += [(f"{n}.json", b'{"label": "cat"}') for n in range(2)]
    rows = rows_of(tar_bytes(members))
    assert [row["status"] for row in rows] == [Status.OK] * 2 + [Status.NO_IMAGE] * 2
    assert all("sort" in row["error"] for row in rows[2:])
    assert "sort" not in rows_of(tar_bytes(members[2:]))[0]["error"]


def test_repeated_keys_are_told_apart() -> None:
    data = tar_bytes([*samples(["a", "b"]), *samples(["a"], 9), *samples(["a"], 10)])
    rows = rows_of(data)
    assert [row["image_id"] for row in rows] == [*("s.tar/a", "s.tar/b", "s.tar/a#2", "s.tar/a#3")]
    statuses = [row["status"] for row in rows]
    assert statuses == [Status.OK, Status.OK, Status.DUPLICATE_KEY, Status.DUPLICATE_KEY]


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 0.7, 0.95])
def test_truncated_tar_keeps_what_is_whole(share: float) -> None:
    data = tar_bytes(samples([f"k{i}" for i in range(20)]))
    rows = rows_of(data[: int(len(data) * share)])
    whole = [row for row in rows if row["status"] == Status.OK]
    assert [row["key"] for row in whole] == [f"k{i}" for i in range(len(whole))]
    assert all(row["bytes"] == jpeg(i) for i, row in enumerate(whole))
    if share < 0.9:
        assert rows[-1]["status"] == Status.SHARD_ERROR
        assert len(whole) < 20
    for packed in (gzip.compress(data), zstandard(data)):
        rows = rows_of(packed[: int(len(packed) * share)], "s.tar.packed")
        assert rows[-1]["status"] == Status.SHARD_ERROR


def test_a_damaged_header_is_not_the_end() -> None:
    data = bytearray(tar_bytes(samples(["a", "b", "c"])))
    header = data.index(b"b.jpg")
    data[header] ^= 0xFF
    rows = rows_of(bytes(data))
    assert [row["key"] for row in rows] == ["a", "#unreadable"]
    assert {row["status"] for row in rows} == {Status.SHARD_ERROR}


def test_a_shard_cut_between_two_members_is_noticed() -> None:
    data = tar_bytes(samples(["a", "b"]))
    rows = rows_of(data[: data.index(b"b.jpg")])
    assert [row["key"] for row in rows] == ["a", "#unreadable"]
    assert {row["status"] for row in rows} == {Status.SHARD_ERROR}


def test_text_and_numbers_that_no_column_holds() -> None:
    record = b'{"label": "x \\ud83d", "n": 1e999, "m": 99999999999999999999}'
    members = [("a.jpg", jpeg(0)), ("a.json", record), ("b.jpg", jpeg(1)), ("b.json", b"[" * 9**5)]
    carry = {"n": "int", "m": "int"}
    rows = rows_of(tar_bytes([*members, ("\udcff.jpg", jpeg(0))]), carry=carry)
    (table,) = blocks(rows, carry)
    assert table["label"].to_pylist() == ["x \\ud83d", None, None]
    assert table["n"].to_pylist() == table["m"].to_pylist() == [None] * 3
    assert table["image_id"].to_pylist() == ["s.tar/a", "s.tar/b", "s.tar/\\udcff"]


def test_links_in_a_tar_are_rows() -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        info = tarfile.TarInfo("a.jpg")
        info.size = len(jpeg(0))
        tar.addfile(info, io.BytesIO(jpeg(0)))
        link = tarfile.TarInfo("b.jpg")
        link.type, link.linkname = tarfile.LNKTYPE, "a.jpg"
        tar.addfile(link)
    rows = rows_of(buffer.getvalue())
    assert [(row["key"], row["status"]) for row in rows] == [
        ("a", Status.OK),
        ("b.jpg", Status.NO_IMAGE),
    ]
    assert "'a.jpg'" in rows[1]["error"]


@pytest.mark.parametrize("compress", [bytes, gzip.compress])
def test_tars_joined_with_cat_are_read_to_the_end(compress: Callable[[bytes], bytes]) -> None:
    first, second = tar_bytes(samples(["a"])), tar_bytes(samples(["b"], first_seed=1))
    joined = compress(first) + compress(second)
    rows = rows_of(joined)
    assert [(row["key"], row["status"]) for row in rows] == [("a", "ok"), ("b", "ok")]
    assert [row["bytes"] for row in rows] == [jpeg(0), jpeg(1)]
    if compress is bytes:
        start, length = rows[1]["source_offset"], rows[1]["source_length"]
        assert joined[start : start + length] == jpeg(1)
    end = 512 + -(-len(jpeg(1)) // 512) * 512  # header and image; the JSON is lost
    cut = rows_of(compress(first) + compress(second[:end]))
    assert [row["status"] for row in cut] == ["ok", "shard_error", "shard_error"]
    assert rows_of(first + b"what is this?" * 99)[-1]["status"] == Status.SHARD_ERROR


def test_names_that_begin_with_the_folder_itself() -> None:
    members = [("./a/0.JPG", jpeg(0)), ("./a/0.CLS", b"cat"), ("./b.jpg", jpeg(1))]
    rows = rows_of(tar_bytes(members))
    assert [(row["key"], row["label"]) for row in rows] == [("a/0", "cat"), ("b", None)]


def test_ids_never_clash() -> None:
    keys = ["a", "b", "a", "a#2", "#unreadable", "a"]
    rows = rows_of(tar_bytes([(f"{key}.jpg", jpeg(0)) for key in keys]))
    ids = [row["image_id"] for row in rows]
    assert len(set(ids)) == len(ids) == 6


def test_a_shard_that_is_gone_is_a_row(tmp_path: Path) -> None:
    for name in ("0.tar", "1.tar"):
        (tmp_path / name).write_bytes(tar_bytes(samples(["a"])))
    source = SourceConfig(format="webdataset", uri=(str(tmp_path),))
    opened = open_source(source)
    (tmp_path / "0.tar").unlink()
    rows = [
        row
        for unit in opened.units
        for table in read_units(source, [unit], opened.reporter)
        for row in table.to_pylist()
    ]
    assert [row["status"] for row in rows] == ["read_error", "ok"]


@pytest.mark.parametrize("data", [b"", b"not a tar at all" * 100, b"\0" * 10240])
def test_no_tar_at_all(data: bytes) -> None:
    rows = rows_of(data)
    if data.startswith(b"\0"):  # an empty tar is valid and has no samples
        assert rows == []
    else:
        assert [row["status"] for row in rows] == [Status.SHARD_ERROR]


def test_storage_errors_are_raised() -> None:
    class Broken(io.RawIOBase):
        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any) -> int:
            raise ConnectionResetError("gone")

    source = SourceConfig(format="webdataset", uri=("x",))
    with pytest.raises(ConnectionResetError):
        list(read_shard(io.BufferedReader(Broken()), "s.tar", "", source))


@pytest.mark.parametrize("ending", ["tar", "tar.gz"])
@pytest.mark.parametrize("where", ["", "/*", "/{s,s}.ENDING", "/s.ENDING"])
def test_images_are_found_again(tmp_path: Path, ending: str, where: str) -> None:
    data = tar_bytes(samples(["a", "b"]))
    name = f"s.{ending}"
    (tmp_path / name).write_bytes(gzip.compress(data) if ending == "tar.gz" else data)
    uri = f"{tmp_path}{where.replace('ENDING', ending)}"
    source = SourceConfig(format="webdataset", uri=(uri,), alias="t")
    opened = open_source(source)
    rows = [
        r for t in read_units(source, [opened.units[0]], opened.reporter) for r in t.to_pylist()
    ]
    origin = Origin(source.roots, {})
    for number, row in enumerate(rows):
        row["sha256"] = hashlib.sha256(row["bytes"]).hexdigest()
        assert origin.fetch(row) == jpeg(number)
    with pytest.raises(UsageError, match=r"changed|no longer"):
        origin.fetch(rows[0] | {"sha256": "0"})
    (tmp_path / name).unlink()
    with pytest.raises(UsageError, match="source="):
        origin.fetch(rows[0])


def test_records_that_are_no_objects_count_as_absent() -> None:
    rows = rows_of(tar_bytes([("a.jpg", jpeg(0)), ("a.json", json.dumps([1, 2]).encode())]))
    assert rows[0]["status"] == Status.OK
    assert rows[0]["label"] is None
