"""CPUs and GPUs: Ray itself waits without a word for what never comes."""

import time
from collections.abc import Callable

import ray

from pipeline.cluster.finding import Finding
from pipeline.cluster.nodes import maxima, nodes
from pipeline.cluster.resources import Resources, lack, resources
from pipeline.config import RuntimeConfig
from pipeline.errors import UsageError

_LOOK_SECONDS = 2.0


def place(runtime: RuntimeConfig, tell: Callable[[str], None] = lambda text: None) -> Resources:
    """Spread the work over the nodes, once they are there.

    What an autoscaling cluster may grow to counts. With ``runtime.wait_resources`` the nodes
    themselves are waited for, and an autoscaler is asked for them.

    Args:
        runtime: of the settings.
        tell: told that it waits.

    Raises:
        UsageError: the plan does not fit, in time.
    """
    end = time.monotonic() + runtime.wait_resources
    grows, asked = maxima(), False
    while True:
        there = [node.resources for node in nodes()]
        try:
            plan = resources(runtime, there, grows)
        except UsageError as error:
            missing, needed = str(error), None
        else:
            missing, needed = lack(plan, there) or "", plan
        if needed is not None and not (missing and runtime.wait_resources):
            _release(asked)
            return needed
        if time.monotonic() >= end:
            _release(asked)
            raise UsageError(missing)
        if not asked:
            tell(f"waiting up to {runtime.wait_resources:.0f} s for nodes. {missing}")
            asked = _request(needed)
        time.sleep(_LOOK_SECONDS)


def _request(plan: Resources | None) -> bool:
    """Ask the autoscaler for room; without one nobody listens."""
    if plan is None:
        return False
    ray.autoscaler.sdk.request_resources(bundles=plan.bundles)
    return True


def _release(asked: bool) -> None:
    if asked:
        ray.autoscaler.sdk.request_resources(bundles=[])


def fits(plan: Resources) -> Finding:
    """A plan that has room, in a line."""
    each = f"{plan.gpus:g} GPUs" if plan.gpus else f"{plan.threads} CPUs"
    pool = f"{plan.actors}" if plan.least is None else f"{plan.least} to {plan.actors}"
    return Finding("resources", True, f"{pool} actors x {each}")
