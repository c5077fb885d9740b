"""Where sources may lie: web servers, several roots, memory; and what never gets out."""

import gzip
import hashlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fsspec
import pytest
from botocore.exceptions import EndpointConnectionError
from fsspec.implementations.local import LocalFileSystem
from PIL import Image
from tenacity import wait_none

from legrad.preprocess import Preprocess
from pipeline.errors import UsageError
from pipeline.report.shown_images import copy_picture
from pipeline.sources.datasource import open_source
from pipeline.sources.fetch import Origin
from pipeline.storage import retries
from pipeline.storage.location import explain_failure, redact
from tests.data import hugging_face, jpeg, read_all, samples, settings, tar_bytes
from tests.web import web_server

TOKEN = "X-Signature=s3cr3t&x=a/b"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("web")
    for name in ("0.tar", "1.tar"):
        (place / name).write_bytes(tar_bytes(samples(["a", "b"])))
    (place / "2.tar.gz").write_bytes(gzip.compress(tar_bytes(samples(["a", "b"]))))
    (place / "a b.jpg").write_bytes(jpeg(7))
    rows = [{"image": {"bytes": jpeg(i), "path": None}} for i in range(6)]
    hugging_face(place / "x.parquet", rows)
    hugging_face(place / "y.parquet", [{"image": {"bytes": None, "path": "a b.jpg"}}])
    (place / "l.csv").write_text(f"image\na b.jpg\n0.tar?{TOKEN}\n")
    return place


@pytest.fixture(scope="module")
def host(folder: Path) -> Iterator[str]:
    with web_server(folder) as place:
        yield f"http://{place}"


def check_found_again(source: Any, rows: list[dict[str, Any]]) -> None:
    origin = Origin(source.roots, source.options, source.format)
    for row in rows:
        found = row | {"sha256": hashlib.sha256(row["bytes"]).hexdigest()}
        assert origin.fetch(found) == row["bytes"]


@pytest.mark.parametrize("name", ["{0..1}.tar", "2.tar.gz"])
def test_tars_from_a_web_server(host: str, name: str) -> None:
    source = settings("webdataset", f"{host}/{name}")
    rows = read_all(source)
    shards = ["2.tar.gz"] if "gz" in name else ["0.tar", "1.tar"]
    assert [row["image_id"] for row in rows] == [f"{s}/{k}" for s in shards for k in "ab"]
    assert rows[0]["bytes"] == jpeg(0)
    check_found_again(source, rows)


def test_tables_from_a_web_server(host: str) -> None:
    source = settings("parquet", f"{host}/x.parquet")
    rows = read_all(source)
    assert [row["bytes"] for row in rows] == [jpeg(i) for i in range(6)]
    check_found_again(source, rows)
    (beside,) = read_all(settings("parquet", f"{host}/y.parquet"))
    assert beside["bytes"] == jpeg(7)


@pytest.mark.parametrize("sizes", [False, True])
def test_a_server_without_ranges(folder: Path, sizes: bool) -> None:
    with web_server(folder, ranges=False, sizes=sizes) as place:
        for name in ("0.tar", "2.tar.gz"):
            source = settings("webdataset", f"http://{place}/{name}")
            rows = read_all(source)
            assert [row["status"] for row in rows] == ["ok", "ok"]
            check_found_again(source, rows)
        with pytest.raises(UsageError, match=r"curl -O .*x\.parquet"):
            read_all(settings("parquet", f"http://{place}/x.parquet"))
        (folder / "few.csv").write_text("image,label\n0.tar,x\n2.tar.gz,y\n")
        rows = read_all(settings("list", f"http://{place}/few.csv"))
        assert [(row["key"], row["label"]) for row in rows] == [("0.tar", "x"), ("2.tar.gz", "y")]


@pytest.mark.parametrize("place", ["", "/", "/*.tar", "/[01].tar"])
def test_a_web_server_cannot_be_listed(host: str, place: str) -> None:
    words = "not found" if place == "" else "cannot list"
    with pytest.raises(UsageError, match=words):
        open_source(settings("webdataset", f"{host}{place}"))


def test_secrets_stay_inside(folder: Path) -> None:
    with web_server(folder, token=TOKEN) as place:
        host = f"http://user:passw0rd@{place}"
        source = settings("webdataset", f"{host}/0.tar?{TOKEN}")
        rows = read_all(source)
        assert [row["image_id"] for row in rows] == ["0.tar/a", "0.tar/b"]
        check_found_again(source, rows)
        tasks = open_source(source).get_read_tasks(1)
        shown = [str(task.metadata.input_files) for task in tasks]
        with pytest.raises(UsageError) as caught:
            open_source(settings("webdataset", f"{host}/9.tar?{TOKEN}"))
        shown.append(str(caught.value))
        bare = Origin(settings("webdataset", f"{host}/0.tar").roots, {})
        with pytest.raises(UsageError, match=r"403|not found") as caught:
            bare.fetch(rows[0] | {"sha256": "0"})
        shown.append(str(caught.value))
        listed = read_all(settings("list", f"{host}/l.csv?{TOKEN}"))
        assert [row["status"] for row in listed] == ["read_error", "ok"]
        shown += [str({k: v for k, v in row.items() if k != "bytes"}) for row in (*rows, *listed)]
        assert listed[1]["image_id"] == "l.csv/0.tar"
    for text in shown:
        assert "s3cr3t" not in text
        assert "passw0rd" not in text


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("https://a:b@host/x.tar?sig=1", "https://host/x.tar"),
        ("url='https://host/x?a=b&c=d', again", "url='https://host/x', again"),
        ("s3://bucket/shard-?.tar", "s3://bucket/shard-?.tar"),
        ("/data/x?.jpg", "/data/x?.jpg"),
        ("ftp://me:pw@host/a@b", "ftp://host/a@b"),
    ],
)
def test_redaction(text: str, kept: str) -> None:
    assert redact(text) == kept


