"""Memory of the nodes for blocks on their way from stage to stage."""

from collections.abc import Iterator, Sequence

from pipeline.cluster.nodes import Finding, Node
from pipeline.cluster.resources import BLOCK_BYTES, Resources

BLOCKS_PER_ACTOR = 6
"""One at work, one next, the others in the making: Ray Data shares its room out among the stages,
and replicas need little of theirs. In a store for 3.75 each, 8 replicas were busy 75 % of the time,
for six each 96 % (``benchmarks/scale.py``)."""
DATA_SHARE = 0.5  # of the object store, which Ray Data allows itself


def store_bytes(replicas: int) -> int:
    """Of object store, for the blocks on their way to so many replicas."""
    return round(BLOCK_BYTES * (BLOCKS_PER_ACTOR * replicas + 2) / DATA_SHARE)


def object_store(nodes: Sequence[Node], plan: Resources) -> Iterator[Finding]:
    """Room for decoded pixels in flight."""
    have = sum(node.object_store for node in nodes)
    need = store_bytes(plan.needed)
    text = (
        f"{_mib(have)} of object store; {plan.needed} actors want {_mib(need)} for blocks on "
        "their way"
    )
    small = [node for node in nodes if node.cpus and node.object_store < 2 * BLOCK_BYTES]
    if small:
        yield Finding(
            "object store",
            False,
            f"{small[0]} has {_mib(small[0].object_store)}, less than two blocks of "
            f"{_mib(BLOCK_BYTES)}. Start Ray there with more --object-store-memory.",
        )
    elif have < need:
        yield Finding("object store", True, f"{text}: with less, replicas wait for blocks")
    else:
        yield Finding("object store", True, text)


def _mib(count: int) -> str:
    return f"{count / 2**20:,.0f} MiB"
