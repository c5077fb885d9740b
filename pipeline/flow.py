"""A whole run in one function: shards -> rows of bytes -> pixels -> maps -> Parquet."""

import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from importlib import import_module
from threading import Thread
from typing import TYPE_CHECKING, Any

import ray

from pipeline.cluster.guard import Guard, explain_end, refuse_failures
from pipeline.cluster.preflight import check_output, check_resources, check_source, preflight
from pipeline.cluster.session import on_cluster, session
from pipeline.config import RunConfig
from pipeline.errors import KEPT, counted
from pipeline.progress.progress import Progress, Reporter, start_actor
from pipeline.progress.watch import Watch, watched
from pipeline.runs import manifest
from pipeline.runs.completeness import (
    Summary,
    is_complete,
    label_notes,
    mark_complete,
    query_notes,
    refuse_unfinished,
    unread_notes,
)
from pipeline.runs.lease import Fence, hold_lease
from pipeline.runs.ledger import Ledger
from pipeline.runs.log import logged
from pipeline.runs.manifest import run_folder
from pipeline.runs.parts import is_of_earlier_version
from pipeline.runs.resume import Work, find_work
from pipeline.sources.datasource import open_source
from pipeline.sources.label_checks import query_label_notes
from pipeline.stages.write import PartSink, write
from pipeline.storage.location import redact

if TYPE_CHECKING:
    from pipeline.plan import Plan

__all__ = ["Watch", "run"]


def run(config: RunConfig, watch: Watch | None = None) -> Summary:
    """Explain a data set, or continue where an earlier attempt stopped.

    Lists the source first, then starts a Ray session (`pipeline.cluster.session`). A cluster is
    joined before that: a plan that it has no room for is refused before a listing that may take
    minutes.

    Raises:
        UsageError: the source, model, output or cluster cannot be used with these settings, or
            another run is writing to the output.
        RunError: rows written and rows read do not add up, too many failed, or the output was
            taken over.
    """
    watch = watch or Watch()
    imported: Future[object] = Future()
    if not on_cluster():
        Thread(target=_import_operators, args=[imported], daemon=True).start()
        return _run(config, watch, imported)
    # Before other nodes are asked for anything: raylets on one machine share the folder of a job's
    # package, and unpack it again, after which torch finds no working directory.
    _import_operators(imported)
    with session():
        check_resources(config.runtime)
        return _run(config, watch, imported)


def _import_operators(imported: "Future[object]") -> None:
    """Import torch, which takes seconds; in a thread while the source is listed and Ray starts."""
    try:
        imported.set_result(import_module("pipeline.operators"))
    except Exception as error:  # noqa: BLE001 - raised again where the module is needed
        imported.set_exception(error)


def _run(config: RunConfig, watch: Watch, imported: "Future[object]") -> Summary:
    start = time.monotonic()
    first, *others = config.source.uris
    watch.stage(f"listing {redact(first)}" + (f" and {len(others)} more" if others else ""))
    source = open_source(config.source)
    folder = run_folder(config.output, config.output_options)
    check_output(folder)
    notes = [*source.facts.notes, *check_source(source, config.store.maps.mode)]
    for note in [*notes, *query_label_notes(source, config.queries)]:
        watch.note(note)
    notes = [*config.warnings, *notes]
    with hold_lease(folder, watch.stage) as fence, logged(folder, fence.run, config) as log:
        watch = log.recording(watch)
        with session():
            spread = preflight(config, source.units[0], watch.stage)
            watch.stage(f"loading {config.model.name}")
            imported.result()  # raises what the import raised; another one would say less
            from pipeline.plan import make_plan

            plan = make_plan(config, folder, source, spread)
            manifest.claim_folder(folder, config, plan.prepared)
            log.open()
            fence.require()
            work = _find_work(plan, watch)
            already_complete = not work.left and is_complete(folder, work.units, work.ledger)
            progress = Progress()
            if not already_complete:
                progress, work = _compute(plan, work, watch, fence)
        notes += plan.prepared.warnings
        if not already_complete:
            fence.require()
            max_failed = config.runtime.max_failed_fraction
            refuse_failures(work.ledger.refresh().statuses, progress.examples, max_failed)
            mark_complete(work.ledger, work.units, notes, watch.stage)
        notes += label_notes(folder, config.source)
        notes += query_notes(folder, config.queries)
        notes += unread_notes(work.ledger, config.runtime.redo)
    ledger = work.ledger
    return Summary(
        output=folder.uri,
        statuses=ledger.statuses,
        progress=progress,
        parts=len(ledger.records),
        bytes=ledger.bytes,
        seconds=time.monotonic() - start,
        notes=tuple(notes),
        already_complete=already_complete,
    )