def test_a_store_that_does_not_answer() -> None:
    refused = EndpointConnectionError(endpoint_url="http://user:secret@host:9/a?X-Signature=secret")
    told = str(explain_failure("s3://a/b", refused))
    assert told.startswith("s3://a/b: Could not connect")
    assert told.endswith("Check AWS_ENDPOINT_URL and the network.")
    assert "secret" not in told


def test_roots_with_names(tmp_path: Path) -> None:
    for folder in ("x", "y", "z"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "1.jpg").write_bytes(jpeg(ord(folder)))
    uri = {"p": f"{tmp_path}/x", "q": [f"{tmp_path}/y/*.jpg", f"{tmp_path}/z/"]}
    with pytest.raises(UsageError, match=r"uri: \{a: PLACE"):
        open_source(settings("folder", uri))
    source = settings("folder", {"p": f"{tmp_path}/x", "q": f"{tmp_path}/y"}, alias="set")
    rows = read_all(source)
    assert [row["image_id"] for row in rows] == ["set/p/1.jpg", "set/q/1.jpg"]
    assert [row["label"] for row in rows] == [None, None]
    check_found_again(source, rows)
    (tmp_path / "x").rename(tmp_path / "moved")
    moved = settings("folder", {"p": f"{tmp_path}/moved", "q": f"{tmp_path}/y"}, alias="set")
    assert read_all(moved) == rows
    manifest = {"format": "folder", "uri": source.uri}
    now = Origin.of(manifest, {"p": f"{tmp_path}/moved"}, {})
    assert now.fetch(rows[0] | {"sha256": hashlib.sha256(jpeg(ord("x"))).hexdigest()})
    with pytest.raises(UsageError, match=r"1\.jpg"):
        now.fetch(rows[1] | {"sha256": "0"})


def test_memory_within_one_process() -> None:
    fs = fsspec.filesystem("memory")
    fs.pipe_file("/bucket/s.tar", tar_bytes(samples(["a"])))
    fs.pipe_file("/bucket/x/a.jpg", jpeg(0))
    fs.pipe_file("/bucket/l.csv", b"image\nx/a.jpg\nmemory://bucket/x/a.jpg\n")
    (row,) = read_all(settings("webdataset", "memory://bucket"))
    assert row["image_id"] == "s.tar/a"
    listed = read_all(settings("list", "memory://bucket/l.csv"))
    assert [r["bytes"] for r in listed] == [jpeg(0)] * 2


def test_options_by_protocol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "_PAUSE", wait_none())
    (tmp_path / "a.jpg").write_bytes(jpeg(0))
    (tmp_path / "l.csv").write_text("image\na.jpg\nhttp://127.0.0.1:9/x.jpg\n")
    options = {"s3": {"key": "k", "secret": "hidden"}, "http": {"client_kwargs": {}}}
    rows = read_all(settings("list", f"{tmp_path}/l.csv", options=options))
    assert [row["status"] for row in rows] == ["ok", "read_error"]


def test_the_file_of_a_shards_name_is_asked_for_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(20):
        (tmp_path / f"{number}.tar").write_bytes(tar_bytes(samples(["a"], first_seed=number)))
    source = settings("webdataset", f"{tmp_path}/{{0..19}}.tar")
    asked: list[str] = []
    info = LocalFileSystem.info
    monkeypatch.setattr(
        LocalFileSystem, "info", lambda fs, path, **more: asked.append(path) or info(fs, path)
    )
    row = {"image_id": "17.tar/a", "shard": "17.tar", "source_offset": 512, "source_length": 9}
    with pytest.raises(UsageError, match="have changed"):
        Origin(source.roots, {}).fetch(row | {"sha256": ""})
    assert asked == [f"{tmp_path}/17.tar"]


def test_a_storage_that_refuses_is_not_a_missing_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg(0))

    def refuse(fs: LocalFileSystem, path: str, **more: Any) -> None:
        raise PermissionError("Forbidden")

    monkeypatch.setattr(LocalFileSystem, "info", refuse)
    origin = Origin(settings("folder", str(tmp_path)).roots, {}, "folder")
    with pytest.raises(UsageError, match="permission denied"):
        origin.fetch({"image_id": "a.jpg", "shard": "a.jpg"})


def test_images_that_a_run_accepts_open_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pillow's own limit may be lower than the one in the settings."""
    (tmp_path / "a.jpg").write_bytes(jpeg(0))
    (row,) = read_all(settings("folder", str(tmp_path)))
    row |= {"sha256": hashlib.sha256(jpeg(0)).hexdigest()}
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    manifest = {"format": "folder", "uri": str(tmp_path), "max_pixels": 10_000}
    assert Origin.of(manifest, None, {}).open(row).size == (40, 30)
    assert Image.MAX_IMAGE_PIXELS == 100
    with pytest.raises(Image.DecompressionBombError):
        Origin.of(manifest | {"max_pixels": 100}, None, {}).open(row)


def test_a_picture_that_cannot_be_decoded_has_a_reason(tmp_path: Path) -> None:
    broken = jpeg(0)[:300]
    (tmp_path / "a.jpg").write_bytes(broken)
    (row,) = read_all(settings("folder", str(tmp_path)))
    row |= {"sha256": hashlib.sha256(broken).hexdigest(), "width": 40, "height": 30}
    origin = Origin(settings("folder", str(tmp_path)).roots, {}, "folder")
    results: Any = SimpleNamespace(origin=origin, preprocess=Preprocess((16, 16)))
    copy = copy_picture(results, row, 64)
    assert copy.data is None
    assert "a.jpg: cannot be decoded" in copy.why
