"""Locations: files below a folder, and which errors are the storage's."""

from pathlib import Path

import pyarrow as pa
import pytest
from fsspec.implementations.local import LocalFileSystem

from pipeline.errors import UsageError
from pipeline.storage.location import Location, is_storage_error, open_location


def raised(call: object, *arguments: object) -> Exception:
    try:
        call(*arguments)  # type: ignore[operator]
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


def test_errors_of_our_own_are_not_the_storages() -> None:
    for ours in (
        raised(int, "x"),
        raised(b"\xff".decode),
        raised(pa.array, [1, "x"]),
        ValueError("of another process, without a traceback"),
        KeyError("x"),
    ):
        assert not is_storage_error(ours), ours


def test_errors_of_a_storage_client_are_the_storages() -> None:
    local = LocalFileSystem()
    for theirs in (
        OSError("any"),
        raised(local.cat_file, "/gone"),
        raised(local.cat_file, "/a\0b"),  # a plain ValueError of the system, raised within fsspec
        raised(open_location("s3://").fs.find, ""),  # s3fs's own: all of S3 cannot be listed
    ):
        assert is_storage_error(theirs), theirs


def test_a_fault_of_ours_is_not_called_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LocalFileSystem, "exists", lambda self, path: int("x"))
    with pytest.raises(ValueError, match="invalid literal"):
        open_location("/x").exists()


class Closed(LocalFileSystem):
    """A file system that lists folder by folder and refuses one of them."""

    cachable = False

    def ls(self, path: str, detail: bool = True, **more: object) -> object:
        if path.endswith("closed"):
            raise PermissionError(13, "Permission denied", path)
        return super().ls(path, detail=detail, **more)


def test_a_folder_that_cannot_be_listed_is_an_error(tmp_path: Path) -> None:
    for folder in ("open", "closed"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a").write_bytes(b"12")
    assert open_location(str(tmp_path)).sizes() == {"closed/a": 2, "open/a": 2}
    assert open_location(f"{tmp_path}/gone").sizes() == {}
    with pytest.raises(UsageError, match="closed"):
        Location(Closed(), str(tmp_path)).sizes()
