"""Files of a source: braces, globs, links and folders."""

import errno
import hashlib
import os
from pathlib import Path

import fsspec
import pytest
from pydantic import ValidationError

from pipeline.config import SourceConfig
from pipeline.errors import UsageError
from pipeline.sources.datasource import open_source, read_units
from pipeline.sources.fetch import Origin
from pipeline.sources.listing import expand_braces, list_files
from tests.data import jpeg, read_all, samples, settings, tar_bytes


def test_links_in_a_folder_are_rows(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "real.jpg").write_bytes(jpeg(0))
    (tmp_path / "in" / "link.jpg").symlink_to(tmp_path / "real.jpg")
    (tmp_path / "in" / "dead.jpg").symlink_to(tmp_path / "gone.jpg")
    (tmp_path / "in" / "x[1].jpg").write_bytes(jpeg(1))
    source = SourceConfig(format="folder", uri=(str(tmp_path / "in"),))
    opened = open_source(source)
    (unit,) = opened.units
    rows = [row for t in read_units(source, [unit], opened.reporter) for row in t.to_pylist()]
    assert {row["key"]: row["status"] for row in rows} == {
        "dead.jpg": "read_error",
        "link.jpg": "ok",
        "x[1].jpg": "ok",
    }
    assert [f.name for f in list_files(f"{tmp_path}/in/x[1].jpg", {})] == ["x[1].jpg"]


def test_braces() -> None:
    assert expand_braces("a-{008..011}.tar") == [f"a-{i:03d}.tar" for i in range(8, 12)]
    assert expand_braces("{a,b}/{1..2}") == ["a/1", "a/2", "b/1", "b/2"]
    assert expand_braces("{00..10..5}.tar") == ["00.tar", "05.tar", "10.tar"]
    assert expand_braces("{a,b{1,2}}.tar") == ["a.tar", "b1.tar", "b2.tar"]
    assert expand_braces("{x}/a{}.tar") == ["{x}/a{}.tar"]
    assert expand_braces("{a..c}.tar") == ["a.tar", "b.tar", "c.tar"]
    for other in ("{3..1}", "{e..a}", "{a..E}", "{1..9..0}", "{1..}"):
        with pytest.raises(UsageError, match="brace range"):
            expand_braces(other)


@pytest.mark.parametrize("joined", ["a.tar::b.tar", "{a,b}.tar", "a.tar::{c..b}.tar", "a.tar::b.*"])
def test_places_joined_in_one_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, joined: str
) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.tar").write_bytes(tar_bytes(samples([f"{name}1"])))
    monkeypatch.chdir(tmp_path)
    if ".." in joined:
        with pytest.raises(UsageError, match="brace range"):
            read_all(settings("webdataset", joined))
        return
    source = settings("webdataset", joined)
    rows = read_all(source)
    assert [row["image_id"] for row in rows] == ["a.tar/a1", "b.tar/b1"]
    origin = Origin(source.roots, {})
    for row in rows:
        digest = hashlib.sha256(row["bytes"]).hexdigest()
        assert origin.fetch(row | {"sha256": digest}) == row["bytes"]


