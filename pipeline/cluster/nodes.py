"""The nodes of the Ray session, and questions that are put to each."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipeline.cluster.ray_internals import autoscaler_maxima

T = TypeVar("T")
ANSWER_SECONDS = 300.0  # the first task on a fresh node may take a minute


@dataclass(frozen=True)
class Node:
    """One machine, or one raylet of it.

    Attributes:
        id: Ray's.
        address: of the machine.
        cpus, gpus: logical.
        memory, object_store: bytes.
    """

    id: str
    address: str
    cpus: float
    gpus: float
    memory: int
    object_store: int

    def __str__(self) -> str:
        return f"{self.address} ({self.id[:6]})"

    @property
    def resources(self) -> dict[str, float]:
        """As `pipeline.cluster.resources` wants it."""
        return {"CPU": self.cpus, "GPU": self.gpus}


def nodes() -> list[Node]:
    """All that are alive, the largest first."""
    found = [_node(entry) for entry in ray.nodes() if entry["Alive"]]
    return sorted(found, key=lambda node: (-node.gpus, -node.cpus, node.address, node.id))


def _node(entry: dict[str, Any]) -> Node:
    have = entry["Resources"]
    return Node(
        id=entry["NodeID"],
        address=entry["NodeManagerAddress"],
        cpus=have.get("CPU", 0.0),
        gpus=have.get("GPU", 0.0),
        memory=int(have.get("memory", 0)),
        object_store=int(have.get("object_store_memory", 0)),
    )


def maxima() -> dict[str, float] | None:
    """CPU and GPU that an autoscaling cluster may grow to; None for one that does not."""
    most = autoscaler_maxima()
    return {kind: float(most.get(kind, 0.0)) for kind in ("CPU", "GPU")} if most else None


def ask_each(
    some: list[Node], question: Callable[..., T], *arguments: Any
) -> list[tuple[Node, T | Exception]]:
    """Call a function once on every node, at the same time.

    Returns:
        Its result by node, or what was raised there.
    """
    remote = ray.remote(num_cpus=0, max_retries=0)(question)
    asked = [
        remote.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False)
        ).remote(*arguments)
        for node in some
    ]
    ray.wait(asked, num_returns=len(asked), timeout=ANSWER_SECONDS)
    return [(node, _answer(answer)) for node, answer in zip(some, asked, strict=True)]


def _answer(answer: Any) -> Any:
    try:
        return ray.get(answer, timeout=0)
    except ray.exceptions.GetTimeoutError:
        return TimeoutError(f"no answer within {ANSWER_SECONDS:.0f} s")
    except ray.exceptions.RayTaskError as error:
        return error.cause
    except ray.exceptions.RayError as error:
        return error
