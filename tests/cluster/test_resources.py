"""How replicas are spread over nodes, which plans are refused, and the wait for more nodes."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain, repeat

import pytest
import ray

from pipeline.cluster import resources
from pipeline.cluster.nodes import Node
from pipeline.cluster.resources import (
    OTHER_CPUS,
    Resources,
    missing_resources,
    plan_resources,
    replicas_that_fit,
    resources_of_cluster,
)
from pipeline.config import RuntimeConfig
from pipeline.errors import UsageError


def runtime(**settings: object) -> RuntimeConfig:
    return RuntimeConfig.model_validate(settings)


@pytest.mark.parametrize(
    ("plan", "nodes", "words"),
    [
        (Resources(2, 0, 4), [{"CPU": 8}], "4 CPUs .* make 10; .* 8 logical .*threads_per_actor"),
        (Resources(2, 1, 1), [{"CPU": 8, "GPU": 1}], "2 actors x 1 GPUs, .* 1 GPUs .*for 1"),
        (Resources(1, 1, 1), [{"CPU": 8}], "has 0 GPUs .*gpus_per_actor"),
        (Resources(1, 0, 4), [{"CPU": 3}] * 4, "no node .* 4 CPUs .*threads_per_actor"),
    ],
)
def test_a_plan_that_never_fits(plan: Resources, nodes: list[dict[str, float]], words: str) -> None:
    assert re.search(words, missing_resources(plan, nodes) or "")


def test_a_plan_that_fits() -> None:
    assert missing_resources(Resources(actors=2, gpus=0, threads=2), [{"CPU": 8}]) is None


@pytest.mark.parametrize(
    ("gpus", "nodes", "count"),
    [
        (0.5, [{"GPU": 1}], 2),
        (0.4, [{"GPU": 2}], 4),  # 0.2 of each GPU stays free: a fraction is of one GPU
        (1 / 3, [{"GPU": 1}, {"GPU": 1}], 6),
        (2, [{"GPU": 3}, {"GPU": 1}], 1),
        (1, [{"CPU": 4}], 0),
    ],
)
def test_replicas_that_fit(gpus: float, nodes: list[dict[str, float]], count: int) -> None:
    assert replicas_that_fit(gpus, nodes) == count


def test_auto_takes_every_gpu() -> None:
    nodes = [{"CPU": 16, "GPU": 4}, {"CPU": 16, "GPU": 4}]
    plan = plan_resources(runtime(), nodes)
    assert (plan.actors, plan.gpus, plan.min_actors) == (8, 1.0, None)
    assert plan_resources(runtime(gpus_per_actor=0.5), nodes).actors == 16
    assert plan_resources(runtime(gpus_per_actor=0), nodes).device == "cpu"


def test_a_pool_that_grows_needs_room_for_its_least() -> None:
    plan = plan_resources(runtime(actors={"min": 1, "max": 40}, threads_per_actor=2), [{"CPU": 8}])
    assert (plan.needed, plan.actors, plan.cpus) == (1, 40, 2)
    with pytest.raises(UsageError, match="9 actors"):
        plan_resources(runtime(actors={"min": 9, "max": 40}, threads_per_actor=2), [{"CPU": 8}])
    with pytest.raises(ValueError, match="min 3"):
        runtime(actors={"min": 3, "max": 2})
    with pytest.raises(ValueError, match=r"gpus_per_actor 1\.5"):
        runtime(gpus_per_actor=1.5)


def test_what_a_cluster_may_grow_to_counts() -> None:
    head, most = [{"CPU": 4.0}], {"CPU": 68.0, "GPU": 8.0}
    plan = plan_resources(runtime(), head, most)
    assert (plan.actors, plan.gpus) == (8, 1.0)
    assert missing_resources(plan, head) is not None
    assert plan.bundles == [{"CPU": 1.0, "GPU": 1.0}] * 8 + [{"CPU": 1.0}] * OTHER_CPUS
    with pytest.raises(UsageError, match="may grow to 8 GPUs"):
        plan_resources(runtime(actors=9), head, most)


@dataclass
class Cluster:
    """A cluster that has these nodes, one entry per look, and later those of the last entry."""

    looks: list[list[Node]]
    requests: list[list[dict[str, float]]] = field(default_factory=list)
    seconds: float = 0.0

    def __post_init__(self) -> None:
        self.left: Iterator[list[Node]] = chain(self.looks, repeat(self.looks[-1]))

    def nodes(self) -> list[Node]:
        return next(self.left)

    def request(self, bundles: list[dict[str, float]]) -> None:
        self.requests.append(bundles)

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds


def gpu_nodes(count: int) -> list[Node]:
    head = Node("head", "10.0.0.1", 4, 0, 2**33, 2**30)
    return [head, *(Node(f"gpu{n}", f"10.0.1.{n}", 16, 1, 2**33, 2**30) for n in range(count))]


def watch(
    looks: list[list[Node]], maxima: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> Cluster:
    cluster = Cluster(looks)
    monkeypatch.setattr(resources, "nodes", cluster.nodes)
    monkeypatch.setattr(resources, "autoscaler_maxima", lambda: maxima)
    monkeypatch.setattr(ray.autoscaler.sdk, "request_resources", cluster.request)
    monkeypatch.setattr(resources.time, "sleep", cluster.sleep)
    monkeypatch.setattr(resources.time, "monotonic", lambda: cluster.seconds)
    return cluster


MOST = {"CPU": 68.0, "GPU": 4.0}
WAITING = {"actors": 2, "gpus_per_actor": 1, "wait_resources": 60}


def test_an_autoscaler_is_asked_once_and_the_request_withdrawn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cluster = watch([gpu_nodes(0), gpu_nodes(1), gpu_nodes(2)], MOST, monkeypatch)
    messages: list[str] = []
    plan = resources_of_cluster(runtime(**WAITING), messages.append)
    assert (plan.actors, plan.gpus) == (2, 1.0)
    assert cluster.requests == [plan.bundles, []]
    assert 0 < cluster.seconds < 60
    assert len(messages) == 1


def test_nodes_that_do_not_come_in_time_end_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = watch([gpu_nodes(1)], MOST, monkeypatch)
    with pytest.raises(UsageError, match=r"2 actors x 1 GPUs, .* 1 GPUs"):
        resources_of_cluster(runtime(**WAITING))
    assert 60 <= cluster.seconds < 70
    assert cluster.requests[1:] == [[]]


def test_nodes_that_join_a_fixed_cluster_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = watch([gpu_nodes(0), gpu_nodes(0), gpu_nodes(2)], {}, monkeypatch)
    assert resources_of_cluster(runtime(**WAITING)).actors == 2
    assert cluster.requests == []


@pytest.mark.parametrize("seconds", [0, 60])
def test_nothing_is_waited_for_that_is_present(
    seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = watch([gpu_nodes(2)], MOST, monkeypatch)
    assert resources_of_cluster(runtime(**WAITING | {"wait_resources": seconds})).actors == 2
    assert (cluster.seconds, cluster.requests) == (0, [])


def test_without_a_wait_a_plan_that_the_cluster_may_grow_to_is_taken_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cluster = watch([gpu_nodes(0)], MOST, monkeypatch)
    assert resources_of_cluster(runtime(**WAITING | {"wait_resources": 0})).actors == 2
    watch([gpu_nodes(0)], {}, monkeypatch)
    with pytest.raises(UsageError, match="0 GPUs"):
        resources_of_cluster(runtime(**WAITING | {"wait_resources": 0}))
    assert cluster.seconds == 0
