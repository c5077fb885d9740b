"""How work is spread over nodes, and what is refused because Ray would wait for ever."""

import pytest

from pipeline.cluster.resources import (
    OTHER_CPUS,
    Resources,
    missing_resources,
    plan_resources,
    replicas_that_fit,
)
from pipeline.config import RuntimeConfig
from pipeline.errors import UsageError


def runtime(**settings: object) -> RuntimeConfig:
    return RuntimeConfig.model_validate(settings)


def test_what_never_fits_is_said_with_what_to_do() -> None:
    assert missing_resources(Resources(actors=2, gpus=0, threads=2), [{"CPU": 8}]) is None
    for plan, nodes, words in (
        (Resources(2, 0, 4), [{"CPU": 8}], "2 actors x 4 CPUs and 2 .* make 10"),
        (Resources(2, 1, 1), [{"CPU": 8, "GPU": 1}], "2 actors x 1 GPUs, the cluster has 1 GPUs"),
        (Resources(1, 1, 1), [{"CPU": 8}], "has 0 GPUs .*gpus_per_actor \\(0: without GPUs\\)"),
        (Resources(1, 0, 4), [{"CPU": 3}] * 4, "no node has the 4 CPUs"),
    ):
        with pytest.raises(UsageError, match=words):
            raise UsageError(missing_resources(plan, nodes) or "")


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
def test_places_for_replicas(gpus: float, nodes: list[dict[str, float]], count: int) -> None:
    assert replicas_that_fit(gpus, nodes) == count


def test_auto_takes_every_gpu() -> None:
    nodes = [{"CPU": 16, "GPU": 4}, {"CPU": 16, "GPU": 4}]
    assert plan_resources(runtime(), nodes) == Resources(
        8, 1.0, plan_resources(runtime(), nodes).threads
    )
    assert plan_resources(runtime(gpus_per_actor=0.5), nodes).actors == 16
    assert plan_resources(runtime(gpus_per_actor=0), nodes).device == "cpu"


def test_a_pool_that_grows_needs_room_for_its_least() -> None:
    plan = plan_resources(runtime(actors={"min": 1, "max": 40}, threads_per_actor=2), [{"CPU": 8}])
    assert (plan.needed, plan.actors, plan.cpus) == (1, 40, 2)
    with pytest.raises(UsageError, match="9 actors"):
        plan_resources(runtime(actors={"min": 9, "max": 40}, threads_per_actor=2), [{"CPU": 8}])
    with pytest.raises(ValueError, match="min 3 is more than max 2"):
        runtime(actors={"min": 3, "max": 2})
    with pytest.raises(ValueError, match="a fraction of one, or whole ones"):
        runtime(gpus_per_actor=1.5)


def test_what_a_cluster_may_grow_to_counts() -> None:
    head, most = [{"CPU": 4.0}], {"CPU": 68.0, "GPU": 8.0}
    plan = plan_resources(runtime(), head, most)
    assert (plan.actors, plan.gpus) == (8, 1.0)
    assert missing_resources(plan, head) is not None
    assert plan.bundles == [{"CPU": 1.0, "GPU": 1.0}] * 8 + [{"CPU": 1.0}] * OTHER_CPUS
    with pytest.raises(UsageError, match="may grow to 8 GPUs"):
        plan_resources(runtime(actors=9), head, most)
