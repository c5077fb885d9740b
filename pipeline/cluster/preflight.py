"""All checks in their order; the cheap ones first."""

from collections.abc import Callable, Iterator

from pipeline.cluster import each_node
from pipeline.cluster import fit as resources
from pipeline.cluster import node_memory as memory
from pipeline.cluster.finding import Finding
from pipeline.cluster.nodes import nodes
from pipeline.cluster.resources import Resources
from pipeline.cluster.session import on_cluster
from pipeline.config import RunConfig, RuntimeConfig
from pipeline.errors import UsageError


def refuse_what_never_fits(runtime: RuntimeConfig) -> None:
    """The first of the checks, alone: it takes no time, and needs no source.

    Where nodes are waited for, that comes after the listing; a source that is not there should not
    wait for them.

    Raises:
        UsageError: the cluster lacks CPUs or GPUs for the plan.
    """
    if not runtime.wait_resources:
        resources.place(runtime)


def preflight(config: RunConfig, tell: Callable[[str], None] = lambda text: None) -> Resources:
    """Spread the work over the nodes, and on a cluster ask every node whether it can do its part.

    Args:
        config: of the run.
        tell: told what takes a while.

    Raises:
        UsageError: with a line a fault, each with what to do.
    """
    plan = resources.place(config.runtime, tell)
    if not on_cluster():
        return plan
    some = nodes()
    tell(f"asking {len(some)} nodes whether they can read, write, and find the model")
    found = list(memory.object_store(some, plan))
    if all(finding.good for finding in found):
        found += each_node.findings(config)
    faults = [finding for finding in found if not finding.good]
    if faults:
        lines = [f"{finding.check}: {finding.text}" for finding in faults]
        raise UsageError("\n  ".join([f"the cluster is not ready, {len(faults)} fault(s)", *lines]))
    return plan


def findings(config: RunConfig | None) -> Iterator[Finding]:
    """All checks, told one by one; without a run those that need none."""
    some = nodes()
    for node in some:
        text = (
            f"{node}: {node.cpus:g} logical CPUs, {node.gpus:g} GPUs, {node.memory / 2**30:.1f} "
            f"GiB, {node.object_store / 2**20:,.0f} MiB of object store"
        )
        yield Finding("node", True, text)
    if config is not None:
        try:
            plan = resources.place(config.runtime)
        except UsageError as error:
            yield Finding("resources", False, str(error))
        else:
            yield resources.fits(plan)
            yield from memory.object_store(some, plan)
    yield from each_node.findings(config)
