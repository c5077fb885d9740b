"""A whole run in one function: shards -> rows of bytes -> pixels -> maps -> Parquet."""

import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, DataContext, Dataset

from legrad.errors import UnsupportedModelError
from pipeline import manifest
from pipeline.cluster import RETRIES, Resources, resources, session
from pipeline.config import RunConfig
from pipeline.decode import Decoder
from pipeline.errors import UsageError
from pipeline.explain import Explainer, Prepared, ReplicaSettings, prepare
from pipeline.failures import explain_end
from pipeline.guard import Guard, refuse_failures
from pipeline.manifest import RunFolder, run_folder
from pipeline.parts import committed_rows
from pipeline.probe import probe_output, probe_source
from pipeline.progress import Progress, Reporter, start_actor
from pipeline.redo import reopen
from pipeline.retries import TRANSIENT
from pipeline.sacrifice import Assignment, Sacrifice
from pipeline.schema import output_schema
from pipeline.sources.datasource import ImageSource, Unit, open_source
from pipeline.sources.rows import BLOCK_ROWS
from pipeline.storage import is_storage_error
from pipeline.summary import Summary, complete, is_complete, summarise
from pipeline.unfinished import unfinished
from pipeline.watch import Watch, watched
from pipeline.write import checkpoint_config, tidy
from pipeline.write import write as write_parts

BLOCK_BYTES = 32 * 2**20
SECONDS_PER_PART = 60
MOST_PART_ROWS = 50_000
NO_PROGRESS_SECONDS = 600
SLOW_BLOCK = 10  # times the expected seconds of a block before Ray gives a run up


@dataclass(frozen=True)
class Plan:
    """Everything decided before the first image is read."""

    config: RunConfig
    folder: RunFolder
    source: ImageSource
    prepared: Prepared
    resources: Resources
    settings: ReplicaSettings
    schema: pa.Schema
    rows_per_part: int

    @property
    def names(self) -> list[str]:
        """Of the queries, in their order."""
        return [query.name for query in self.config.queries]


def run(config: RunConfig, watch: Watch | None = None) -> Summary:
    """Explain a data set, or continue where an earlier attempt stopped.

    Lists the source first, then joins or starts a Ray session (`pipeline.cluster.session`).

    Raises:
        UsageError: the source, the model, the output or the cluster do not fit.
        RunError: rows written and rows read do not add up, or too many failed.
    """
    watch = watch or Watch()
    start = time.monotonic()
    uris = config.source.uri
    watch.stage(f"listing {uris[0]}" + (f" and {len(uris) - 1} more" if len(uris) > 1 else ""))
    source = open_source(config.source)
    folder = run_folder(config.output, config.output_options)
    probe_output(folder)
    notes = (*config.warnings, *probe_source(source))
    watch.stage(f"loading {config.model.name}")
    with session():
        plan = make_plan(config, folder, source)
        manifest.claim(folder, config, plan.prepared)
        tidy(folder)
        reopen(folder, config.runtime.redo)
        done = is_complete(folder, source)
        progress = Progress() if done else _execute(plan, watch)
    notes += plan.prepared.warnings
    seconds = time.monotonic() - start
    summary = summarise(folder, progress, seconds, notes, already_complete=done)
    if not done:
        most = config.runtime.max_failed_fraction
        refuse_failures(summary.statuses, progress.examples, most)
        complete(folder, source, summary)
    return summary


def _execute(plan: Plan, watch: Watch) -> Progress:
    """Both passes; what ends them is said in one message."""
    try:
        return _explain_all(plan, watch)
    except Exception as error:
        clear = explain_end(error, plan.folder)
        if clear is error:
            raise
        raise clear from error


def _explain_all(plan: Plan, watch: Watch) -> Progress:
    """The stages, in the order of the data."""
    source = plan.source
    actor = start_actor(source.bytes_total, committed_rows(plan.folder))
    watch.stage(f"explaining {source.bytes_total / 2**20:.1f} MiB in {len(source.units)} shards")
    plan.folder.complete.delete()
    reporter, most = Reporter(actor), plan.config.runtime.max_failed_fraction
    with _checkpointed(plan.folder, _patience(plan)), watched(actor, watch):
        rest = source.units
        if not plan.config.runtime.isolate:
            guard = Guard(actor, most, tolerant=True)
            rows = read(source, reporter)
            pixels = decode(rows, plan, reporter)
            maps = explain(pixels, plan, reporter)
            write(maps, plan, guard)
            rest = _lost(plan, guard, ray.get(actor.snapshot.remote()))
        if rest:
            watch.stage(f"explaining what is left of {len(rest)} shards, in processes that may die")
            rows = read(ImageSource(source.source, rest, reporter), reporter)
            maps = sacrifice(rows, plan, reporter)
            write(maps, plan, Guard(actor, most, tolerant=False))
    progress: Progress = ray.get(actor.snapshot.remote())
    return progress


def _lost(plan: Plan, guard: Guard, progress: Progress) -> list[Unit]:
    """The units of which rows went down with a worker."""
    if not guard.deaths:
        return []
    tidy(plan.folder)
    return unfinished(plan.folder, plan.source, progress)


