"""Everything that is decided before the first image is read."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import ray
import torch

from legrad.errors import UnsupportedModelError
from legrad.queries.query import Query
from pipeline.cluster.nodes import nodes
from pipeline.cluster.resources import BLOCK_BYTES, Resources
from pipeline.cluster.session import RETRIES, on_cluster
from pipeline.config import RunConfig
from pipeline.errors import UsageError
from pipeline.runs import manifest
from pipeline.runs.manifest import RunFolder
from pipeline.runs.model_facts import Prepared
from pipeline.schema import output_schema
from pipeline.sources.datasource import ImageSource
from pipeline.sources.input_rows import BLOCK_ROWS
from pipeline.stages.replica import ReplicaSettings, prepare
from pipeline.storage.location import is_storage_error, redact

SECONDS_PER_PART = 15
"""Work of all replicas that goes into one part: stopping a run loses little, and parts are few."""
SECONDS_PER_BLOCK = 4
MOST_PART_ROWS = 50_000
NO_PROGRESS_SECONDS = 600
SLOW_BLOCK = 10  # Ray stops a run when a block takes this many times longer than expected


@dataclass(frozen=True)
class Plan:
    """What a run does, and with what.

    Attributes:
        config: the settings of the run.
        folder: the output.
        source: the images, already listed.
        prepared: facts about the model, measured once.
        resources: CPUs and GPUs of the model replicas.
        settings: how each replica loads and runs the model.
        schema: the schema of the output's Parquet files.
        rows_per_part: smallest number of rows in a Parquet part, except for the last ones.
    """

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
        """Query names, in configuration order."""
        return [query.name for query in self.config.queries]

    @property
    def batch_size(self) -> int:
        """Number of images that a replica explains at once."""
        return self.prepared.batch_size

    @property
    def no_progress_timeout(self) -> float:
        """Seconds without a finished block after which Ray gives up.

        A block of a large model with many queries takes long, and Ray counts finished blocks only.
        """
        rows = min(BLOCK_ROWS, self.block_bytes // self._pixel_bytes + self.batch_size)
        hang = 2 * (RETRIES + 1) * self.config.runtime.image_timeout
        return max(NO_PROGRESS_SECONDS, hang, SLOW_BLOCK * rows / self.prepared.images_per_second)

    @property
    def block_bytes(self) -> int:
        """Approximate size of a Ray Data block, in bytes.

        A replica hands on its maps block by block. With a slow model a block is a few seconds of
        work, but at least a batch, so that stopping a run loses little.
        """
        work = round(self.prepared.images_per_second * SECONDS_PER_BLOCK)
        return min(BLOCK_BYTES, max(self.batch_size, work) * self._pixel_bytes)

    @property
    def _pixel_bytes(self) -> int:
        height, width = self.prepared.preprocess.size
        return 3 * height * width


def make_plan(
    config: RunConfig, folder: RunFolder, source: ImageSource, resources: Resources
) -> Plan:
    """Load the model once, and decide sizes that depend on it.

    Args:
        config: the settings of the run.
        folder: the output.
        source: the images, already listed.
        resources: CPUs and GPUs of the model replicas.

    Raises:
        UsageError: the model cannot be loaded.
    """
    requested = config.runtime.batch_size
    settings = ReplicaSettings(
        config.model,
        resources.device,
        resources.threads,
        None if requested == "auto" else requested,
        config.selection,
        config.classes,
    )
    prepared = _prepared(config, settings, resources)
    schema = output_schema(
        config.source.carry,
        [query.name for query in config.queries],
        maps=config.map_columns,
        embeddings=config.store.embeddings,
        properties=config.store.properties,
        prediction=config.classes is not None,
        metadata=manifest.file_metadata(config, prepared),
    )
    requested_rows = config.runtime.rows_per_part
    rows_of_work = round(prepared.images_per_second * resources.actors * SECONDS_PER_PART)
    auto_rows = max(prepared.batch_size, min(MOST_PART_ROWS, rows_of_work))
    rows = auto_rows if requested_rows == "auto" else requested_rows
    return Plan(config, folder, source, prepared, resources, settings, schema, rows)


def _prepared(config: RunConfig, settings: ReplicaSettings, resources: Resources) -> Prepared:
    try:
        if resources.gpus or on_cluster() or len(nodes()) > 1:
            # Ray ends a worker that used a GPU, which frees its memory.
            options: dict[str, Any] = {"num_cpus": resources.cpus, "num_gpus": resources.gpus}
            remote = ray.remote(max_retries=0, **options)(prepare)
            return ray.get(remote.remote(settings, list(config.queries)))
        return _prepared_here(settings, config.queries)
    except Exception as error:
        cause = error.cause if isinstance(error, ray.exceptions.RayTaskError) else error
        if isinstance(cause, (UnsupportedModelError, UsageError)) or is_storage_error(cause):
            raise UsageError(f"model {config.model.name}: {redact(str(cause))}") from error
        raise


def _prepared_here(settings: ReplicaSettings, queries: Sequence[Query]) -> Prepared:
    """Prepare in the driver, which has imported torch, and leave its number of threads alone."""
    threads = torch.get_num_threads()
    try:
        return prepare(settings, queries)
    finally:
        torch.set_num_threads(threads)
