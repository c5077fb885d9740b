"""Storage that fails for a while: nothing lost, nothing twice; or one row that says so."""

import errno
import io
import runpy
from collections.abc import Iterator
from functools import partial
from http.client import IncompleteRead
from pathlib import Path
from types import SimpleNamespace

import aiohttp
import botocore.exceptions
import pytest
from fsspec.asyn import FSTimeoutError
from fsspec.implementations.local import LocalFileSystem
from ray._common.retry import format_exception, matches_error
from s3fs.errors import translate_boto_error
from tenacity import wait_none

from pipeline.config import SourceConfig
from pipeline.schema import Status
from pipeline.sources.datasource import open_source, read_rows
from pipeline.sources.retry import CompleteStream, reread, unread
from pipeline.storage import retries
from pipeline.storage.location import open_location
from pipeline.storage.retries import (
    ATTEMPTS,
    TRANSIENT,
    call_with_retries,
    is_transient,
    with_client_defaults,
)
from tests.data import jpeg, samples, tar_bytes

RESET = ConnectionResetError(errno.ECONNRESET, "reset by peer")


def client_error(code: str, status: int) -> botocore.exceptions.ClientError:
    answer = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return botocore.exceptions.ClientError(answer, "GetObject")  # type: ignore[arg-type]


def answered(status: int) -> aiohttp.ClientResponseError:
    request = SimpleNamespace(real_url="http://x/y.tar")
    return aiohttp.ClientResponseError(request, (), status=status)  # type: ignore[arg-type]


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


TRANSIENT_ERRORS = [
    RESET,
    TimeoutError(),
    FSTimeoutError(),
    OSError(errno.EBUSY, "Please reduce your request rate."),
    OSError(errno.EHOSTUNREACH, "no route to host"),
    IncompleteRead(b"x", 10),
    aiohttp.ClientPayloadError("Response payload is not completed"),
    aiohttp.ServerDisconnectedError(),
    answered(503),
    botocore.exceptions.ReadTimeoutError(endpoint_url="http://x"),
    botocore.exceptions.EndpointConnectionError(endpoint_url="http://x"),
    botocore.exceptions.HTTPClientError(error="x"),
    botocore.exceptions.IncompleteReadError(actual_bytes=1, expected_bytes=2),
    client_error("503", 503),
    client_error("SlowDown", 503),
    translate_boto_error(client_error("502", 502)),
    translate_boto_error(client_error("InternalError", 500)),
    caused(RuntimeError("cannot read"), RESET),
]
PERMANENT_ERRORS = [
    FileNotFoundError(errno.ENOENT, "s3://b/Timeout/ConnectionError.tar"),
    PermissionError("Forbidden"),
    OSError(errno.ENOSPC, "No space left on device"),
    ValueError("ConnectionError: in the text only"),
    botocore.exceptions.NoCredentialsError(),
    client_error("404", 404),
    *(translate_boto_error(client_error(code, 400)) for code in ("NoSuchBucket", "AccessDenied")),
    answered(404),
]


@pytest.mark.parametrize("error", TRANSIENT_ERRORS, ids=repr)
def test_what_passes(error: Exception) -> None:
    assert is_transient(error)
    text = format_exception(error, include_cause=True)  # as Ray matches it
    if error.__cause__ is None:
        assert any(matches_error(pattern, text) for pattern in TRANSIENT)


@pytest.mark.parametrize("error", PERMANENT_ERRORS, ids=repr)
def test_what_does_not_pass(error: Exception) -> None:
    assert not is_transient(error)
    assert not any(matches_error(pattern, format_exception(error)) for pattern in TRANSIENT)


def test_calls_are_repeated_while_it_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr(retries, "retrying", partial(retries.retrying, waited.append))
    answers: Iterator[Exception | int] = iter([RESET, TimeoutError(), 7])

    def call() -> int:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert call_with_retries(call) == 7
    assert len(waited) == 2
    assert waited[0] < waited[1]
    answers = iter([PermissionError("no"), 7])
    with pytest.raises(PermissionError):
        call_with_retries(call)
    answers = iter([RESET] * 100)
    with pytest.raises(ConnectionResetError):
        call_with_retries(call)
    assert len(list(answers)) == 100 - ATTEMPTS


def test_the_users_own_options_win() -> None:
    ours = with_client_defaults("s3", {})
    assert ours["config_kwargs"]["retries"]["max_attempts"] > 1
    assert ours["use_listings_cache"] is False
    theirs = {"use_listings_cache": True, "config_kwargs": {"read_timeout": 3}, "key": "k"}
    merged = with_client_defaults("s3", theirs)
    assert merged["use_listings_cache"] is True
    assert merged["config_kwargs"] == ours["config_kwargs"] | {"read_timeout": 3}
    assert with_client_defaults("file", {"auto_mkdir": True}) == {"auto_mkdir": True}
    assert open_location("s3://bucket/x", {"anon": True}).fs.config_kwargs["read_timeout"] == 30


class Flaky:
    """A unit of rows whose reading breaks off at chosen rows, once for each time they are named."""

    def __init__(self, rows: int, breaks: dict[int, list[Exception]]) -> None:
        self.rows = rows
        self.breaks = breaks
        self.opened = 0

    def __call__(self) -> Iterator[dict[str, object]]:
        self.opened += 1
        for number in range(self.rows):
            if self.breaks.get(number):
                raise self.breaks[number].pop()
            yield {"image_id": str(number)}