def _find_work(plan: "Plan", watch: Watch) -> Work:
    """Find what is left to do.

    A complete run of an earlier version has nothing left.

    Raises:
        UsageError: an earlier version began this run and did not finish it.
    """
    folder, units, runtime = plan.folder, plan.source.units, plan.config.runtime
    ledger = Ledger(folder)
    if is_of_earlier_version(folder):
        refuse_unfinished(folder, units, ledger.refresh())
        return Work(tuple(units), (), ledger, ledger.rows)
    return find_work(folder, units, runtime, watch.stage, runtime.redo)


def _compute(plan: "Plan", work: Work, watch: Watch, fence: Fence) -> tuple[Progress, Work]:
    """Explain everything that is left, and turn an error that ends it into one clear message."""
    try:
        return _run_passes(plan, work, watch, fence)
    except KeyboardInterrupt:
        ledger = work.ledger.refresh()
        kept = counted(ledger.rows, "row")
        watch.stage(f"interrupted: {kept} kept; run the same command again to continue")
        raise
    except Exception as error:
        clear = explain_end(error, plan.folder)
        if clear is error:
            error.add_note(KEPT)
            raise
        raise clear from error


def _run_passes(plan: "Plan", work: Work, watch: Watch, fence: Fence) -> tuple[Progress, Work]:
    """Explain what is left, then, in isolated processes, what was lost with a dying worker."""
    plan.folder.complete.delete()
    runtime = plan.config.runtime
    progress_actor = start_actor(work.initial_progress(), redact(plan.folder.uri))
    with watched(progress_actor, watch):
        deaths = 0
        if work.left:
            watch.stage(f"explaining {work}")
            deaths = _run_pass(plan, work, progress_actor, fence, isolated=runtime.isolate)
        if deaths:
            work = find_work(plan.folder, work.units, runtime, watch.stage)
            watch.stage(f"explaining the rest ({work}) in isolated processes")
            _run_pass(plan, work, progress_actor, fence, isolated=True)
    progress: Progress = ray.get(progress_actor.snapshot.remote())
    return progress, work


def _run_pass(
    plan: "Plan", work: Work, progress_actor: Any, fence: Fence, *, isolated: bool
) -> int:
    """Run the stages in the order of the data; return how many blocks were lost with a worker."""
    from pipeline.operators import decode, explain, explain_isolated, ray_data_settings, read

    guard = Guard(progress_actor, plan.config.runtime.max_failed_fraction, tolerant=not isolated)
    reporter = Reporter(progress_actor)
    with ray_data_settings(plan), _remembering_ends(work.ledger, progress_actor):
        rows = read(work.left, plan, reporter)
        if isolated:
            explained_rows = explain_isolated(rows, plan, reporter)
        else:
            pixels = decode(rows, plan, reporter)
            explained_rows = explain(pixels, plan, reporter)
        with guard.over(explained_rows):
            write(explained_rows, PartSink(plan.folder, plan.schema, plan.rows_per_part, fence))
    return guard.deaths


@contextmanager
def _remembering_ends(ledger: Ledger, progress_actor: Any) -> Iterator[None]:
    """Record the ends of shards that have no row left to carry them into a part."""
    try:
        yield
    finally:
        with suppress(ray.exceptions.RayError):  # the session has ended; the shards are read again
            ledger.remember(ray.get(progress_actor.take_ends.remote(), timeout=60))
