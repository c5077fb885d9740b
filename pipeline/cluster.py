"""The Ray session a run lives in: joined where there is one, else started locally."""

import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psutil
import ray
import ray.data

from pipeline.config import RuntimeConfig
from pipeline.errors import UsageError

LOGICAL_CPUS_PER_CORE = 4
OBJECT_STORE_SHARE = 0.2
OBJECT_STORE_MOST = 4 * 2**30


@dataclass(frozen=True)
class Resources:
    """What the replicas of the model get.

    Attributes:
        actors: number of replicas.
        gpus: GPUs of each, 0 for CPU.
        threads: CPU threads of each.
    """

    actors: int
    gpus: float
    threads: int

    @property
    def device(self) -> str:
        """torch device of a replica."""
        return "cuda" if self.gpus else "cpu"

    @property
    def cpus(self) -> int:
        """Logical CPUs a replica reserves; Ray gives it as many torch threads."""
        return 1 if self.gpus else self.threads


@contextmanager
def session() -> Iterator[None]:
    """The current Ray session, the cluster at ``RAY_ADDRESS``, or a local one that ends here.

    A local session gets more logical CPUs than the machine has cores: reading, decoding, replicas,
    writing and, on resume, the checkpoint's filters each hold one, and Ray waits without a word
    when they do not all fit. Workers get an empty working directory, so that they import this
    package and not a folder that happens to be called ``pipeline`` where the user stands. Their
    OpenMP threads sleep while they wait: spinning ones, more than there are cores, made explaining
    five times slower.
    """
    if ray.is_initialized():
        yield
        return
    with tempfile.TemporaryDirectory(prefix="legrad-") as empty:
        environment = {"working_dir": empty, "env_vars": {"OMP_WAIT_POLICY": "PASSIVE"}}
        _quiet()
        if os.environ.get("RAY_ADDRESS"):
            ray.init(runtime_env=environment, logging_level=logging.ERROR)
        else:
            ray.init(
                num_cpus=max(8, LOGICAL_CPUS_PER_CORE * cores()),
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


def _quiet() -> None:
    """Leave the terminal to our own progress: Ray's runtime and Ray Data log to their files."""
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # its new default; no warning
    for handler in logging.getLogger("ray.data").handlers:
        if isinstance(handler, logging.StreamHandler) and not isinstance(
            handler, logging.FileHandler
        ):
            handler.setLevel(logging.ERROR)


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def resources(runtime: RuntimeConfig) -> Resources:
    """Fill in what the settings leave to us, from what the cluster has.

    Raises:
        UsageError: the plan can never fit; Ray would wait for ever.
    """
    have = ray.cluster_resources()
    gpus_there = have.get("GPU", 0.0)
    gpus = min(1.0, gpus_there) if runtime.gpus_per_actor == "auto" else runtime.gpus_per_actor
    local = len(ray.nodes()) == 1
    cpus = cores() if local else int(have.get("CPU", 1))
    if runtime.actors != "auto":
        actors = runtime.actors
    elif gpus:
        actors = max(1, int(gpus_there / gpus))
    else:
        actors = max(1, min(8, cpus // 2))
    wanted = runtime.threads_per_actor
    threads = max(1, min(16, cpus // actors)) if wanted == "auto" else wanted
    plan = Resources(actors, gpus, threads)
    _require(plan, have)
    return plan


def _require(plan: Resources, have: dict[str, float]) -> None:
    if plan.gpus * plan.actors > have.get("GPU", 0.0):
        raise UsageError(
            f"runtime: {plan.actors} actors x {plan.gpus:g} GPUs, the cluster has "
            f"{have.get('GPU', 0.0):g}. Lower runtime.actors or runtime.gpus_per_actor."
        )
    others = 3  # a reader, a writer, a checkpoint filter
    needed = plan.cpus * plan.actors + others
    if needed > have.get("CPU", 0.0):
        raise UsageError(
            f"runtime: {plan.actors} actors x {plan.cpus} CPUs and {others} for reading, writing "
            f"and resuming make {needed}; the cluster has {have.get('CPU', 0.0):g} logical CPUs. "
            "Lower runtime.actors or runtime.threads_per_actor, or start Ray with more --num-cpus."
        )


def _object_store_bytes() -> int:
    free = int(psutil.virtual_memory().available)
    return max(128 * 2**20, min(OBJECT_STORE_MOST, int(free * OBJECT_STORE_SHARE)))
