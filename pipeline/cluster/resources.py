"""CPUs and GPUs of the model replicas, and waiting for the nodes that have them.

Ray would wait silently, and for ever, for resources that never come; a plan that does not fit is
refused here.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import ray

from pipeline.cluster.nodes import nodes
from pipeline.cluster.ray_internals import autoscaler_maxima
from pipeline.config import ActorRange, RuntimeConfig
from pipeline.errors import UsageError
from pipeline.machine import cores

BLOCK_BYTES = 32 * 2**20
"""Approximate size of a Ray Data block, in bytes."""
OTHER_CPUS = 2
"""Logical CPUs for tasks beside the replicas: one that reads or decodes, and one that writes."""
_MOST_CPU_ACTORS = 8
_MOST_THREADS = 16
_ROUNDING = 1e-6
_POLL_SECONDS = 2.0
NodeResources = Mapping[str, float]
"""CPU and GPU of one node, by Ray's names."""


@dataclass(frozen=True)
class Resources:
    """CPUs and GPUs of the model replicas.

    Attributes:
        actors: largest number of replicas.
        gpus: GPUs of each replica, 0 for CPU.
        threads: CPU threads of each replica.
        min_actors: number of replicas to start with; None for a pool of fixed size.
    """

    actors: int
    gpus: float
    threads: int
    min_actors: int | None = None

    @property
    def device(self) -> str:
        """torch device of a replica."""
        return "cuda" if self.gpus else "cpu"

    @property
    def cpus(self) -> int:
        """Logical CPUs that a replica reserves; Ray gives it as many torch threads."""
        return 1 if self.gpus else self.threads

    @property
    def needed(self) -> int:
        """Number of replicas that must fit at the start."""
        return self.actors if self.min_actors is None else self.min_actors

    @property
    def bundles(self) -> list[dict[str, float]]:
        """Resources that must fit at the start, one entry per process."""
        replica = {"CPU": float(self.cpus)} | ({"GPU": self.gpus} if self.gpus else {})
        return [replica] * self.needed + [{"CPU": 1.0}] * OTHER_CPUS

    def __str__(self) -> str:
        each = f"{self.gpus:g} GPUs" if self.gpus else f"{self.threads} CPUs"
        pool = "" if self.min_actors is None else f"{self.min_actors} to "
        return f"{pool}{self.actors} actors x {each}"


