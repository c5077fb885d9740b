"""Checks before the model loads: of the source, of the output, and on a cluster of every node."""

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from uuid import uuid4

from pipeline.cluster import each_node
from pipeline.cluster.nodes import Finding, Node, nodes
from pipeline.cluster.resources import BLOCK_BYTES, Resources, resources_of_cluster
from pipeline.cluster.session import on_cluster
from pipeline.config import RunConfig, RuntimeConfig
from pipeline.errors import UsageError, counted
from pipeline.runs.manifest import RunFolder
from pipeline.schema import Status
from pipeline.sources.datasource import ImageSource, open_source, read_rows
from pipeline.sources.input_rows import Row
from pipeline.sources.label_checks import first_label_notes, table_notes
from pipeline.sources.read_unit import Unit
from pipeline.storage.location import explain_failure, redact

SAMPLES = 8
_PROBE_BYTES = 2**16
BLOCKS_PER_ACTOR = 6
"""Blocks in the object store for each replica, including those that other stages work on. With room
for 3.75 blocks each, 8 replicas were busy 75 % of the time; with room for 6, 96 %
(``benchmarks/scale.py``)."""
DATA_SHARE = 0.5  # the share of the object store that Ray Data uses


def check_resources(runtime: RuntimeConfig) -> None:
    """Refuse a plan that the cluster has no room for, before the source is listed.

    If the run waits for nodes, it does so after the listing: a source that does not exist should
    be reported before.

    Raises:
        UsageError: the cluster lacks CPUs or GPUs for the plan.
    """
    if not runtime.wait_resources:
        resources_of_cluster(runtime)


def check_output(folder: RunFolder) -> None:
    """Write a small file into the output and delete it.

    Raises:
        UsageError: the file cannot be written or deleted.
    """
    probe = folder.root.child("_run", f"probe-{uuid4().hex[:8]}")  # other drivers may probe, too
    try:
        probe.write(bytes(_PROBE_BYTES))
        probe.delete()
    except UsageError as error:
        if not isinstance(error.__cause__, Exception):
            raise
        raise explain_failure(folder.uri, error.__cause__) from error  # name the user's location


def check_source(source: ImageSource, maps: str = "all") -> tuple[str, ...]:
    """Read the first samples of a shard and compare them with the settings.

    If the storage refuses the first shard, the middle and the last one are tried.

    Args:
        source: the source.
        maps: the mode of ``store.maps``.

    Returns:
        Notes for the user.

    Raises:
        UsageError: nothing can be read, or the settings name something that the samples lack.
    """
    units = source.units
    for unit in (units[0], units[len(units) // 2], units[-1]):
        rows = list(islice(read_rows(source.source, unit), SAMPLES))
        readable = [row for row in rows if row["status"] != Status.READ_ERROR]
        if readable or not rows:
            return _compare_with_settings(source, unit.name, readable, maps)
    raise UsageError(
        f"{', '.join(map(redact, source.source.uris))}: nothing can be read: {rows[0]['error']}"
    )


def _compare_with_settings(
    source: ImageSource, name: str, rows: Sequence[Row], maps: str
) -> tuple[str, ...]:
    config = source.source
    where = f"the first samples of {name} ({len(rows)})"
    if rows and all(row["status"] == Status.NO_IMAGE for row in rows):
        if config.format != "webdataset":  # elsewhere a wrong column was refused before
            return (f"source: {where} hold no image",)
        field = config.image_field
        lack = "hold no image" if field is None else f"have no field {field!r} (image_field)"
        raise UsageError(f"source: {where} {lack}; {rows[0]['error']}")
    rows = [row for row in rows if row["status"] == Status.OK]
    if not rows:
        return ()
    labels_elsewhere = config.labels is not None or config.label_names is not None
    label_expected = "label_field" in config.model_fields_set and not labels_elsewhere
    if label_expected and all(row["label"] is None and row["labels"] is None for row in rows):
        raise UsageError(
            f"source.label_field: {where} have no {config.label_field!r}. Name the field that "
            "holds the label, or leave label_field out."
        )
    empty = [column for column in config.carry if all(row.get(column) is None for row in rows)]
    unmatched, sets = table_notes(source, rows), first_label_notes(maps, rows)
    if unmatched and config.format == "folder":  # elsewhere further images may be in the table
        raise UsageError(unmatched[0])
    return (*unmatched, *sets, *(f"source.carry: {where} have no {column!r}" for column in empty))


def preflight(config: RunConfig, unit: Unit, tell: Callable[[str], None]) -> Resources:
    """Plan the replicas, and on a cluster check that every node can do its part of the run.

    Args:
        config: settings of the run.
        unit: part of its source to read a sample from.
        tell: called with a line of text before something that takes a while.

    Raises:
        UsageError: one line for each fault, with what to do.
    """
    plan = resources_of_cluster(config.runtime, tell)
    if not on_cluster():
        return plan
    members = nodes()
    tell(f"checking that {counted(len(members), 'node')} can read, write, and find the model")
    results = list(object_store(members, plan))
    if all(finding.good for finding in results):  # the checks that take longer come last
        results += each_node.findings(config, unit)
    faults = [finding for finding in results if not finding.good]
    if faults:
        lines = [f"{finding.check}: {finding.text}" for finding in faults]
        found = f"the cluster is not ready, {counted(len(faults), 'fault')}"
        raise UsageError("\n  ".join([found, *lines]))
    return plan


def findings(config: RunConfig | None) -> Iterator[Finding]:
    """The checks of a cluster, one after the other, for ``legrad doctor``.

    Args:
        config: settings of a run; None for only the checks that need none.

    Raises:
        UsageError: the source cannot be listed from here.
    """
    members = nodes()
    for node in members:
        text = (
            f"{node}: {node.cpus:g} logical CPUs, {node.gpus:g} GPUs, {node.memory / 2**30:.1f} "
            f"GiB, {node.object_store / 2**20:,.0f} MiB of object store"
        )
        yield Finding("node", True, text)
    if config is not None:
        try:
            plan = resources_of_cluster(config.runtime)
        except UsageError as error:
            yield Finding("resources", False, str(error))
        else:
            yield Finding("resources", True, str(plan))
            yield from object_store(members, plan)
    unit = None if config is None else open_source(config.source).units[0]
    yield from each_node.findings(config, unit)


def store_bytes(replicas: int) -> int:
    """Size of the object store, in bytes, that keeps so many replicas busy."""
    return round(BLOCK_BYTES * (BLOCKS_PER_ACTOR * replicas + 2) / DATA_SHARE)


def object_store(members: Sequence[Node], plan: Resources) -> Iterator[Finding]:
    """Compare the object stores with what the replicas need."""
    have = sum(node.object_store for node in members)
    need = store_bytes(plan.needed)
    text = (
        f"{_mib(have)} of object store; {plan.needed} actors need {_mib(need)} for blocks between "
        "the stages"
    )
    small = [node for node in members if node.cpus and node.object_store < 2 * BLOCK_BYTES]
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