def test_places_that_are_joined_otherwise_are_refused_with_what_to_write(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.tar").write_bytes(tar_bytes(samples(["1"])))
    with pytest.raises(UsageError, match=r"uri: \["):
        list_files(f"{tmp_path}/a.tar,{tmp_path}/b.tar", {})
    for joined in ("gone/a.tar; gone/b.tar", "gone/a.tar gone/b.tar"):
        with pytest.raises(UsageError, match=r"\[gone/a.tar, gone/b.tar\]"):
            list_files(joined, {})
    with pytest.raises(ValidationError, match="s3://"):
        settings("webdataset", "pipe:curl -s https://host/a.tar")
    chained = "simplecache::s3://bucket/a.tar"
    assert settings("webdataset", chained).uris == (chained,)
    (tmp_path / "a,b.tar").write_bytes(b"")
    assert [file.name for file in list_files(f"{tmp_path}/a,b.tar", {})] == ["a,b.tar"]


def test_listing(tmp_path: Path) -> None:
    for name in ("a/1.tar", "a/b/2.tar.gz", "a/notes.txt", "a/.hidden/3.tar"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    names = [file.name for file in list_files(str(tmp_path / "a"), {}, (".tar", ".tar.gz"))]
    assert names == ["1.tar", "b/2.tar.gz"]
    assert [f.name for f in list_files(f"{tmp_path}/a/*.txt", {})] == ["notes.txt"]
    assert [f.name for f in list_files(f"{tmp_path}/a/{{1,1}}.tar", {})] == ["1.tar"]
    for bad in ("a/9.tar", "nowhere", "a/*.zip"):
        with pytest.raises(UsageError, match=r"not found|no files"):
            list_files(str(tmp_path / bad), {})
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"empty.*\.tar"):
        list_files(str(tmp_path / "empty"), {}, (".tar",))


@pytest.mark.parametrize(
    "pattern", ["*.tar", "*/*.tar", "**/*.tar", "**", "x/*/[2].tar", "?/*", "**/z/*", "x/**", "*"]
)
def test_globs_of_local_files_mean_what_they_mean_elsewhere(tmp_path: Path, pattern: str) -> None:
    memory = fsspec.filesystem("memory")
    for name in ("0.tar", "x/1.tar", "x/y/2.tar", "x/y/z/3.tar", "w/4.tar", "w/z/5.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
        memory.pipe(f"{tmp_path}/{name}", b"x")
    here = [file.name for file in list_files(f"{tmp_path}/{pattern}", {})]
    assert here == [file.name for file in list_files(f"memory://{tmp_path}/{pattern}", {})]


@pytest.mark.parametrize("place", ["{}//in", "{}/./in", "{}/in/", "{}//in/*/*.jpg", "{}/./in/**/*"])
def test_a_root_may_be_spelt_oddly(tmp_path: Path, place: str) -> None:
    (tmp_path / "in" / "x").mkdir(parents=True)
    (tmp_path / "in" / "x" / "1.jpg").write_bytes(b"x")
    os.mkfifo(tmp_path / "in" / "x" / "2.jpg")  # no file, and reading it would never end
    assert [f.name for f in list_files(place.format(tmp_path), {})] == ["x/1.jpg"]


def test_folders(tmp_path: Path) -> None:
    for name in ("dog/1.jpg", "dog/2.jpg", "cat/1.jpg", "top.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(jpeg(len(name)))
    source = SourceConfig(format="folder", uri=(str(tmp_path),), alias="pets")
    opened = open_source(source)
    tables = [t for u in opened.units for t in read_units(source, [u], opened.reporter)]
    rows = [row for table in tables for row in table.to_pylist()]
    assert {row["image_id"]: row["label"] for row in rows} == {
        "pets/cat/1.jpg": "cat",
        "pets/dog/1.jpg": "dog",
        "pets/dog/2.jpg": "dog",
        "pets/top.jpg": None,
    }
    assert opened.bytes_total == sum(len(row["bytes"]) for row in rows)
    (tmp_path / "dog/2.jpg").unlink()
    (unit,) = opened.units
    again = [r for t in read_units(source, [unit], opened.reporter) for r in t.to_pylist()]
    assert sorted(row["status"] for row in again) == ["ok", "ok", "ok", "read_error"]


@pytest.fixture
def linked(tmp_path: Path) -> Path:
    """A data set whose class folders and files are links, and links that lead back up."""
    store, data = tmp_path / "store", tmp_path / "data"
    for name in ("cats/1.jpg", "dogs/deep/2.jpg", "3.jpg"):
        (store / name).parent.mkdir(parents=True, exist_ok=True)
        (store / name).write_bytes(jpeg(len(name)))
    (data / "owl").mkdir(parents=True)
    (data / "cat").symlink_to(store / "cats")
    (data / "dog").symlink_to("../store/dogs", target_is_directory=True)
    (data / "owl" / "3.jpg").symlink_to(store / "3.jpg")
    (data / "owl" / "up").symlink_to(data)
    (store / "dogs" / "round").symlink_to(store / "dogs")
    (data / "bird").symlink_to(store / "gone")
    return data


@pytest.mark.parametrize("pattern", ["", "/**", "/**/*.jpg", "/*/*", "/dog/*/*", "/[co]*/?.jpg"])
def test_links_are_followed(linked: Path, pattern: str) -> None:
    names = {file.name for file in list_files(f"{linked}{pattern}", {})}
    whole = {"cat/1.jpg", "dog/deep/2.jpg", "owl/3.jpg", "bird"}
    expected = {
        "/**/*.jpg": whole - {"bird"},
        "/*/*": {"cat/1.jpg", "owl/3.jpg"},
        "/dog/*/*": {"deep/2.jpg"},
        "/[co]*/?.jpg": {"cat/1.jpg", "owl/3.jpg"},
    }
    assert names == expected.get(pattern, whole)


def test_linked_class_folders_give_their_labels(linked: Path) -> None:
    (linked / "bird").unlink()
    source = settings("folder", str(linked))
    rows = {row["image_id"]: row for row in read_all(source)}
    assert {name: row["label"] for name, row in rows.items()} == {
        "cat/1.jpg": "cat",
        "dog/deep/2.jpg": "deep",
        "owl/3.jpg": "owl",
    }
    origin = Origin(source.roots, {}, "folder")
    for row in rows.values():
        digest = hashlib.sha256(row["bytes"]).hexdigest()
        assert origin.fetch(row | {"sha256": digest}) == row["bytes"]


def test_a_root_may_be_a_link(linked: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(linked / "cat")
    assert [file.name for file in list_files(str(tmp_path / "link"), {})] == ["1.jpg"]


def test_a_folder_that_cannot_be_read_is_no_empty_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open" / "a.jpg").write_bytes(b"a")
    (tmp_path / "closed").mkdir()
    scan = os.scandir

    def refuse(folder: str):  # root may read everything
        if str(folder).endswith("closed"):
            raise PermissionError(errno.EACCES, "Permission denied", folder)
        return scan(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    for place in ("", "/closed", "/closed/*.jpg", "/*/*.jpg", "/**/*.jpg", "/c*/?.jpg"):
        with pytest.raises(UsageError, match=r"permission denied .*/closed.*owner"):
            list_files(f"{tmp_path}{place}", {})
    for place in ("/open", "/open/*.jpg", "/o*/*"):  # nothing of theirs can lie in the other
        assert [Path(file.name).name for file in list_files(f"{tmp_path}{place}", {})] == ["a.jpg"]


def test_two_roots_with_one_name_are_refused(tmp_path: Path) -> None:
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "1.tar").write_bytes(tar_bytes(samples(["a"])))
    uris = (str(tmp_path / "x"), str(tmp_path / "y"))
    with pytest.raises(UsageError, match=r"uri: \{"):
        open_source(SourceConfig(format="webdataset", uri=uris))
