"""The Ray session of a run: the cluster at ``RAY_ADDRESS``, or one that is started locally."""

import logging
import os
import signal
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import psutil
import ray
import ray.data
from ray.data import DataContext

from pipeline.cluster import ray_internals
from pipeline.errors import UsageError
from pipeline.machine import cores

LOGICAL_CPUS_PER_CORE = 4
RETRIES = 1
"""Further attempts at a task whose worker died; rows that are lost then are explained by
`pipeline.stages.isolated`."""
OBJECT_STORE_SHARE = 0.2  # of the free memory
OBJECT_STORE_MOST = (2 if sys.platform == "darwin" else 8) * 2**30
"""Ray refuses to start with more than 2 GiB on macOS, or 10 GB where /dev/shm is smaller."""
CONNECT_SECONDS = 10.0
TOKEN_ADVICE = (
    "Set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH=FILE with the cluster's token (or "
    "RAY_AUTH_TOKEN, or ~/.ray/auth_token). On the head node `ray get-auth-token` prints it; "
    "KubeRay keeps it in a secret with the cluster's name."
)
_WORKER_VARIABLES = {"OMP_WAIT_POLICY": "PASSIVE"}
_STDERR = 2


@contextmanager
def session() -> Iterator[None]:
    """Use the current Ray session, the cluster at ``RAY_ADDRESS``, or a local one until the end.

    A local session gets more logical CPUs than the machine has cores: reading, decoding, replicas
    and writing each hold one, and Ray waits silently if they do not all fit. Workers start in an
    empty folder, so that they import this package and not some folder called ``pipeline`` in the
    user's working directory. Their OpenMP threads sleep while they wait: spinning threads, more
    than there are cores, made explaining five times slower.

    Raises:
        UsageError: the cluster cannot be joined, or the temporary folder has too long a path.
    """
    if ray.is_initialized():
        yield
        return
    with tempfile.TemporaryDirectory(prefix="legrad-") as empty:
        environment = _environment(empty)
        _quiet()
        with _without_log_level_note():
            if on_cluster():
                _join(os.environ["RAY_ADDRESS"], environment)
            else:
                _start(environment)
        try:
            with _interrupted_by_sigterm():
                yield
        finally:
            ray.shutdown()


@contextmanager
def _interrupted_by_sigterm() -> Iterator[None]:
    """Treat SIGTERM, which schedulers send, as Ctrl-C; Ray's native code would end the process."""
    if threading.current_thread() is not threading.main_thread():  # only this one takes signals
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


def _start(environment: dict[str, Any]) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray would report them over the network
    try:
        ray.init(
            address="local",  # even if another cluster runs on this machine
            num_cpus=_logical_cpus(),
            object_store_memory=_object_store_bytes(),
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            runtime_env=environment,
        )
    except OSError as error:
        if ray_internals.SOCKET_PATH_ERROR not in str(error):
            raise
        raise UsageError(
            f"the path of the temporary folder {tempfile.gettempdir()} is too long for Ray's "
            "sockets. Give Ray a shorter one: export RAY_TMPDIR=/tmp"
        ) from error


def _join(address: str, environment: dict[str, Any]) -> None:
    advice = (
        "On a machine that is not part of the cluster use legrad submit; without RAY_ADDRESS, Ray "
        "starts on this machine."
    )
    try:
        if not _answers(address):
            raise UsageError(
                f"RAY_ADDRESS={address}: no Ray cluster answers there within "
                f"{CONNECT_SECONDS:.0f} s. Is it up, and is this the address of its head node "
                f"(HOST:6379, not the dashboard's)? {advice}"
            )
        ray.init(runtime_env=environment, log_to_driver=False, logging_level=logging.ERROR)
    except ray.exceptions.AuthenticationError as error:
        raise UsageError(f"RAY_ADDRESS={address}: {_first_line(error)} {TOKEN_ADVICE}") from error
    except (ConnectionError, RuntimeError, ValueError) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(
            f"RAY_ADDRESS={address}: the cluster cannot be joined ({_first_line(error)}). {advice}"
        ) from error


def _answers(address: str) -> bool:
    """Whether a gRPC server answers at an address; `ray.init` itself would wait for minutes.

    A cluster with TLS is not asked.
    """
    import grpc

    if os.environ.get("RAY_USE_TLS", "0") not in ("", "0"):
        return True
    is_client = address.startswith("ray://")
    target = address.removeprefix("ray://") if is_client else ray_internals.head_address(address)
    if target is None:
        return True
    with grpc.insecure_channel(target) as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=CONNECT_SECONDS)
        except grpc.FutureTimeoutError:
            return False
    return True


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def on_cluster() -> bool:
    """Whether a run joins a cluster; Ray sets the variable in a submitted job."""
    return bool(os.environ.get("RAY_ADDRESS"))


def _environment(empty: str) -> dict[str, Any]:
    """The workers' runtime environment, without what a submitted job has set already.

    Args:
        empty: folder that workers start in.
    """
    job = ray_internals.submitted_runtime_env()
    variables = {k: v for k, v in _WORKER_VARIABLES.items() if k not in job.get("env_vars", {})}
    folder = {} if "working_dir" in job else {"working_dir": empty}
    return folder | {"env_vars": variables}


def _quiet() -> None:
    """Keep Ray's messages off the terminal; its log files have them."""
    quiet = not os.environ.get("LEGRAD_DEBUG")
    ray_internals.configure_native_code(oom_retries=RETRIES, quiet=quiet)
    if quiet:
        ray_internals.set_raylet_printer(_print_raylet_message)
    ray_internals.silence_data_console()


def _print_raylet_message(data: Any, ignore_prefix: bool) -> None:  # noqa: ARG001 - as Ray calls it
    """Print the message of a raylet on stderr; Ray would print it on stdout.

    A warning about more workers than cores is left out: see `session`.
    """
    for line in data["lines"]:
        if ray_internals.MANY_WORKERS_WARNING not in line:
            sys.stderr.write(f"ray: {line}\n")


@contextmanager
def _without_log_level_note() -> Iterator[None]:
    """Drop the line in which Ray's native code reports its log level; show all other lines."""
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


@contextmanager
def data_settings(**settings: Any) -> Iterator[None]:
    """Ray Data's settings inside a block, without progress bars; restored when the block ends.

    Args:
        settings: attributes of `ray.data.DataContext`. One that the installed Ray lacks is left
            out: Ray before 2.57 has no limit for a stalled execution that could be raised.
    """
    context = DataContext.get_current()
    settings |= {"enable_progress_bars": False, "print_on_execution_start": False}
    before = {name: getattr(context, name) for name in settings if hasattr(context, name)}
    for name in before:
        setattr(context, name, settings[name])
    with warnings.catch_warnings():  # retries have no named parameter in Ray 2.60
        warnings.filterwarnings("ignore", message=".*ray_remote_args.* is deprecated")
        try:
            yield
        finally:
            for name, value in before.items():
                setattr(context, name, value)


def local_nodes() -> list[Mapping[str, float]]:
    """CPU and GPU of this machine as `session` would give them to Ray; Ray is not started."""
    import torch

    return [{"CPU": _logical_cpus(), "GPU": torch.cuda.device_count()}]


def _logical_cpus() -> int:
    return max(8, LOGICAL_CPUS_PER_CORE * cores())


def _object_store_bytes() -> int:
    free = int(psutil.virtual_memory().available)
    return max(128 * 2**20, min(OBJECT_STORE_MOST, int(free * OBJECT_STORE_SHARE)))
