"""The nodes of the Ray session, a function called on each of them, and the result of a check."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

T = TypeVar("T")
ANSWER_SECONDS = 300.0  # the first task on a fresh node may take a minute


@dataclass(frozen=True)
class Finding:
    """The result of one check, printed as one line.

    Attributes:
        check: name of the check.
        good: whether the check passed.
        text: the result, and if it is not good, what to do.
    """

    check: str
    good: bool
    text: str


@dataclass(frozen=True)
class Node:
    """One node of the cluster; several nodes may share a machine.

    Attributes:
        id: Ray's node id.
        address: address of the machine.
        cpus, gpus: logical CPUs and GPUs.
        memory, object_store: in bytes.
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
        """CPU and GPU, as `pipeline.cluster.resources` expects them."""
        return {"CPU": self.cpus, "GPU": self.gpus}


def nodes() -> list[Node]:
    """The nodes that are alive, the largest first."""
    alive = [_node(entry) for entry in ray.nodes() if entry["Alive"]]
    return sorted(alive, key=lambda node: (-node.gpus, -node.cpus, node.address, node.id))


def _node(entry: dict[str, Any]) -> Node:
    resources = entry["Resources"]
    return Node(
        id=entry["NodeID"],
        address=entry["NodeManagerAddress"],
        cpus=resources.get("CPU", 0.0),
        gpus=resources.get("GPU", 0.0),
        memory=int(resources.get("memory", 0)),
        object_store=int(resources.get("object_store_memory", 0)),
    )


def ask_each(
    nodes: Sequence[Node], question: Callable[..., T], *arguments: Any
) -> list[tuple[Node, T | Exception]]:
    """Call a function once on every node, at the same time.

    Returns:
        Each node with the function's result, or with the error that it raised there.
    """
    if not nodes:
        return []  # `ray.wait` refuses to wait for nothing
    remote = ray.remote(num_cpus=0, max_retries=0)(question)
    references = [
        remote.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False)
        ).remote(*arguments)
        for node in nodes
    ]
    ray.wait(references, num_returns=len(references), timeout=ANSWER_SECONDS)
    return [(node, _answer(ref)) for node, ref in zip(nodes, references, strict=True)]


def _answer(reference: Any) -> Any:
    try:
        return ray.get(reference, timeout=0)
    except ray.exceptions.GetTimeoutError:
        return TimeoutError(f"no answer within {ANSWER_SECONDS:.0f} s")
    except ray.exceptions.RayTaskError as error:
        return error.cause
    except ray.exceptions.RayError as error:
        return error