def _patience(plan: Plan) -> float:
    """Ray counts finished blocks; one of a large model and many queries takes its time."""
    height, width = plan.prepared.preprocess.size
    rows = min(BLOCK_ROWS, BLOCK_BYTES // (3 * height * width) + plan.settings.batch_size)
    hang = 2 * (RETRIES + 1) * plan.config.runtime.image_timeout
    return max(NO_PROGRESS_SECONDS, hang, SLOW_BLOCK * rows / plan.prepared.images_per_second)


def make_plan(config: RunConfig, folder: RunFolder, source: ImageSource) -> Plan:
    """Load the model once on a worker and decide how the work is spread."""
    spread = resources(config.runtime)
    settings = ReplicaSettings(
        config.model, spread.device, spread.threads, config.runtime.batch_size
    )
    remote = ray.remote(num_cpus=spread.cpus, num_gpus=spread.gpus, max_retries=0, max_calls=1)(
        prepare
    )
    try:
        prepared: Prepared = ray.get(remote.remote(settings, list(config.queries)))
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        if isinstance(cause, UnsupportedModelError) or is_storage_error(cause):
            raise UsageError(f"model {config.model.name}: {cause}") from error
        raise
    schema = output_schema(
        config.source.carry,
        [query.name for query in config.queries],
        prepared.grid,
        embeddings=config.store.embeddings,
        metadata=manifest.file_metadata(config, prepared),
    )
    wanted = config.runtime.rows_per_part
    a_minute = round(prepared.images_per_second * spread.actors * SECONDS_PER_PART)
    least = config.runtime.batch_size
    rows = max(least, min(MOST_PART_ROWS, a_minute)) if wanted == "auto" else wanted
    return Plan(config, folder, source, prepared, spread, settings, schema, rows)


def read(source: ImageSource, reporter: Reporter) -> Dataset:
    """Shards -> rows of encoded bytes; rows that are committed already are filtered out by Ray."""
    dataset: Dataset = ray.data.read_datasource(
        source.with_reporter(reporter),
        override_num_blocks=len(source.units),
        ray_remote_args={"max_retries": RETRIES},
    )
    return dataset


def decode(rows: Dataset, plan: Plan, reporter: Reporter) -> Dataset:
    """Encoded bytes -> uint8 pixels of the model's input size."""
    runtime = plan.config.runtime
    return rows.map_batches(
        _decoder(plan, reporter, runtime.image_timeout).__call__,
        batch_format="pyarrow",
        batch_size=runtime.batch_size,
        max_retries=RETRIES,
    )


def _decoder(plan: Plan, reporter: Reporter, seconds: float | None) -> Decoder:
    config = plan.config
    return Decoder(
        plan.prepared.preprocess,
        config.source.max_pixels,
        dict(config.source.carry),
        config.store.captions,
        reporter,
        seconds,
    )


def explain(pixels: Dataset, plan: Plan, reporter: Reporter) -> Dataset:
    """Pixels -> scores, encoded maps and embeddings, in a pool of model replicas."""
    arguments = {
        "settings": plan.settings,
        "text_features": plan.prepared.text_features,
        "schema": plan.schema,
        "names": plan.names,
        "reporter": reporter,
    }
    return _in_actors(pixels, plan, Explainer, arguments)


def sacrifice(rows: Dataset, plan: Plan, reporter: Reporter) -> Dataset:
    """Encoded bytes -> maps, like `decode` and `explain`, but no image can take a worker along."""
    runtime = plan.config.runtime
    decoder = _decoder(plan, Reporter(), None)
    work = Assignment(decoder, plan.settings, plan.prepared.text_features, plan.schema, plan.names)
    arguments = {
        "work": work.packed(),
        "schema": plan.schema,
        "seconds": runtime.image_timeout,
        "keep_captions": plan.config.store.captions,
        "reporter": reporter,
    }
    return _in_actors(rows, plan, Sacrifice, arguments)


def _in_actors(rows: Dataset, plan: Plan, stage: type, arguments: dict[str, Any]) -> Dataset:
    """A stage of model replicas. A replica that dies is replaced; a batch is tried again once."""
    spread = plan.resources
    return rows.map_batches(
        stage,
        fn_constructor_kwargs=arguments,
        batch_format="pyarrow",
        batch_size=plan.config.runtime.batch_size,
        compute=ActorPoolStrategy(size=spread.actors),
        num_cpus=spread.cpus,
        num_gpus=spread.gpus,
        max_task_retries=RETRIES,
    )


def write(rows: Dataset, plan: Plan, guard: Guard) -> None:
    """Maps -> committed Parquet parts; runs the whole pass."""
    with guard.over(rows):
        write_parts(rows, plan.folder, plan.schema, plan.rows_per_part)


@contextmanager
def _checkpointed(folder: RunFolder, patience: float = NO_PROGRESS_SECONDS) -> Iterator[None]:
    """Ray Data's settings for a run, put back afterwards.

    Args:
        folder: of the run.
        patience: seconds without a finished block after which Ray gives up.
    """
    context = DataContext.get_current()
    ours: dict[str, Any] = {
        "checkpoint_config": checkpoint_config(folder),
        "enable_progress_bars": False,
        "print_on_execution_start": False,
        "target_max_block_size": BLOCK_BYTES,
        "execution_no_progress_timeout_s": round(patience),
        "retried_io_errors": [*context.retried_io_errors, *TRANSIENT],
    }
    before = {name: getattr(context, name) for name in ours}
    for name, value in ours.items():
        setattr(context, name, value)
    with warnings.catch_warnings():  # retries have no named parameter in Ray 2.60
        warnings.filterwarnings("ignore", message=".*ray_remote_args.* is deprecated")
        try:
            yield
        finally:
            for name, value in before.items():
                setattr(context, name, value)
