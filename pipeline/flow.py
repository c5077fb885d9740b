"""A whole run in one function: shards -> rows of bytes -> pixels -> maps -> Parquet."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, DataContext, Dataset

from legrad.errors import UnsupportedModelError
from pipeline import manifest
from pipeline.cluster import Resources, resources, session
from pipeline.config import RunConfig
from pipeline.decode import Decoder
from pipeline.errors import UsageError
from pipeline.explain import Explainer, Prepared, ReplicaSettings, prepare
from pipeline.lease import Fence, held
from pipeline.manifest import RunFolder, run_folder
from pipeline.progress import Progress, Reporter, ShardCount, start_actor
from pipeline.repeat import repeated
from pipeline.schema import output_schema
from pipeline.sources.datasource import ImageSource, open_source
from pipeline.sources.rows import BLOCK_ROWS
from pipeline.storage import Location, is_storage_error, redact
from pipeline.summary import Summary, complete, is_complete, label_notes
from pipeline.waves import Wave
from pipeline.work import Work, find_work
from pipeline.write import checkpoint_config, write

BLOCK_BYTES = 32 * 2**20
SECONDS_PER_PART = 60
MOST_PART_ROWS = 50_000
NO_PROGRESS_SECONDS = 600
SLOW_BLOCK = 10  # times the expected seconds of a block before Ray gives a run up


@dataclass(frozen=True)
class Watch:
    """Who is told how a run goes.

    Attributes:
        stage: called with a line of text when a stage begins.
        progress: called with the counts every ``seconds``.
    """

    stage: Callable[[str], None] = lambda text: None
    progress: Callable[[Progress], None] = lambda progress: None
    seconds: float = 1.0


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


def run(config: RunConfig, watch: Watch | None = None) -> Summary:
    """Explain a data set, or continue where an earlier attempt stopped.

    Lists the source first, then joins or starts a Ray session (`pipeline.cluster.session`).

    Raises:
        UsageError: the source, the model, the output or the cluster do not fit, or another run
            writes to the output.
        RunError: rows written and rows read do not add up, or the output was taken over.
    """
    watch = watch or Watch()
    start = time.monotonic()
    uris = config.source.uris
    watch.stage(
        f"listing {redact(uris[0])}" + (f" and {len(uris) - 1} more" if len(uris) > 1 else "")
    )
    source = open_source(config.source)
    folder = run_folder(config.output, config.output_options)
    with held(folder, watch.stage) as fence:
        watch.stage(f"loading {config.model.name}")
        with session():
            plan = make_plan(config, folder, source)
            manifest.claim(folder, config, plan.prepared)
            fence.require()
            work = find_work(folder, source.units, config.runtime, watch.stage)
            done = is_complete(folder, work.units, work.ledger)
            progress = Progress() if done else _execute(plan, work, watch, fence)
        notes = [*config.warnings, *plan.prepared.warnings]
        if not done:
            work.ledger.refresh()
            fence.require()
            complete(folder, work.units, work.ledger, work.book, notes)
        notes += label_notes(folder, config.source)
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


def _execute(plan: Plan, work: Work, watch: Watch, fence: Fence) -> Progress:
    """The stages, in the order of the data, a wave at a time."""
    plan.folder.complete.delete()
    actor = start_actor(work.before())
    reporter, count = Reporter(actor), len(work.waves)
    for number, wave in enumerate(work.waves, start=1):
        watch.stage(f"explaining {wave}" + (f", wave {number} of {count}" if count > 1 else ""))
        with (
            _checkpointed(wave.checkpoint, _patience(plan)),
            _watched(actor, watch),
            work.book.recording(wave.units, lambda: _reported(actor)),
        ):
            rows = read(wave, plan, reporter)
            pixels = decode(rows, plan, reporter)
            maps = explain(pixels, plan, reporter)
            write(maps, plan.folder, plan.schema, plan.rows_per_part, fence)
    progress: Progress = ray.get(actor.snapshot.remote())
    return progress


def _reported(actor: Any) -> dict[str, ShardCount]:
    try:
        found: dict[str, ShardCount] = ray.get(actor.take.remote(), timeout=60)
    except ray.exceptions.RayError:
        return {}  # the session ends; the shards are read again
    return found


def _patience(plan: Plan) -> float:
    """Ray counts finished blocks; one of a large model and many queries takes its time."""
    height, width = plan.prepared.preprocess.size
    rows = min(BLOCK_ROWS, BLOCK_BYTES // (3 * height * width) + plan.settings.batch_size)
    return max(NO_PROGRESS_SECONDS, SLOW_BLOCK * rows / plan.prepared.images_per_second)


def make_plan(config: RunConfig, folder: RunFolder, source: ImageSource) -> Plan:
    """Load the model once on a worker and decide how the work is spread."""
    spread = resources(config.runtime)
    settings = ReplicaSettings(
        config.model,
        spread.device,
        spread.threads,
        config.runtime.batch_size,
        config.selection,
    )
    remote = ray.remote(num_cpus=spread.cpus, num_gpus=spread.gpus, max_retries=0, max_calls=1)(
        prepare
    )
    try:
        prepared: Prepared = ray.get(remote.remote(settings, list(config.queries)))
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        if isinstance(cause, (UnsupportedModelError, UsageError)) or is_storage_error(cause):
            raise UsageError(f"model {config.model.name}: {cause}") from error
        raise
    schema = output_schema(
        config.source.carry,
        [query.name for query in config.queries],
        prepared.grid,
        maps=config.map_columns,
        embeddings=config.store.embeddings,
        metadata=manifest.file_metadata(config, prepared),
    )
    wanted = config.runtime.rows_per_part
    a_minute = round(prepared.images_per_second * spread.actors * SECONDS_PER_PART)
    least = config.runtime.batch_size
    rows = max(least, min(MOST_PART_ROWS, a_minute)) if wanted == "auto" else wanted
    return Plan(config, folder, source, prepared, spread, settings, schema, rows)


def read(wave: Wave, plan: Plan, reporter: Reporter) -> Dataset:
    """Shards -> rows of encoded bytes; rows that are committed already are filtered out by Ray."""
    source = plan.source.with_reporter(reporter)
    source.units = list(wave.units)
    dataset: Dataset = ray.data.read_datasource(source, override_num_blocks=len(source.units))
    return dataset


def decode(rows: Dataset, plan: Plan, reporter: Reporter) -> Dataset:
    """Encoded bytes -> uint8 pixels of the model's input size."""
    config = plan.config
    decoder = Decoder(
        plan.prepared.preprocess,
        config.source.max_pixels,
        dict(config.source.carry),
        config.store.captions,
        reporter,
    )
    return rows.map_batches(
        decoder.__call__,
        batch_format="pyarrow",
        batch_size=config.runtime.batch_size,
    )


