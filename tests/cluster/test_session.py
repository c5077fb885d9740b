"""Joining a cluster that does not answer, and starting Ray where it cannot start."""

import signal
import tempfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import psutil
import pytest
import ray

from pipeline.cluster import ray_internals
from pipeline.cluster import session as sessions
from pipeline.errors import UsageError


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """No Ray session, and little patience."""
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.setattr(sessions, "CONNECT_SECONDS", 1.0)
    monkeypatch.setattr(sessions, "_quiet", lambda: None)


@pytest.fixture
def dashboard() -> Iterator[str]:
    """Something that listens and is no head node."""
    server = HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()


def refused(address: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(UsageError) as caught, sessions.session():
        pass
    return str(caught.value)


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1"])
def test_nobody_answers(address: str, fresh: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert f"RAY_ADDRESS={address}" in refused(address, monkeypatch)


def test_something_else_answers(
    dashboard: str, fresh: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "legrad submit" in refused(dashboard, monkeypatch)


def test_what_is_no_address(fresh: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "RAY_ADDRESS=nonsense" in refused("nonsense", monkeypatch)


def test_a_temporary_folder_with_too_long_a_path(
    fresh: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(**_: object) -> None:
        raise OSError(f"{ray_internals.SOCKET_PATH_ERROR} cannot exceed 107 bytes: /long")

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "init", start)
    with pytest.raises(UsageError, match="RAY_TMPDIR") as caught, sessions.session():
        pass
    assert tempfile.gettempdir() in str(caught.value)


def test_other_errors_of_a_start_are_not_explained_away(
    fresh: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(**_: object) -> None:
        raise OSError("no space left")

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "init", start)
    with pytest.raises(OSError, match="no space"), sessions.session():
        pass


def test_ray_reports_no_usage(ray_session: None) -> None:
    """On this machine; a cluster has a switch of its own."""
    below = psutil.Process().children(recursive=True)
    (server,) = (process for process in below if process.name() == "gcs_server")
    assert server.environ()["RAY_USAGE_STATS_ENABLED"] == "0"


def test_sigterm_is_as_ctrl_c(ray_session: None) -> None:
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGTERM)
