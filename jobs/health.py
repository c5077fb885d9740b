"""``legrad doctor``: is this machine, or the cluster it belongs to, fit for a run?"""

import os
import platform
import shutil
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
from rich.markup import escape

from jobs.display import console, size
from pipeline.errors import UsageError

if TYPE_CHECKING:
    from pipeline.config import RunConfig

PACKAGES = ("legrad-audit", "torch", "open_clip_torch", "ray", "pyarrow", "pandas", "s3fs")
LEAST_FREE_BYTES = 2 * 2**30
Finding = tuple[bool, str]
_S3_VARIABLES = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_ENDPOINT_URL")


def examine(folder: Path, config: "RunConfig | None" = None) -> bool:
    """Print a line a check; True when all are fine.

    Args:
        folder: where results would go.
        config: a run to hold against the nodes as well.
    """
    fine = True
    checks: dict[str, Callable[[], Iterator[Finding]]] = {
        "versions": _versions,
        "machine": _machine,
        "device": _device,
        "disk": lambda: _disk(folder),
        "storage": _storage,
        "ray": lambda: _ray(config),
    }
    for name, check in checks.items():
        for good, text in check():
            mark = "[green]ok[/green]  " if good else "[red]bad[/red] "
            console.print(f"{mark} {name:9s} {escape(text)}", soft_wrap=True)
            fine = fine and good
    return fine


def _versions() -> Iterator[Finding]:
    yield True, f"Python {platform.python_version()} on {platform.platform()}"
    for package in PACKAGES:
        try:
            yield True, f"{package} {version(package)}"
        except PackageNotFoundError:
            yield False, f"{package} is not installed: pip install {package}"


def _machine() -> Iterator[Finding]:
    from pipeline.machine import cores

    memory = psutil.virtual_memory()
    text = f"{size(memory.available)} of {size(memory.total)} memory free"
    enough = memory.available >= LEAST_FREE_BYTES
    yield True, f"{cores()} cores"
    yield enough, text if enough else f"{text}: a run wants {size(LEAST_FREE_BYTES)}"


def _device() -> Iterator[Finding]:
    import torch

    if not torch.cuda.is_available():
        yield True, "CPU (no CUDA device found)"
        return
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        yield True, f"cuda:{index} {properties.name}, {size(properties.total_memory)}"


def _disk(folder: Path) -> Iterator[Finding]:
    place = folder.resolve()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    writable = os.access(place, os.W_OK)
    yield writable, f"{place} is {'writable' if writable else 'not writable'}"
    yield free >= LEAST_FREE_BYTES, f"{size(free)} free at {place}"
    shared = Path("/dev/shm")  # noqa: S108 - only its room is read
    if shared.exists():
        room = shutil.disk_usage(shared).free
        hint = "" if room >= 2**28 else ": Ray's object store falls back to slow disk files"
        yield room >= 2**28, f"{size(room)} free at {shared}{hint}"


def _storage() -> Iterator[Finding]:
    there = [name for name in _S3_VARIABLES if os.environ.get(name)]
    yield True, f"S3 settings in the environment: {', '.join(there) or 'none'}"


def _ray(config: "RunConfig | None") -> Iterator[Finding]:
    import ray

    from pipeline.cluster.preflight import findings
    from pipeline.cluster.session import on_cluster, session

    try:
        with session():
            resources = ray.cluster_resources()
            answer = ray.get(ray.remote(platform.node).remote(), timeout=60)
            cpus, gpus = resources.get("CPU", 0), resources.get("GPU", 0)
            where = f"cluster at {os.environ['RAY_ADDRESS']}" if on_cluster() else "local"
            yield (
                True,
                f"{where} session, {cpus:g} logical CPUs, {gpus:g} GPUs, a task ran on {answer}",
            )
            if on_cluster() or config is not None:
                for found in findings(config):
                    yield found.good, f"{found.check}: {found.text}"
    except (ray.exceptions.RayError, ConnectionError, RuntimeError, OSError, UsageError) as error:
        yield False, str(error) or type(error).__name__
