"""A whole run in one function: shards -> rows of bytes -> pixels -> maps -> Parquet."""

import threading
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
from pipeline.manifest import RunFolder, run_folder
from pipeline.parts import committed_rows
from pipeline.progress import Progress, Reporter, start_actor
from pipeline.schema import output_schema
from pipeline.sources.datasource import ImageSource, open_source
from pipeline.sources.rows import BLOCK_ROWS
from pipeline.storage import is_storage_error, redact
from pipeline.summary import Summary, complete, is_complete, label_notes, summarise
from pipeline.write import checkpoint_config, tidy, write

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
        UsageError: the source, the model, the output or the cluster do not fit.
        RunError: rows written and rows read do not add up.
    """
    watch = watch or Watch()
    start = time.monotonic()
    uris = config.source.uris
    watch.stage(
        f"listing {redact(uris[0])}" + (f" and {len(uris) - 1} more" if len(uris) > 1 else "")
    )
    source = open_source(config.source)
    folder = run_folder(config.output, config.output_options)
    watch.stage(f"loading {config.model.name}")
    with session():
        plan = make_plan(config, folder, source)
        manifest.claim(folder, config, plan.prepared)
        tidy(folder)
        done = is_complete(folder, source)
        progress = Progress() if done else _execute(plan, watch)
    notes = (*config.warnings, *plan.prepared.warnings, *label_notes(folder, config.source))
    seconds = time.monotonic() - start
    summary = summarise(folder, progress, seconds, notes, already_complete=done)
    if not done:
        complete(folder, source, summary)
    return summary


def _execute(plan: Plan, watch: Watch) -> Progress:
    """The stages, in the order of the data."""
    source = plan.source
    actor = start_actor(source.bytes_total, committed_rows(plan.folder))
    watch.stage(f"explaining {source.extent}")
    plan.folder.complete.delete()
    with _checkpointed(plan.folder, _patience(plan)), _watched(actor, watch):
        rows = read(plan, Reporter(actor))
        pixels = decode(rows, plan, Reporter(actor))
        maps = explain(pixels, plan, Reporter(actor))
        write(maps, plan.folder, plan.schema, plan.rows_per_part)
    progress: Progress = ray.get(actor.snapshot.remote())
    return progress


def _patience(plan: Plan) -> float:
    """Ray counts finished blocks; one of a large model and many queries takes its time."""
    height, width = plan.prepared.preprocess.size
    rows = min(BLOCK_ROWS, BLOCK_BYTES // (3 * height * width) + plan.settings.batch_size)
    return max(NO_PROGRESS_SECONDS, SLOW_BLOCK * rows / plan.prepared.images_per_second)


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


def read(plan: Plan, reporter: Reporter) -> Dataset:
    """Shards -> rows of encoded bytes; rows that are committed already are filtered out by Ray."""
    source = plan.source.with_reporter(reporter)
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
    """Tell the watcher the counts now and then, from a thread."""
    done = threading.Event()

    def look() -> None:
        while not done.wait(watch.seconds):
            try:
                watch.progress(ray.get(actor.snapshot.remote(), timeout=10))
            except ray.exceptions.GetTimeoutError:
                continue  # busy; ask again
            except ray.exceptions.RayError:
                return  # the session ends; the run itself says why

    thread = threading.Thread(target=look, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
