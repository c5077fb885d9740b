"""``legrad doctor``: checks whether this machine, or the cluster it belongs to, can do a run."""

import os
import platform
import shutil
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from jobs.client import ClusterOptions
from jobs.options import RunOptions
from pipeline.errors import UsageError

if TYPE_CHECKING:
    from pipeline.config import RunConfig

PACKAGES = ("legrad-audit", "torch", "open_clip_torch", "ray", "pyarrow", "pandas", "s3fs")
LEAST_FREE_BYTES = 2 * 2**30
LEAST_SHARED_MEMORY = 2**28
Result = tuple[bool, str]
"""Whether a check passed, and its result in words."""
_S3_VARIABLES = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_ENDPOINT_URL")


def doctor(
    config: Annotated[
        Path | None, typer.Argument(help="Also check that this run's settings fit the nodes.")
    ] = None,
    folder: Annotated[Path, typer.Option(help="Folder that results would go to.")] = Path(),
    address: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Check the cluster whose dashboard has this address, http://HOST:8265. Default: "
            "this machine, and the cluster of RAY_ADDRESS if it belongs to one.",
        ),
    ] = None,
) -> None:
    """Check versions, device, Ray, memory and disk; with --address, those of a cluster."""
    settings = None if config is None else RunOptions().load(config)
    if address is not None:
        from jobs.submission import examine_cluster

        examine_cluster(ClusterOptions(address), settings)
        return
    raise typer.Exit(0 if examine(folder, settings) else 1)


def examine(folder: Path, config: "RunConfig | None" = None) -> bool:
    """Print one line per check; return whether all passed.

    Args:
        folder: folder that results would go to.
        config: settings of a run to compare with the nodes.
    """
    from rich.markup import escape

    from jobs.display import console

    all_good = True
    checks: dict[str, Callable[[], Iterator[Result]]] = {
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
            all_good = all_good and good
    return all_good


def _versions() -> Iterator[Result]:
    yield True, f"Python {platform.python_version()} on {platform.platform()}"
    for package in PACKAGES:
        try:
            yield True, f"{package} {version(package)}"
        except PackageNotFoundError:
            yield False, f"{package} is not installed: pip install {package}"


def _machine() -> Iterator[Result]:
    import psutil

    from jobs.display import size
    from pipeline.machine import cores

    memory = psutil.virtual_memory()
    text = f"{size(memory.available)} of {size(memory.total)} memory free"
    enough = memory.available >= LEAST_FREE_BYTES
    yield True, f"{cores()} cores"
    yield enough, text if enough else f"{text}: a run needs {size(LEAST_FREE_BYTES)}"


def _device() -> Iterator[Result]:
    import torch

    from jobs.display import size

    if not torch.cuda.is_available():
        yield True, "CPU (no CUDA device found)"
        return
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        yield True, f"cuda:{index} {properties.name}, {size(properties.total_memory)}"


def _disk(folder: Path) -> Iterator[Result]:
    from jobs.display import size

    existing = folder.resolve()
    while not existing.exists():
        existing = existing.parent
    free = shutil.disk_usage(existing).free
    writable = os.access(existing, os.W_OK)
    yield writable, f"{existing} is {'writable' if writable else 'not writable'}"
    yield free >= LEAST_FREE_BYTES, f"{size(free)} free at {existing}"
    shared = Path("/dev/shm")  # noqa: S108 - only its free space is read
    if shared.exists():
        room = shutil.disk_usage(shared).free
        enough = room >= LEAST_SHARED_MEMORY
        hint = "" if enough else ": Ray's object store uses slow files on disk instead"
        yield enough, f"{size(room)} free at {shared}{hint}"


def _storage() -> Iterator[Result]:
    variables = [name for name in _S3_VARIABLES if os.environ.get(name)]
    yield True, f"S3 settings in the environment: {', '.join(variables) or 'none'}"


def _ray(config: "RunConfig | None") -> Iterator[Result]:
    import ray

    from pipeline.cluster.preflight import findings
    from pipeline.cluster.session import on_cluster, session

    try:
        with session():
            resources = ray.cluster_resources()
            host = ray.get(ray.remote(platform.node).remote(), timeout=60)
            cpus, gpus = resources.get("CPU", 0), resources.get("GPU", 0)
            kind = f"cluster at {os.environ['RAY_ADDRESS']}" if on_cluster() else "local"
            yield (
                True,
                f"{kind} session, {cpus:g} logical CPUs, {gpus:g} GPUs, a task ran on {host}",
            )
            if on_cluster() or config is not None:
                for finding in findings(config):
                    yield finding.good, f"{finding.check}: {finding.text}"
    except (ray.exceptions.RayError, ConnectionError, RuntimeError, OSError, UsageError) as error:
        yield False, str(error) or type(error).__name__
