"""A run, or the edits of an audit, without Ray: one stage after the other, in this process.

It is for tests of what the stages do to data. Everything before and after the stages is the code of
`pipeline.flow`: listing, lease, manifest, resuming, and the checks at the end. Workers would import
torch and Ray anew for each run, which takes ten times as long as a few images. Tests of Ray's part
(workers that die, storage faults, isolated processes, the commands) run under Ray.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import pyarrow as pa
import ray

from pipeline import flow
from pipeline import plan as planning
from pipeline.cluster.resources import Resources
from pipeline.config import RunConfig
from pipeline.operators import decoder, explainer_arguments, isolated_arguments
from pipeline.plan import Plan
from pipeline.progress.progress import Progress, ProgressActor, Reporter
from pipeline.progress.watch import Watch
from pipeline.reliance import edit_run, reliance
from pipeline.runs.completeness import Summary
from pipeline.runs.lease import Fence
from pipeline.runs.resume import Work
from pipeline.sources.datasource import read_units
from pipeline.stages.explain import Explainer
from pipeline.stages.isolated import IsolatedExplainer
from pipeline.stages.write import PartSink

_ONE_REPLICA = Resources(actors=1, gpus=0, threads=1)


class _Here:
    """A `ProgressActor` in this process; its methods are called as those of an actor are."""

    def __init__(self, start: Progress, output: str) -> None:
        self._actor = ProgressActor(start)

    def __getattr__(self, name: str) -> Any:
        return SimpleNamespace(remote=getattr(self._actor, name))


def _value(answer: Any, timeout: float | None = None) -> Any:
    """What `ray.get` returns, where methods of actors return values."""
    return answer


@contextmanager
def _stages(
    plan: Plan, reporter: Reporter, isolated: bool
) -> Iterator[Callable[[pa.Table], pa.Table]]:
    """A function from rows of bytes to rows of the output."""
    if not isolated:
        decode = decoder(plan, reporter, None)
        explain = Explainer(**explainer_arguments(plan, reporter))
        yield lambda batch: explain(decode(batch))
        return
    stage = IsolatedExplainer(**isolated_arguments(plan, reporter))
    try:
        yield stage
    finally:
        if stage.process is not None:
            stage.process.stop()


def _run_pass(plan: Plan, work: Work, actor: Any, fence: Fence, *, isolated: bool) -> int:
    """Explain what is left, unit by unit, and write parts; returns that no worker died."""
    reporter = Reporter(actor)
    sink = PartSink(plan.folder, plan.schema, plan.rows_per_part, fence)
    explained: list[pa.Table] = []
    with _stages(plan, reporter, isolated) as stages:
        for unit in work.left:
            for table in read_units(plan.config.source, [unit], reporter):
                starts = range(0, table.num_rows, plan.batch_size)
                explained += [stages(table.slice(start, plan.batch_size)) for start in starts]
            if sum(table.num_rows for table in explained) >= plan.rows_per_part:
                sink.write(explained, None)
                explained = []
        sink.write(explained, None)
    work.ledger.remember(actor.take_ends.remote())
    return 0


@dataclass(frozen=True)
class _Edited:
    """What `edit_run._stage` returns: pairs are edited while the batches are read."""

    stage: type
    rows: Sequence[Mapping[str, str]]
    job: Any
    resources: Resources

    def iter_batches(self, batch_size: int) -> Iterator[Any]:
        edit = self.stage(self.job)
        for row in self.rows:
            yield edit({name: np.array([value]) for name, value in row.items()})


def _remote(**resources: float) -> Callable[[Callable[..., Any]], Any]:
    """What `ray.remote` returns, for a function that is called here."""
    return lambda function: SimpleNamespace(remote=function)


@contextmanager
def without_ray() -> Iterator[None]:
    """Runs and edits stay in this process until the block ends."""
    of_runs = {
        "session": nullcontext,
        "preflight": lambda *_: _ONE_REPLICA,
        "start_actor": _Here,
        "watched": lambda *_: nullcontext(),
        "_run_pass": _run_pass,
    }
    of_edits = {
        "session": nullcontext,
        "data_settings": nullcontext,
        "resources_of_cluster": lambda *_: _ONE_REPLICA,
        "_stage": _Edited,
    }
    here = SimpleNamespace(remote=_remote, get=_value)
    with ExitStack() as stack:
        stack.enter_context(mock.patch.multiple(flow, **of_runs))
        stack.enter_context(mock.patch.multiple(edit_run, **of_edits))
        stack.enter_context(mock.patch.object(reliance, "ray", here))
        stack.enter_context(mock.patch.object(planning, "nodes", return_value=[None]))
        stack.enter_context(mock.patch.object(ray, "get", _value))
        yield


def run(config: RunConfig, watch: Watch | None = None) -> Summary:
    """Do what `pipeline.flow.run` does, in this process."""
    with without_ray():
        return flow.run(config, watch)
