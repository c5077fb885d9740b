"""The Ray session a run lives in: joined where there is one, else started locally."""

import logging
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import psutil
import ray
import ray.data

from pipeline.cluster import ray_internals
from pipeline.errors import UsageError
from pipeline.machine import cores

LOGICAL_CPUS_PER_CORE = 4
RETRIES = 1
"""Further attempts after a worker died; what dies again is done by `pipeline.stages.isolated`."""
OBJECT_STORE_SHARE = 0.2
OBJECT_STORE_MOST = 8 * 2**30  # above 10 GB Ray refuses to start where /dev/shm is smaller
TOKEN_ADVICE = (
    "Set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH=FILE with the cluster's token (or "
    "RAY_AUTH_TOKEN, or ~/.ray/auth_token). On the head node `ray get-auth-token` prints it; "
    "KubeRay keeps it in a secret with the cluster's name."
)
_VARIABLES = {"OMP_WAIT_POLICY": "PASSIVE"}
_STDERR = 2


@contextmanager
def session() -> Iterator[None]:
    """The current Ray session, the cluster at ``RAY_ADDRESS``, or a local one that ends here.

    A local session gets more logical CPUs than the machine has cores: reading, decoding, replicas,
    writing and, on resume, the checkpoint's filters each hold one, and Ray waits without a word
    when they do not all fit. Workers get an empty working directory, so that they import this
    package and not a folder that happens to be called ``pipeline`` where the user stands. Their
    OpenMP threads sleep while they wait: spinning ones, more than there are cores, made explaining
    five times slower.

    Raises:
        UsageError: the cluster cannot be joined.
    """
    if ray.is_initialized():
        yield
        return
    with tempfile.TemporaryDirectory(prefix="legrad-") as empty:
        environment = _environment(empty)
        _quiet()
        with _without_note():
            if on_cluster():
                _join(environment)
            else:
                ray.init(
                    address="local",  # even where another cluster runs on this machine
                    num_cpus=_logical_cpus(),
                    object_store_memory=_object_store_bytes(),
                    include_dashboard=False,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                    runtime_env=environment,
                )
        try:
            yield
        finally:
            ray.shutdown()


def _join(environment: dict[str, Any]) -> None:
    try:
        ray.init(runtime_env=environment, log_to_driver=False, logging_level=logging.ERROR)
    except ray.exceptions.AuthenticationError as error:
        place = os.environ["RAY_ADDRESS"]
        raise UsageError(f"RAY_ADDRESS={place}: {_first_line(error)} {TOKEN_ADVICE}") from error
    except (ConnectionError, RuntimeError, ValueError) as error:
        place = os.environ["RAY_ADDRESS"]
        raise UsageError(
            f"RAY_ADDRESS={place}: the cluster cannot be joined ({_first_line(error)}). On a "
            "machine that is not part of it use legrad submit; without RAY_ADDRESS, Ray starts on "
            "this machine."
        ) from error


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def on_cluster() -> bool:
    """Whether a run joins a cluster; in a submitted job Ray says which."""
    return bool(os.environ.get("RAY_ADDRESS"))


def _environment(empty: str) -> dict[str, Any]:
    """The workers' environment, without what a submitted job has set: Ray refuses to set it twice.

    Args:
        empty: folder that workers start in.
    """
    job = ray_internals.submitted_runtime_env()
    variables = {k: v for k, v in _VARIABLES.items() if k not in job.get("env_vars", {})}
    place = {} if "working_dir" in job else {"working_dir": empty}
    return place | {"env_vars": variables}


def _quiet() -> None:
    """Leave the terminal to our own progress: Ray's runtime and Ray Data log to their files."""
    quiet = not os.environ.get("LEGRAD_DEBUG")
    ray_internals.configure_native_code(oom_retries=RETRIES, quiet=quiet)
    if quiet:
        ray_internals.set_raylet_printer(_notice)
    ray_internals.silence_data_console()


def _notice(data: Any, ignore_prefix: bool) -> None:  # noqa: ARG001 - as Ray calls it
    """What a raylet has to say, on stderr: Ray prints it to stdout, whatever ``log_to_driver`` is.

    That there are more workers than cores is no news: see `session`.
    """
    for line in data["lines"]:
        if ray_internals.MANY_WORKERS_WARNING not in line:
            sys.stderr.write(f"ray: {line}\n")


@contextmanager
def _without_note() -> Iterator[None]:
    """Drop the line in which Ray's native code says that it heeds `_quiet`; the rest is shown."""
    with tempfile.TemporaryFile() as held:
        sys.stderr.flush()
        terminal = os.dup(_STDERR)
        os.dup2(held.fileno(), _STDERR)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(terminal, _STDERR)
            os.close(terminal)
            held.seek(0)
            for line in held:
                if ray_internals.LOG_LEVEL_NOTE.encode() not in line:
                    os.write(_STDERR, line)


def local_nodes() -> list[Mapping[str, float]]:
    """This machine as `session` would start Ray on it; starts nothing."""
    import torch

    return [{"CPU": _logical_cpus(), "GPU": torch.cuda.device_count()}]


def _logical_cpus() -> int:
    return max(8, LOGICAL_CPUS_PER_CORE * cores())


def _object_store_bytes() -> int:
    free = int(psutil.virtual_memory().available)
    return max(128 * 2**20, min(OBJECT_STORE_MOST, int(free * OBJECT_STORE_SHARE)))
