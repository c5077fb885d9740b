"""Kill a run at a chosen step of a commit; the run itself knows nothing of this.

``RAY_RUNTIME_ENV_HOOK=benchmarks.failpoints.add_hook`` makes every worker of a session patch Ray's
checkpoint writer before it works. `environment` gives the variables of a run that is to be killed.
"""

import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil

POINTS = (
    "before pending",
    "after pending",
    "in data",
    "after data",
    "after copy",
    "after delete",
)
"""Steps of a commit, in their order: ids as a pending file, data, ids under their final name, and
the pending file's delete. The end of one step is the beginning of the next. On a disk a rename does
the last two at once, so that `after copy` and `after delete` are the same there.
"""
POINT, VICTIM, FIRED, SKIP = "FAIL_POINT", "FAIL_VICTIM", "FAIL_FIRED", "FAIL_SKIP"
VICTIMS = ("driver", "worker")


def environment(point: str, victim: str, folder: Path, skip: int = 1) -> dict[str, str]:
    """Variables of a run that dies once.

    Args:
        point: one of `POINTS`.
        victim: ``driver``: the whole run; ``worker``: the process that writes.
        folder: where a file tells that it happened.
        skip: how often the point is passed before.
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
    from pyarrow.fs import FSSpecHandler
    from ray.data._internal.datasource.parquet_datasink import ParquetDatasink
    from ray.data.checkpoint.checkpoint_writer import BatchBasedCheckpointWriter

    writer = BatchBasedCheckpointWriter
    _around(writer, "write_pending_checkpoint", "before pending", "after pending")
    _around(ParquetDatasink, "write", None, "after data")
    _around(writer, "commit_checkpoint", None, "after delete")
    if os.environ[POINT] == "in data":
        _cut(ParquetDatasink)

    def move(self: Any, source: str, target: str) -> None:
        """What object stores do for a rename."""
        self.fs.copy(source, target)
        _reach("after copy")
        self.fs.rm(source)

    FSSpecHandler.move = move


def _around(owner: Any, name: str, before: str | None, after: str | None) -> None:
    original: Callable[..., Any] = getattr(owner, name)

    def patched(*args: Any, **kwargs: Any) -> Any:
        if before:
            _reach(before)
        result = original(*args, **kwargs)
        if after:
            _reach(after)
        return result

    setattr(owner, name, patched)


def _cut(sink: Any) -> None:
    """Die with half a data file on the disk; an object store shows no half."""
    original = sink.write

    def patched(self: Any, blocks: Any, context: Any) -> Any:
        result = original(self, blocks, context)
        name = self.filename_provider.get_filename_for_task(
            context.kwargs["write_uuid"], context.task_idx
        )
        part = Path(self.path) / name.replace(".parquet", "-0.parquet")
        if part.exists():
            whole = part.read_bytes()
            part.write_bytes(whole[: len(whole) // 2])
            _reach("in data", undo=lambda: part.write_bytes(whole))
        return result

    sink.write = patched


def _reach(point: str, undo: Callable[[], object] = lambda: None) -> None:
    if point != os.environ[POINT] or not _turn(Path(os.environ[FIRED])):
        undo()
        return
    if os.environ[VICTIM] == "driver":
        kill_run(int(os.environ["FAIL_DRIVER"]))
    os.kill(os.getpid(), signal.SIGKILL)


def _turn(fired: Path) -> bool:
    """Whether it is this pass, of all passes of all workers, that kills."""
    for number in range(int(os.environ[SKIP]) + 1):
        try:
            fired.with_name(f"{fired.name}-{number}").open("x").close()
        except FileExistsError:
            continue
        return number == int(os.environ[SKIP])
    return False


def kill_run(driver: int) -> None:
    """SIGKILL a driver, and what it started, which would follow it within seconds."""
    try:
        process = psutil.Process(driver)
        below = process.children(recursive=True)
    except psutil.NoSuchProcess:
        return
    for each in (process, *below):
        if each.pid != os.getpid():
            signal_kill(each)


def signal_kill(process: psutil.Process) -> None:
    """SIGKILL; one that is gone already is fine."""
    try:
        process.kill()
    except psutil.NoSuchProcess:
        return


def fired(environment: Mapping[str, str]) -> bool:
    """Whether the run of this environment was killed at its point."""
    last = Path(environment[FIRED])
    return last.with_name(f"{last.name}-{environment[SKIP]}").exists()
