"""One driver per output."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.errors import RunError, UsageError
from pipeline.runs import lease
from pipeline.runs.lease import Fence, Holder, hold_lease
from pipeline.runs.manifest import RunFolder, run_folder

HOLD = """
import sys, time
from pipeline.errors import UsageError
from pipeline.runs.lease import hold_lease
from pipeline.runs.manifest import run_folder
try:
    with hold_lease(run_folder(sys.argv[1])):
        print("held", flush=True)
        time.sleep(600)
except UsageError as error:
    print(error, flush=True)
"""


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return run_folder(str(tmp_path / "out"))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RENEW_SECONDS", "SETTLE_SECONDS", "_POLL_SECONDS"):
        monkeypatch.setattr(lease, name, 0.05)
    monkeypatch.setattr(lease, "STALE_SECONDS", 0.4)


@contextmanager
def holding(folder: RunFolder) -> "Iterator[subprocess.Popen[str]]":
    """A driver that asks for the lease and keeps it; it is not alive afterwards."""
    command = [sys.executable, "-c", HOLD, folder.uri]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def put(folder: RunFolder, holder: Holder, beat: int = 0) -> None:
    folder.lease.write(lease._lease_json(holder, beat))


def elsewhere() -> Holder:
    return replace(Holder.here(), table="another machine", host="gpu-7", user="ann", pid=4711)


def test_a_second_driver_is_refused_and_the_holder_named(folder: RunFolder) -> None:
    refused = pytest.raises(UsageError, match=f"process {os.getpid()} of")
    with hold_lease(folder), refused as caught, hold_lease(folder):
        raise AssertionError("two drivers")
    assert "--set output=NEW" in str(caught.value)
    with hold_lease(folder) as fence:  # free again
        fence.require()


def test_a_driver_that_wrote_nothing_leaves_no_folder(folder: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(KeyError), hold_lease(folder):
        raise KeyError("x")
    assert list(tmp_path.iterdir()) == []
    folder.manifest.write(b"{}")
    with hold_lease(folder):
        pass
    assert folder.root.sizes() == {"_run/manifest.json": 2}


@pytest.mark.starts
def test_two_processes_and_one_that_is_killed(folder: RunFolder) -> None:
    with holding(folder) as process:
        assert first_line(process) == "held"
        with pytest.raises(UsageError, match=f"process {process.pid} of"), hold_lease(folder):
            raise AssertionError("two drivers")
        process.send_signal(signal.SIGKILL)
        messages: list[str] = []
        with hold_lease(folder, messages.append):  # even before the dead process is waited for
            assert messages == []  # at once: nothing to wait for


@pytest.mark.starts
def test_of_several_drivers_started_at_once_one_gets_the_lease(folder: RunFolder) -> None:
    put(folder, replace(Holder.here(), pid=2**22 - 1))  # a driver that died
    with ExitStack() as stack:
        processes = [stack.enter_context(holding(folder)) for _ in range(4)]
        lines = [first_line(process) for process in processes]
    assert sum(line == "held" for line in lines) == 1, lines
    assert sum("--set output=NEW" in line for line in lines) == 3, lines


def test_a_pid_that_belongs_to_another_process_now(folder: RunFolder) -> None:
    put(folder, replace(Holder.here(), born=1.0))
    with hold_lease(folder) as fence:
        fence.require()


def test_a_stale_driver_on_another_machine_is_replaced(folder: RunFolder, quick: None) -> None:
    put(folder, elsewhere())
    messages: list[str] = []
    with hold_lease(folder, messages.append) as fence:
        fence.require()
    assert "process 4711 of ann on gpu-7" in messages[0]


def test_a_live_driver_on_another_machine_is_left_alone(folder: RunFolder, quick: None) -> None:
    put(folder, elsewhere())
    done = threading.Event()

    def beat() -> None:
        for number in range(10_000):
            if done.wait(0.05):
                return
            put(folder, elsewhere(), number)

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        with pytest.raises(UsageError, match="of ann on gpu-7"), hold_lease(folder):
            raise AssertionError("two drivers")
    finally:
        done.set()
        thread.join()


def test_a_released_lease_is_not_waited_for(folder: RunFolder, quick: None) -> None:
    put(folder, elsewhere())
    threading.Timer(0.1, folder.lease.delete).start()
    with hold_lease(folder) as fence:
        fence.require()


def test_a_broken_lease_is_replaced(folder: RunFolder, quick: None) -> None:
    folder.lease.write(b'{"hol')
    with hold_lease(folder) as fence:
        fence.require()


def test_the_lease_is_renewed(folder: RunFolder, quick: None) -> None:
    with hold_lease(folder) as fence:
        end = time.monotonic() + 30
        while json.loads(folder.lease.read())["beat"] < 2 and time.monotonic() < end:
            time.sleep(0.02)
        assert json.loads(folder.lease.read())["beat"] >= 2
        fence.require()


def test_a_driver_that_loses_the_lease_stops(folder: RunFolder) -> None:
    stopped = pytest.raises(RunError, match="process 4711 of ann")
    with stopped, hold_lease(folder) as fence:
        put(folder, elsewhere())
        with pytest.raises(RunError, match="gpu-7"):
            fence.require()
        raise ValueError("error of a worker")
    assert json.loads(folder.lease.read())["holder"]["host"] == "gpu-7"


def test_a_removed_lease_is_lost(folder: RunFolder) -> None:
    with hold_lease(folder) as fence:
        folder.lease.delete()
        with pytest.raises(RunError, match="removed"):
            fence.require()
        put(folder, replace(Holder.here(), run=fence.run))


def test_errors_of_the_run_are_passed_on_unchanged(folder: RunFolder) -> None:
    with pytest.raises(UsageError, match="mine"), hold_lease(folder):
        raise UsageError("mine")


def test_a_lease_that_cannot_be_read_is_not_lost(tmp_path: Path) -> None:
    lease_file = run_folder(str(tmp_path)).root.child("lease.json")
    Path(lease_file.path).mkdir()
    assert Fence(lease_file, "run", "out").lost() is None
