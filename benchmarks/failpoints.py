"""Kills a run at a chosen step of writing a part, without any code for it in the run itself.

``RAY_RUNTIME_ENV_HOOK=benchmarks.failpoints.add_hook`` makes every worker of a session patch the
writer before it works. `environment` gives the variables of a run that is to be killed.
"""

import io
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import psutil

POINTS = ("before part", "in data", "before rename", "after part")
"""The steps of writing a part, in order. The two in the middle exist only on a local disk, where a
draft is written and renamed; an object store receives the part in one request.
"""
LOCAL_POINTS = ("in data", "before rename")
POINT, VICTIM, FIRED, SKIP = "FAIL_POINT", "FAIL_VICTIM", "FAIL_FIRED", "FAIL_SKIP"
VICTIMS = ("driver", "worker")


def environment(point: str, victim: str, folder: Path, skip: int = 1) -> dict[str, str]:
    """Variables of a run that dies once.

    Args:
        point: one of `POINTS`.
        victim: ``driver``: the whole run; ``worker``: the process that writes.
        folder: folder of the file that records that the process was killed.
        skip: number of times that the point is passed before.
    """
    return {
        "RAY_RUNTIME_ENV_HOOK": "benchmarks.failpoints.add_hook",
        POINT: point,
        VICTIM: victim,
        FIRED: str(folder / "fired"),
        SKIP: str(skip),
    }


def add_hook(runtime_env: dict[str, Any] | None) -> dict[str, Any]:
    """Called by Ray in the driver: workers get the variables and run `install`."""
    env = dict(runtime_env or {})
    names = (POINT, FIRED, SKIP, VICTIM, "PYTHONPATH")
    values = {name: os.environ[name] for name in names} | {"FAIL_DRIVER": str(os.getpid())}
    env["env_vars"] = dict(env.get("env_vars") or {}) | values
    env["worker_process_setup_hook"] = "benchmarks.failpoints.install"
    return env


def install() -> None:
    """Patch this worker so that it kills at the point."""
    from pipeline.runs import parts
    from pipeline.stages import write

    write_part, write_rows, fsync = parts.write_part, parts._write_rows, os.fsync

    def patched_part(*args: Any, **kwargs: Any) -> Any:
        _reach("before part")
        written = write_part(*args, **kwargs)
        _reach("after part")
        return written

    def patched_rows(sink: Any, *args: Any) -> None:
        """Die with half of the rows' bytes in the draft."""
        if os.environ[POINT] != "in data":
            write_rows(sink, *args)
            return
        whole = io.BytesIO()
        write_rows(whole, *args)
        data = whole.getvalue()
        sink.write(data[: len(data) // 2])
        sink.flush()
        _reach("in data")
        sink.write(data[len(data) // 2 :])

    def patched_fsync(descriptor: int) -> None:
        fsync(descriptor)
        _reach("before rename")

    mock.patch.object(write, "write_part", patched_part).start()
    mock.patch.object(parts, "_write_rows", patched_rows).start()
    mock.patch.object(os, "fsync", patched_fsync).start()


def _reach(point: str) -> None:
    if point != os.environ[POINT] or not _turn(Path(os.environ[FIRED])):
        return
    if os.environ[VICTIM] == "driver":
        kill_run(int(os.environ["FAIL_DRIVER"]))
    os.kill(os.getpid(), signal.SIGKILL)


def _turn(fired: Path) -> bool:
    """Whether this is the pass, counted over all workers, at which the process is killed."""
    for number in range(int(os.environ[SKIP]) + 1):
        try:
            fired.with_name(f"{fired.name}-{number}").open("x").close()
        except FileExistsError:
            continue
        return number == int(os.environ[SKIP])
    return False


def kill_run(driver: int) -> None:
    """SIGKILL a driver and all processes below it, which would end within seconds anyway."""
    try:
        process = psutil.Process(driver)
        below = process.children(recursive=True)
    except psutil.NoSuchProcess:
        return
    for each in (process, *below):
        if each.pid != os.getpid():
            signal_kill(each)


def signal_kill(process: psutil.Process) -> None:
    """SIGKILL a process; one that has ended already is no error."""
    try:
        process.kill()
    except psutil.NoSuchProcess:
        return


def fired(environment: Mapping[str, str]) -> bool:
    """Whether the run of this environment was killed at its point."""
    last = Path(environment[FIRED])
    return last.with_name(f"{last.name}-{environment[SKIP]}").exists()
