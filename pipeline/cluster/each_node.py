"""What every node must be able to do alone: run these versions, read, write, find the model."""

import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from itertools import islice
from uuid import uuid4

import ray

from pipeline.cluster.finding import Finding
from pipeline.cluster.model_files import ModelAnswer, ask_for_model, model_findings
from pipeline.cluster.nodes import Node, ask_each, nodes
from pipeline.config import RunConfig
from pipeline.errors import UsageError
from pipeline.runs.manifest import SOFTWARE, RunFolder, run_folder
from pipeline.schema import Status
from pipeline.sources.datasource import open_source, read_rows
from pipeline.sources.read_unit import Unit
from pipeline.storage.location import redact

_NONE = "none"
_PLACES = (
    "On a cluster, source and output are in a bucket or on a disk that all nodes share, and all "
    "nodes have credentials (a role, or legrad submit --env NAME)."
)


@dataclass(frozen=True)
class NodeAnswer:
    """What a node said.

    Attributes:
        versions: of Python and our packages.
        read: why the source cannot be read there; None where it can.
        written: why the output cannot be written there; None where it can.
        model: of the weights.
    """

    versions: Mapping[str, str]
    read: str | None = None
    written: str | None = None
    model: ModelAnswer | None = None


def versions() -> dict[str, str]:
    """Of Python and the packages that make results, here."""
    found = {"python": platform.python_version()}
    for package in SOFTWARE:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = _NONE
    return found


def examine(config: RunConfig | None, unit: Unit | None, mark: str) -> NodeAnswer:
    """Asked on every node.

    Args:
        config: of the run; None: only the versions are told.
        unit: to be read from.
        mark: beginning of the name of the file to write into the output; the node's id is its end.
    """
    if config is None or unit is None:
        return NodeAnswer(versions())
    return NodeAnswer(
        versions(),
        read=_refused_reading(config, unit),
        written=_refused_writing(config, f"{mark}{ray.get_runtime_context().get_node_id()}"),
        model=ask_for_model(config.model),
    )


def _refused_reading(config: RunConfig, unit: Unit) -> str | None:
    try:
        rows = list(islice(read_rows(config.source, unit), 1))
    except (UsageError, OSError) as error:
        return f"{type(error).__name__}: {redact(str(error))}"
    failed = [str(row["error"]) for row in rows if row["status"] == Status.READ_ERROR]
    return redact(failed[0]) if failed else None


def _refused_writing(config: RunConfig, mark: str) -> str | None:
    try:
        run_folder(config.output, config.output_options).root.child("_run", mark).write(b"here")
    except UsageError as error:
        return redact(str(error))
    return None


def findings(config: RunConfig | None) -> Iterator[Finding]:
    """Ask every node, and say what is amiss.

    Args:
        config: of the run to be made; None: only the versions are compared.

    Raises:
        UsageError: the source cannot be listed from here.
    """
    unit = None if config is None else open_source(config.source).units[0]
    mark = f"preflight-{uuid4().hex[:8]}-"
    answers: list[tuple[Node, NodeAnswer]] = []
    for node, answer in ask_each(nodes(), examine, config, unit, mark):
        if isinstance(answer, NodeAnswer):
            answers.append((node, answer))
        else:
            yield Finding("nodes", False, f"{node}: {_unfit(answer)}")
    yield version_finding(versions(), [(str(node), a.versions) for node, a in answers])
    if config is None or not answers:
        return
    yield _reading(config, answers)
    yield _writing(run_folder(config.output, config.output_options), answers, mark)
    yield from model_findings(config.model, [(str(n), a.model) for n, a in answers if a.model])


def _unfit(error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError):
        return (
            f"{error}. The nodes need what this package needs: one image for all of them "
            "(Dockerfile), or submit with --pip."
        )
    return f"a task failed there: {type(error).__name__}: {redact(str(error))[:300]}"


def version_finding(
    here: Mapping[str, str], there: Sequence[tuple[str, Mapping[str, str]]]
) -> Finding:
    """Whether all nodes run what the driver runs; one run of several versions has no identity.

    Args:
        here: versions by package.
        there: the same of every node, with its name.
    """
    for node, found in there:
        other = [f"{name} {found[name]} (here {here[name]})" for name in here
                 if found.get(name) != here[name]]  # fmt: skip
        if other:
            return Finding(
                "versions",
                False,
                f"{node} has {', '.join(other)}. Use one image for all nodes (Dockerfile).",
            )
    told = ", ".join(f"{name} {here[name]}" for name in ("python", "ray", "torch"))
    return Finding("versions", True, f"{len(there)} nodes alike: {told}")


def _reading(config: RunConfig, answers: Sequence[tuple[Node, NodeAnswer]]) -> Finding:
    failed = [(node, answer.read) for node, answer in answers if answer.read]
    first = redact(config.source.uris[0])
    if not failed:
        return Finding("source", True, f"{first}: read from {len(answers)} nodes")
    node, why = failed[0]
    return Finding(
        "source",
        False,
        f"{first}: {len(failed)} of {len(answers)} nodes cannot read it; {node}: {why}. {_PLACES}",
    )


def _writing(folder: RunFolder, answers: Sequence[tuple[Node, NodeAnswer]], mark: str) -> Finding:
    """Whether what a node writes is seen from here: a disk of its own would swallow results."""
    place = redact(folder.uri)
    failed = [(node, answer.written) for node, answer in answers if answer.written]
    if failed:
        node, why = failed[0]
        return Finding(
            "output",
            False,
            f"{len(failed)} of {len(answers)} nodes cannot write; {node}: {why} {_PLACES}",
        )
    unseen = []
    for node, _ in answers:
        file = folder.root.child("_run", f"{mark}{node.id}")
        if file.exists():
            file.delete()
        else:
            unseen.append(node)
    if unseen:
        return Finding(
            "output",
            False,
            f"{place}: what {unseen[0]} writes there is not seen from the driver, so it is a disk "
            f"of its own. {_PLACES}",
        )
    return Finding("output", True, f"{place}: written from {len(answers)} nodes")
