"""How the work is spread: replicas, their GPUs and threads, from what the nodes have."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.config import ActorRange, RuntimeConfig
from pipeline.errors import UsageError
from pipeline.machine import cores

BLOCK_BYTES = 32 * 2**20
"""Of the blocks that Ray Data hands from stage to stage, about."""
OTHER_CPUS = 2  # a reader and a writer
_MOST_CPU_ACTORS = 8
_MOST_THREADS = 16
_EXACT = 1e-6
Node = Mapping[str, float]
"""CPU and GPU of one node."""


@dataclass(frozen=True)
class Resources:
    """What the replicas of the model get.

    Attributes:
        actors: number of replicas, at most.
        gpus: GPUs of each, 0 for CPU.
        threads: CPU threads of each.
        least: replicas to start with; None for a pool of fixed size.
    """

    actors: int
    gpus: float
    threads: int
    least: int | None = None

    @property
    def device(self) -> str:
        """torch device of a replica."""
        return "cuda" if self.gpus else "cpu"

    @property
    def cpus(self) -> int:
        """Logical CPUs a replica reserves; Ray gives it as many torch threads."""
        return 1 if self.gpus else self.threads

    @property
    def needed(self) -> int:
        """Replicas that must fit."""
        return self.actors if self.least is None else self.least

    @property
    def bundles(self) -> list[dict[str, float]]:
        """What must fit, one by one, as Ray's autoscaler is asked for it."""
        replica = {"CPU": float(self.cpus)} | ({"GPU": self.gpus} if self.gpus else {})
        return [replica] * self.needed + [{"CPU": 1.0}] * OTHER_CPUS


def resources(
    runtime: RuntimeConfig, nodes: Sequence[Node], maxima: Node | None = None
) -> Resources:
    """Fill in what the settings leave to us.

    Args:
        runtime: of the settings.
        nodes: CPU and GPU of every node there is.
        maxima: CPU and GPU that an autoscaling cluster may grow to; None where it does not.

    Raises:
        UsageError: the plan can never fit; Ray would wait for ever.
    """
    have = total(nodes)
    could = {kind: max(have[kind], (maxima or {}).get(kind, 0.0)) for kind in have}
    gpus = min(1.0, could["GPU"]) if runtime.gpus_per_actor == "auto" else runtime.gpus_per_actor
    # A local session has more logical CPUs than cores, see `session`; a cluster means what it says.
    spare = int(could["CPU"]) - OTHER_CPUS
    cpus = min(cores(), spare) if len(nodes) == 1 and maxima is None else spare
    least = None
    if isinstance(runtime.actors, ActorRange):
        least, actors = runtime.actors.min, runtime.actors.max
    elif runtime.actors != "auto":
        actors = runtime.actors
    elif gpus:
        actors = max(1, places(gpus, nodes) or places(gpus, [could]))
    else:
        actors = max(1, min(_MOST_CPU_ACTORS, cpus // 2))
    widest = int(max((node.get("CPU", 1) for node in nodes), default=1))
    wanted = runtime.threads_per_actor
    threads = max(1, min(_MOST_THREADS, widest, cpus // actors)) if wanted == "auto" else wanted
    plan = Resources(actors, gpus, threads, least)
    missing = lack(plan, nodes, maxima)
    if missing is not None:
        raise UsageError(missing)
    return plan


def total(nodes: Sequence[Node]) -> dict[str, float]:
    """CPU and GPU of all nodes together."""
    return {kind: sum(node.get(kind, 0.0) for node in nodes) for kind in ("CPU", "GPU")}


def places(gpus: float, nodes: Sequence[Node]) -> int:
    """How many replicas with so many GPUs fit; Ray never spreads a fraction over two GPUs."""
    if gpus >= 1:
        return sum(int(node.get("GPU", 0) / gpus + _EXACT) for node in nodes)
    return sum(int(node.get("GPU", 0)) * int(1 / gpus + _EXACT) for node in nodes)


def lack(plan: Resources, nodes: Sequence[Node], maxima: Node | None = None) -> str | None:
    """What a plan lacks, and what to do about it; None where it fits."""
    have = total(nodes)
    could = {kind: max(have[kind], (maxima or {}).get(kind, 0.0)) for kind in have}
    whose = "the cluster has" if maxima is None else "the cluster may grow to"
    if plan.gpus:
        room = max(places(plan.gpus, nodes), 0 if maxima is None else places(plan.gpus, [could]))
        if plan.needed > room:
            return (
                f"runtime: {plan.needed} actors x {plan.gpus:g} GPUs, {whose} {could['GPU']:g} GPUs"
                f" with room for {room}. Lower runtime.actors or runtime.gpus_per_actor (0: without"
                " GPUs), add nodes, or give them time: --wait-resources 600."
            )
    cpus = plan.cpus * plan.needed + OTHER_CPUS
    if cpus > could["CPU"]:
        return (
            f"runtime: {plan.needed} actors x {plan.cpus} CPUs and {OTHER_CPUS} for reading "
            f"and writing make {cpus}; {whose} {could['CPU']:g} logical CPUs. Lower "
            "runtime.actors or runtime.threads_per_actor, start Ray with more --num-cpus, or give "
            "nodes time: --wait-resources 600."
        )
    if maxima is None and not any(
        node.get("CPU", 0) >= plan.cpus and node.get("GPU", 0) >= plan.gpus for node in nodes
    ):
        return (
            f"runtime: no node has the {plan.cpus} CPUs and {plan.gpus:g} GPUs of one actor. Lower "
            "runtime.threads_per_actor or runtime.gpus_per_actor."
        )
    return None