def ids(unit: Flaky) -> list[str]:
    stand_in = partial(unread, "0.tar", "0.tar", "a/", -1)
    return [row["image_id"] for row in reread(unit, stand_in, sleep=lambda seconds: None)]


def test_rows_are_neither_lost_nor_repeated() -> None:
    whole = [str(n) for n in range(9)]
    unit = Flaky(9, {0: [RESET], 4: [RESET, TimeoutError()], 8: [RESET]})
    assert ids(unit) == whole
    assert unit.opened == 5
    # What counts is attempts without a new row, not faults of a long shard.
    assert ids(Flaky(9, {n: [RESET] * (ATTEMPTS - 1) for n in range(9)})) == whole


def test_a_row_stands_for_the_rest() -> None:
    unit = Flaky(9, {3: [RESET] * 99})
    assert ids(unit) == ["0", "1", "2", "a/0.tar/#unreadable"]
    assert unit.opened == ATTEMPTS
    unit = Flaky(9, {3: [PermissionError("expired token")] * 99})
    rows = list(reread(unit, partial(unread, "0.tar", "0.tar", "a/", -1)))
    assert unit.opened == 1
    assert rows[-1]["status"] == Status.READ_ERROR
    assert rows[-1]["error"] == "after 3 rows: PermissionError: expired token"
    with pytest.raises(ZeroDivisionError):  # a fault of ours is no fault of the storage
        ids(Flaky(9, {3: [ZeroDivisionError()]}))


class FlakyStream(io.BytesIO):
    """Breaks off at a byte, or says that the file ends there."""

    def __init__(self, data: bytes, at: int, fault: str) -> None:
        super().__init__(data)
        self.at, self.fault = at, fault

    def read(self, count: int | None = -1) -> bytes:
        left = self.at - self.tell()
        if left > 0:
            return super().read(left if count is None or count < 0 else min(count, left))
        if self.fault == "reset":
            raise RESET
        return b""


class FlakyStorage(LocalFileSystem):
    """Every file fails a few times, each time further on."""

    cachable = False
    faults: list[tuple[int, str]]

    def open(self, path: str, mode: str = "rb", **more: object) -> io.BytesIO:
        data = Path(path).read_bytes()
        at, fault = self.faults.pop(0) if self.faults else (len(data), "end")
        return FlakyStream(data, at, fault)

    def cat_file(self, path: str, **more: object) -> bytes:
        return self.open(path).read()


@pytest.fixture
def storage(monkeypatch: pytest.MonkeyPatch) -> FlakyStorage:
    fs = FlakyStorage()
    fs.faults = []
    location = type(open_location("/x"))
    monkeypatch.setattr(
        "pipeline.sources.datasource.open_location", lambda uri, options: location(fs, uri)
    )
    monkeypatch.setattr(retries, "_PAUSE", wait_none())
    return fs


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_a_tar_through_faults(storage: FlakyStorage, tmp_path: Path, mode: str) -> None:
    data = tar_bytes(samples([f"k{n}" for n in range(30)]), mode)
    (tmp_path / "0.tar").write_bytes(data)
    source = SourceConfig(format="webdataset", uri=(str(tmp_path),))
    (unit,) = open_source(source).units
    whole = list(read_rows(source, unit))
    step = len(data) // 4
    storage.faults = [(0, "reset"), (step, "end"), (2 * step, "reset"), (3 * step, "end")]
    assert list(read_rows(source, unit)) == whole
    assert storage.faults == []
    storage.faults = [(2 * step, "end")] * 99
    rows = list(read_rows(source, unit))
    assert rows[:-1] == whole[: len(rows) - 1]
    assert rows[-1]["status"] == Status.READ_ERROR
    assert f"of {len(data)} bytes" in rows[-1]["error"]


def test_files_through_faults(storage: FlakyStorage, tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.jpg").write_bytes(jpeg(number))
    source = SourceConfig(format="folder", uri=(str(tmp_path),))
    (unit,) = open_source(source).units
    whole = list(read_rows(source, unit))
    storage.faults = [(100, "reset"), (100, "end")]
    assert list(read_rows(source, unit)) == whole
    storage.faults = [(100, "reset")] * ATTEMPTS * 3  # files are read side by side
    rows = list(read_rows(source, unit))
    assert [row["status"] for row in rows] == [Status.READ_ERROR] * 3
    assert [row["key"] for row in rows] == [row["key"] for row in whole]


def test_a_stream_gives_what_was_listed() -> None:
    stream = CompleteStream(io.BytesIO(b"abc"), 5)
    assert stream.read(9) == b"abc"
    with pytest.raises(ConnectionError, match="ends after 3 of 5 bytes"):
        stream.read(9)
    assert CompleteStream(io.BytesIO(b""), 0).read() == b""


def test_a_system_that_lacks_an_error_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """macOS has no EREMOTEIO."""
    monkeypatch.delattr(errno, "EREMOTEIO", raising=False)
    found = runpy.run_path(retries.__file__)
    assert found["is_transient"](OSError(errno.EHOSTUNREACH, "no route to host"))
