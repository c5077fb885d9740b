"""Checks that the nodes' object stores have room for the blocks between the stages."""

from collections.abc import Iterator, Sequence

from pipeline.cluster.nodes import Finding, Node
from pipeline.cluster.resources import BLOCK_BYTES, Resources

BLOCKS_PER_ACTOR = 6
"""Blocks in the object store for each replica, including those that other stages work on. With room
for 3.75 blocks each, 8 replicas were busy 75 % of the time; with room for 6, 96 %
(``benchmarks/scale.py``)."""
DATA_SHARE = 0.5  # the share of the object store that Ray Data uses


def store_bytes(replicas: int) -> int:
    """Size of the object store, in bytes, that keeps so many replicas busy."""
    return round(BLOCK_BYTES * (BLOCKS_PER_ACTOR * replicas + 2) / DATA_SHARE)


def object_store(nodes: Sequence[Node], plan: Resources) -> Iterator[Finding]:
    """Compare the object stores with what the replicas need."""
    have = sum(node.object_store for node in nodes)
    need = store_bytes(plan.needed)
    text = (
        f"{_mib(have)} of object store; {plan.needed} actors need {_mib(need)} for blocks between "
        "the stages"
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
