"""The Ray session a run lives in: joined where there is one, else started locally."""

import logging
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import psutil
import ray
import ray.data

from pipeline.config import RuntimeConfig
from pipeline.errors import UsageError
from pipeline.machine import cores

LOGICAL_CPUS_PER_CORE = 4
OTHER_CPUS = 3  # a reader, a writer, a checkpoint filter
RETRIES = 1
"""Further attempts after a worker died; what dies again is done by `pipeline.faults.sacrifice`."""
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


def _quiet() -> None:
    """Leave the terminal to our own progress: Ray's runtime and Ray Data log to their files."""
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # its new default; no warning
    if not os.environ.get("LEGRAD_DEBUG"):  # Ray's native code writes to the terminal of the driver
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    os.environ.setdefault("RAY_task_oom_retries", str(RETRIES))  # for ever by default
    for handler in logging.getLogger("ray.data").handlers:
        if isinstance(handler, logging.StreamHandler) and not isinstance(
            handler, logging.FileHandler
        ):
            handler.setLevel(logging.CRITICAL)  # what ends a run is raised, and said once


def local_nodes() -> list[Mapping[str, float]]:
    """This machine as `session` would start Ray on it; starts nothing."""
    import torch

    return [{"CPU": _logical_cpus(), "GPU": torch.cuda.device_count()}]


def _logical_cpus() -> int:
    return max(8, LOGICAL_CPUS_PER_CORE * cores())


def resources(
    runtime: RuntimeConfig, nodes: Sequence[Mapping[str, float]] | None = None
) -> Resources:
    """Fill in what the settings leave to us, from what the cluster has.

    Args:
        runtime: of the settings.
        nodes: CPU and GPU of every node; default those of the current Ray session.

    Raises:
        UsageError: the plan can never fit; Ray would wait for ever.
    """
    if nodes is None:
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    have = {kind: sum(node.get(kind, 0.0) for node in nodes) for kind in ("CPU", "GPU")}
    gpus_there = have["GPU"]
    gpus = min(1.0, gpus_there) if runtime.gpus_per_actor == "auto" else runtime.gpus_per_actor
    # A local session has more logical CPUs than cores, see `session`; a cluster means what it says.
    cpus = min(cores(), _spare(have)) if len(nodes) == 1 else _spare(have)
    if runtime.actors != "auto":
        actors = runtime.actors
    elif gpus:
        actors = max(1, int(gpus_there / gpus))
    else:
        actors = max(1, min(8, cpus // 2))
    wanted = runtime.threads_per_actor
    widest = int(max(node.get("CPU", 1) for node in nodes))
    threads = max(1, min(16, widest, cpus // actors)) if wanted == "auto" else wanted
    plan = Resources(actors, gpus, threads)
    _require(plan, nodes)
    return plan


def _spare(have: dict[str, float]) -> int:
    return int(have.get("CPU", 1)) - OTHER_CPUS


def _require(plan: Resources, nodes: Sequence[Mapping[str, float]]) -> None:
    """Refuse what can never be placed: Ray would wait for ever and not say so."""
    cpus, gpus = (sum(node.get(kind, 0) for node in nodes) for kind in ("CPU", "GPU"))
    if plan.gpus * plan.actors > gpus:
        raise UsageError(
            f"runtime: {plan.actors} actors x {plan.gpus:g} GPUs, the cluster has {gpus:g}. Lower "
            "runtime.actors or runtime.gpus_per_actor."
        )
    if plan.cpus * plan.actors + OTHER_CPUS > cpus:
        raise UsageError(
            f"runtime: {plan.actors} actors x {plan.cpus} CPUs and {OTHER_CPUS} for reading, "
            f"writing and resuming make {plan.cpus * plan.actors + OTHER_CPUS}; the cluster has "
            f"{cpus:g} logical CPUs. Lower runtime.actors or runtime.threads_per_actor, or start "
            "Ray with more --num-cpus."
        )
    if not any(n.get("CPU", 0) >= plan.cpus and n.get("GPU", 0) >= plan.gpus for n in nodes):
        raise UsageError(
            f"runtime: no node has the {plan.cpus} CPUs and {plan.gpus:g} GPUs of one actor. Lower "
            "runtime.threads_per_actor or runtime.gpus_per_actor."
        )


def _object_store_bytes() -> int:
    free = int(psutil.virtual_memory().available)
    return max(128 * 2**20, min(OBJECT_STORE_MOST, int(free * OBJECT_STORE_SHARE)))