def explain(pixels: Dataset, plan: Plan, reporter: Reporter) -> Dataset:
    """Pixels -> scores, encoded maps and embeddings, in a pool of model replicas."""
    spread = plan.resources
    return pixels.map_batches(
        Explainer,
        fn_constructor_kwargs={
            "settings": plan.settings,
            "text_features": plan.prepared.text_features,
            "schema": plan.schema,
            "names": [query.name for query in plan.config.queries],
            "reporter": reporter,
        },
        batch_format="pyarrow",
        batch_size=plan.config.runtime.batch_size,
        compute=ActorPoolStrategy(size=spread.actors),
        num_cpus=spread.cpus,
        num_gpus=spread.gpus,
    )


@contextmanager
def _checkpointed(place: Location, patience: float = NO_PROGRESS_SECONDS) -> Iterator[None]:
    """Ray Data's settings for a run, put back afterwards.

    Args:
        place: folder of the wave's commits.
        patience: seconds without a finished block after which Ray gives up.
    """
    context = DataContext.get_current()
    ours: dict[str, Any] = {
        "checkpoint_config": checkpoint_config(place),
        "enable_progress_bars": False,
        "print_on_execution_start": False,
        "target_max_block_size": BLOCK_BYTES,
        "execution_no_progress_timeout_s": round(patience),
    }
    before = {name: getattr(context, name) for name in ours}
    for name, value in ours.items():
        setattr(context, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(context, name, value)


@contextmanager
def _watched(actor: Any, watch: Watch) -> Iterator[None]:
    """Tell the watcher the counts now and then."""

    def look() -> bool:
        try:
            watch.progress(ray.get(actor.snapshot.remote(), timeout=10))
        except ray.exceptions.GetTimeoutError:
            return True  # busy; ask again
        except ray.exceptions.RayError:
            return False  # the session ends; the run itself says why
        return True

    with repeated(look, watch.seconds, "progress"):
        yield
