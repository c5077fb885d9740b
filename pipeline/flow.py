"""A whole run in one function: shards -> rows of bytes -> pixels -> maps -> Parquet."""

import time
from typing import Any

import ray

from pipeline.cluster.failures import explain_end
from pipeline.cluster.guard import Guard, refuse_failures
from pipeline.cluster.preflight import check_output, check_resources, check_source, preflight
from pipeline.cluster.session import on_cluster, session
from pipeline.config import RunConfig
from pipeline.operators import checkpointed, decode, explain, explain_isolated, read
from pipeline.plan import Plan, make_plan
from pipeline.progress.progress import Progress, Reporter, ShardCount, start_actor
from pipeline.progress.watch import Watch, watched
from pipeline.runs import manifest
from pipeline.runs.completeness import Summary, complete, is_complete, label_notes, unread_notes
from pipeline.runs.lease import Fence, held
from pipeline.runs.log import logged
from pipeline.runs.manifest import run_folder
from pipeline.runs.resume import Work, find_work
from pipeline.runs.waves import Wave
from pipeline.sources.datasource import open_source
from pipeline.stages.write import write
from pipeline.storage.location import redact

__all__ = ["Watch", "run"]


def run(config: RunConfig, watch: Watch | None = None) -> Summary:
    """Explain a data set, or continue where an earlier attempt stopped.

    Lists the source first, then starts a Ray session (`pipeline.cluster.session`). A cluster is
    joined before that: a plan that it has no room for is refused before a listing that may take
    minutes.

    Raises:
        UsageError: the source, the model, the output or the cluster do not fit, or another run
            writes to the output.
        RunError: rows written and rows read do not add up, too many failed, or the output was
            taken over.
    """
    watch = watch or Watch()
    if not on_cluster():
        return _run(config, watch)
    with session():
        check_resources(config.runtime)
        return _run(config, watch)


def _run(config: RunConfig, watch: Watch) -> Summary:
    start = time.monotonic()
    first, *others = config.source.uris
    watch.stage(f"listing {redact(first)}" + (f" and {len(others)} more" if others else ""))
    source = open_source(config.source)
    folder = run_folder(config.output, config.output_options)
    check_output(folder)
    notes = [*config.warnings, *check_source(source)]
    with held(folder, watch.stage) as fence, logged(folder, fence.run, config) as log:
        watch = log.over(watch)
        with session():
            spread = preflight(config, watch.stage)
            watch.stage(f"loading {config.model.name}")
            plan = make_plan(config, folder, source, spread)
            manifest.claim(folder, config, plan.prepared)
            log.open()
            fence.require()
            redo = config.runtime.redo
            work = find_work(folder, source.units, config.runtime, watch.stage, redo)
            done = not work.waves and is_complete(folder, work.units, work.ledger)
            progress = Progress()
            if not done:
                progress, work = _execute(plan, work, watch, fence)
        notes += plan.prepared.warnings
        if not done:
            work.ledger.refresh()
            fence.require()
            most = config.runtime.max_failed_fraction
            refuse_failures(work.ledger.statuses, progress.examples, most)
            complete(folder, work.units, work.ledger, work.book, notes)
        notes += label_notes(folder, config.source)
        notes += unread_notes(work.ledger, config.runtime.redo)
    ledger = work.ledger
    return Summary(
        output=folder.uri,
        statuses=ledger.statuses,
        progress=progress,
        parts=len(ledger.counts),
        bytes=ledger.bytes,
        seconds=time.monotonic() - start,
        notes=tuple(notes),
        already_complete=done,
    )


def _execute(plan: Plan, work: Work, watch: Watch, fence: Fence) -> tuple[Progress, Work]:
    """Explain everything that is left; what ends it is said in one message."""
    try:
        return _explain_all(plan, work, watch, fence)
    except Exception as error:
        clear = explain_end(error, plan.folder)
        if clear is error:
            raise
        raise clear from error


def _explain_all(plan: Plan, work: Work, watch: Watch, fence: Fence) -> tuple[Progress, Work]:
    """Wave by wave; then, in processes that may die, what went down with a worker."""
    plan.folder.complete.delete()
    actor, runtime = start_actor(work.before(), redact(plan.folder.uri)), plan.config.runtime
    count, deaths = len(work.waves), 0
    with watched(actor, watch):
        for number, wave in enumerate(work.waves, start=1):
            watch.stage(f"explaining {wave}" + (f", wave {number} of {count}" if count > 1 else ""))
            deaths += _explain_wave(plan, wave, work, actor, fence, isolated=runtime.isolate)
        if deaths:
            work = find_work(plan.folder, work.units, runtime, watch.stage)
            for wave in work.waves:
                watch.stage(f"explaining what is left of {wave}, in processes that may die")
                _explain_wave(plan, wave, work, actor, fence, isolated=True)
    progress: Progress = ray.get(actor.snapshot.remote())
    return progress, work


def _explain_wave(
    plan: Plan, wave: Wave, work: Work, actor: Any, fence: Fence, *, isolated: bool
) -> int:
    """The stages, in the order of the data; returns how many blocks a dying worker took along."""
    guard = Guard(actor, plan.config.runtime.max_failed_fraction, tolerant=not isolated)
    reporter = Reporter(actor)
    with (
        checkpointed(wave.checkpoint, plan.patience),
        work.book.recording(wave.units, lambda: _reported(actor)),
    ):
        rows = read(wave, plan, reporter)
        if isolated:
            maps = explain_isolated(rows, plan, reporter)
        else:
            pixels = decode(rows, plan, reporter)
            maps = explain(pixels, plan, reporter)
        with guard.over(maps):
            write(maps, plan.folder, plan.schema, plan.rows_per_part, fence)
    return guard.deaths


def _reported(actor: Any) -> dict[str, ShardCount]:
    try:
        found: dict[str, ShardCount] = ray.get(actor.take.remote(), timeout=60)
    except ray.exceptions.RayError:
        return {}  # the session ends; the shards are read again
    return found
