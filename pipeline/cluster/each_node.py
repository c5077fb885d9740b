"""Checks on each node: its versions, and whether it can read, write and get the model."""

import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from itertools import islice
from uuid import uuid4

import ray

from pipeline.cluster.model_files import ModelAnswer, ask_for_model, model_findings
from pipeline.cluster.nodes import Finding, Node, ask_each, nodes
from pipeline.config import RunConfig
from pipeline.errors import UsageError, counted
from pipeline.runs.manifest import SOFTWARE, run_folder
from pipeline.schema import Status
from pipeline.sources.datasource import read_rows
from pipeline.sources.read_unit import Unit
from pipeline.storage.location import Location, redact

_NOT_INSTALLED = "none"
_SHARED_STORAGE = (
    "On a cluster, source and output are in a bucket or on a disk that all nodes share, and all "
    "nodes have credentials (a role, or legrad submit --env NAME)."
)


@dataclass(frozen=True)
class NodeAnswer:
    """A node's answer to `examine`.

    Attributes:
        versions: versions of Python and the packages that determine results.
        read_error: why the node cannot read the source; None if it can.
        write_error: why the node cannot write to the output; None if it can.
        model: the node's answer about the weights.
    """

    versions: Mapping[str, str]
    read_error: str | None = None
    write_error: str | None = None
    model: ModelAnswer | None = None


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that determine results, in this process."""
    installed = {"python": platform.python_version()}
    for package in SOFTWARE:
        try:
            installed[package] = version(package)
        except PackageNotFoundError:
            installed[package] = _NOT_INSTALLED
    return installed


def examine(config: RunConfig | None, unit: Unit | None, mark: str) -> NodeAnswer:
    """Try on this node what a run will do there.

    Args:
        config: settings of the run; None to compare versions only.
        unit: part of the source to read a sample from.
        mark: beginning of the name of the file that is written into the output; the node's id
            follows.
    """
    if config is None or unit is None:
        return NodeAnswer(versions())
    return NodeAnswer(
        versions(),
        read_error=_read_error(config, unit),
        write_error=_write_error(config, mark),
        model=ask_for_model(config.model),
    )


def _read_error(config: RunConfig, unit: Unit) -> str | None:
    try:
        rows = list(islice(read_rows(config.source, unit), 1))
    except (UsageError, OSError) as error:
        return f"{type(error).__name__}: {redact(str(error))}"
    errors = [str(row["error"]) for row in rows if row["status"] == Status.READ_ERROR]
    return redact(errors[0]) if errors else None


def _write_error(config: RunConfig, mark: str) -> str | None:
    try:
        _probe_file(config, mark).write(b"probe")
    except UsageError as error:
        return redact(str(error))
    return None


def delete_probe(config: RunConfig, mark: str) -> None:
    """Delete the file that `examine` wrote on this node; one that does not exist is no error."""
    with suppress(UsageError):
        _probe_file(config, mark).delete()


def _probe_file(config: RunConfig, mark: str) -> Location:
    folder = run_folder(config.output, config.output_options)
    return folder.root.child("_run", mark + ray.get_runtime_context().get_node_id())


def findings(config: RunConfig | None, unit: Unit | None) -> Iterator[Finding]:
    """Call `examine` on every node, and compare the answers.

    Args:
        config: settings of the run to be made; None to compare versions only.
        unit: part of its source to read a sample from.
    """
    mark = f"preflight-{uuid4().hex[:8]}-"
    answers: list[tuple[Node, NodeAnswer]] = []
    for node, answer in ask_each(nodes(), examine, config, unit, mark):
        if isinstance(answer, NodeAnswer):
            answers.append((node, answer))
        else:
            yield Finding("nodes", False, f"{node}: {_explained(answer)}")
    yield version_finding(versions(), [(str(node), answer.versions) for node, answer in answers])
    if config is None or not answers:
        return
    yield _read_finding(config, answers)
    yield write_finding(config, answers, mark)
    models = [(str(node), answer.model) for node, answer in answers if answer.model]
    yield from model_findings(config.model, models)


def _explained(error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError):
        return (
            f"{error}. The nodes need what this package needs: one image for all of them "
            "(Dockerfile), or submit with --pip."
        )
    return f"a task failed there: {type(error).__name__}: {redact(str(error))[:300]}"


def version_finding(
    driver: Mapping[str, str], nodes: Sequence[tuple[str, Mapping[str, str]]]
) -> Finding:
    """Check that all nodes run what the driver runs; otherwise results would not be reproducible.

    Args:
        driver: the driver's versions by package.
        nodes: the name and the versions of every node.
    """
    for node, installed in nodes:
        different = [
            f"{package} {installed[package]} (here {wanted})"
            for package, wanted in driver.items()
            if installed.get(package) != wanted
        ]
        if different:
            return Finding(
                "versions",
                False,
                f"{node} has {', '.join(different)}. Use one image for all nodes (Dockerfile).",
            )
    main = ", ".join(f"{package} {driver[package]}" for package in ("python", "ray", "torch"))
    return Finding("versions", True, f"{counted(len(nodes), 'node')} alike: {main}")


def _read_finding(config: RunConfig, answers: Sequence[tuple[Node, NodeAnswer]]) -> Finding:
    failed = [(node, answer.read_error) for node, answer in answers if answer.read_error]
    first_uri = redact(config.source.uris[0])
    if not failed:
        return Finding("source", True, f"{first_uri}: read from {counted(len(answers), 'node')}")
    node, error = failed[0]
    return Finding(
        "source",
        False,
        f"{first_uri}: {len(failed)} of {len(answers)} nodes cannot read it; {node}: {error}. "
        f"{_SHARED_STORAGE}",
    )


def write_finding(
    config: RunConfig, answers: Sequence[tuple[Node, NodeAnswer]], mark: str
) -> Finding:
    """Check that the driver sees the files that the nodes wrote, and delete all of them.

    A node that writes to a disk of its own would lose its results.

    Args:
        config: settings of the run.
        answers: every node with its answer to `examine`.
        mark: the same as for `examine`.
    """
    folder = run_folder(config.output, config.output_options)
    failed = [(node, answer.write_error) for node, answer in answers if answer.write_error]
    run = folder.root.child("_run")
    seen = run.files(f"{mark}*")
    for name in seen:
        run.child(name).delete()
    unseen = [
        node for node, answer in answers if not answer.write_error and mark + node.id not in seen
    ]
    ask_each(unseen, delete_probe, config, mark)
    uri = redact(folder.uri)
    if failed:
        node, error = failed[0]
        return Finding(
            "output",
            False,
            f"{len(failed)} of {len(answers)} nodes cannot write; {node}: {error} "
            f"{_SHARED_STORAGE}",
        )
    if unseen:
        return Finding(
            "output",
            False,
            f"{uri}: the driver does not see what {unseen[0]} writes there, so that node writes to "
            f"a disk of its own. {_SHARED_STORAGE}",
        )
    return Finding("output", True, f"{uri}: written from {counted(len(answers), 'node')}")