def plan_resources(
    runtime: RuntimeConfig, nodes: Sequence[NodeResources], maxima: NodeResources | None = None
) -> Resources:
    """Choose the settings that are ``auto``, and check that the plan fits.

    Args:
        runtime: the settings.
        nodes: CPU and GPU of every node that is present.
        maxima: CPU and GPU that an autoscaling cluster may grow to; None for a fixed cluster.

    Raises:
        UsageError: the plan can never fit.
    """
    largest = _largest(nodes, maxima)
    gpus = min(1.0, largest["GPU"]) if runtime.gpus_per_actor == "auto" else runtime.gpus_per_actor
    # A local session has more logical CPUs than cores, see `session`; a cluster's are real.
    spare = int(largest["CPU"]) - OTHER_CPUS
    cpus = min(cores(), spare) if len(nodes) == 1 and maxima is None else spare
    min_actors = None
    if isinstance(runtime.actors, ActorRange):
        min_actors, actors = runtime.actors.min, runtime.actors.max
    elif runtime.actors != "auto":
        actors = runtime.actors
    elif gpus:
        actors = max(1, replicas_that_fit(gpus, nodes) or replicas_that_fit(gpus, [largest]))
    else:
        actors = max(1, min(_MOST_CPU_ACTORS, cpus // 2))
    widest = int(max((node.get("CPU", 1) for node in nodes), default=1))
    automatic = max(1, min(_MOST_THREADS, widest, cpus // actors))
    threads = automatic if runtime.threads_per_actor == "auto" else runtime.threads_per_actor
    plan = Resources(actors, gpus, threads, min_actors)
    missing = missing_resources(plan, nodes, maxima)
    if missing is not None:
        raise UsageError(missing)
    return plan


def _largest(nodes: Sequence[NodeResources], maxima: NodeResources | None) -> dict[str, float]:
    """CPU and GPU of the whole cluster, at the size that it has or may grow to."""
    total = {kind: sum(node.get(kind, 0.0) for node in nodes) for kind in ("CPU", "GPU")}
    return {kind: max(count, (maxima or {}).get(kind, 0.0)) for kind, count in total.items()}


def replicas_that_fit(gpus: float, nodes: Sequence[NodeResources]) -> int:
    """Number of replicas of so many GPUs that fit; Ray never spreads a fraction over two GPUs."""
    if gpus >= 1:
        return sum(int(node.get("GPU", 0) / gpus + _ROUNDING) for node in nodes)
    return sum(int(node.get("GPU", 0)) * int(1 / gpus + _ROUNDING) for node in nodes)


def missing_resources(
    plan: Resources, nodes: Sequence[NodeResources], maxima: NodeResources | None = None
) -> str | None:
    """Describe what a plan lacks and what to do about it; None if it fits."""
    largest = _largest(nodes, maxima)
    cluster = "the cluster has" if maxima is None else "the cluster may grow to"
    if plan.gpus:
        fitting = replicas_that_fit(plan.gpus, nodes)
        if maxima is not None:
            fitting = max(fitting, replicas_that_fit(plan.gpus, [largest]))
        if plan.needed > fitting:
            return (
                f"runtime: {plan.needed} actors x {plan.gpus:g} GPUs, {cluster} "
                f"{largest['GPU']:g} GPUs with room for {fitting}. Lower runtime.actors or "
                "runtime.gpus_per_actor (0: without GPUs), add nodes, or wait for them: "
                "--wait-resources 600."
            )
    cpus = plan.cpus * plan.needed + OTHER_CPUS
    if cpus > largest["CPU"]:
        return (
            f"runtime: {plan.needed} actors x {plan.cpus} CPUs and {OTHER_CPUS} for reading and "
            f"writing make {cpus}; {cluster} {largest['CPU']:g} logical CPUs. Lower "
            "runtime.actors or runtime.threads_per_actor, start Ray with more --num-cpus, or wait "
            "for nodes: --wait-resources 600."
        )
    if maxima is None and not any(
        node.get("CPU", 0) >= plan.cpus and node.get("GPU", 0) >= plan.gpus for node in nodes
    ):
        return (
            f"runtime: no node has the {plan.cpus} CPUs and {plan.gpus:g} GPUs of one actor. Lower "
            "runtime.threads_per_actor or runtime.gpus_per_actor."
        )
    return None


def resources_of_cluster(
    runtime: RuntimeConfig, tell: Callable[[str], None] = lambda text: None
) -> Resources:
    """Plan the replicas for the nodes of the current Ray session.

    A cluster that grows counts at the size that it may grow to. With ``runtime.wait_resources``
    an autoscaler is asked for the nodes, and the function returns when they are there.

    Args:
        runtime: the settings.
        tell: called with a line of text before a wait.

    Raises:
        UsageError: the plan does not fit, or the nodes did not come in time.
    """
    plan, missing = _plan_now(runtime)
    if not runtime.wait_resources:
        if plan is None:
            raise UsageError(str(missing))
        return plan
    if missing is not None:
        tell(f"waiting up to {runtime.wait_resources:.0f} s for nodes. {missing}")
    end, requested = time.monotonic() + runtime.wait_resources, False
    try:
        while plan is None or missing is not None:
            if time.monotonic() >= end:
                raise UsageError(str(missing))
            if plan is not None and not requested:
                ray.autoscaler.sdk.request_resources(bundles=plan.bundles)
                requested = True
            time.sleep(_POLL_SECONDS)
            plan, missing = _plan_now(runtime)
    finally:
        if requested:
            ray.autoscaler.sdk.request_resources(bundles=[])
    return plan


def _plan_now(runtime: RuntimeConfig) -> tuple[Resources | None, str | None]:
    """The plan, None if it can never fit, and what the nodes that are present lack."""
    present = [node.resources for node in nodes()]
    try:
        plan = plan_resources(runtime, present, autoscaler_maxima() or None)
    except UsageError as error:
        return None, str(error)
    return plan, missing_resources(plan, present)
