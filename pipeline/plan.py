"""Everything that is decided before the first image is read."""

from dataclasses import dataclass

import pyarrow as pa
import ray

from legrad.errors import UnsupportedModelError
from pipeline.cluster.resources import BLOCK_BYTES, Resources
from pipeline.cluster.session import RETRIES
from pipeline.config import RunConfig
from pipeline.errors import UsageError
from pipeline.runs import manifest
from pipeline.runs.manifest import RunFolder
from pipeline.runs.model_facts import Prepared
from pipeline.schema import output_schema
from pipeline.sources.datasource import ImageSource
from pipeline.sources.rows import BLOCK_ROWS
from pipeline.stages.replica import ReplicaSettings, prepare
from pipeline.storage.location import is_storage_error, redact

SECONDS_PER_PART = 60
SECONDS_OF_FIRST_PART = 4
SECONDS_PER_BLOCK = 4
MOST_PART_ROWS = 50_000
NO_PROGRESS_SECONDS = 600
SLOW_BLOCK = 10  # times the expected seconds of a block before Ray gives a run up


@dataclass(frozen=True)
class Plan:
    """What a run does, and with what.

    Attributes:
        config, folder, source: as the user wants them.
        prepared: what the model said of itself.
        resources: of the replicas.
        settings: of one replica.
        schema: of the output.
        rows_per_part: least rows of a Parquet part.
        rows_of_first_part: the same for the first one; later ones grow.
    """

    config: RunConfig
    folder: RunFolder
    source: ImageSource
    prepared: Prepared
    resources: Resources
    settings: ReplicaSettings
    schema: pa.Schema
    rows_per_part: int
    rows_of_first_part: int

    @property
    def names(self) -> list[str]:
        """Of the queries, in their order."""
        return [query.name for query in self.config.queries]

    @property
    def batch_size(self) -> int:
        """Images explained at once."""
        return self.prepared.batch_size

    @property
    def patience(self) -> float:
        """Seconds without a finished block after which Ray gives up.

        Ray counts finished blocks; one of a large model and many queries takes its time.
        """
        rows = min(BLOCK_ROWS, self.block_bytes // self._pixel_bytes + self.batch_size)
        hang = 2 * (RETRIES + 1) * self.config.runtime.image_timeout
        return max(NO_PROGRESS_SECONDS, hang, SLOW_BLOCK * rows / self.prepared.images_per_second)

    @property
    def block_bytes(self) -> int:
        """Size of the blocks that Ray Data hands from stage to stage.

        A replica finishes its maps block by block: with a slow model a block is some seconds of
        work, so that they are not lost when a run is stopped, and a batch at least.
        """
        work = round(self.prepared.images_per_second * SECONDS_PER_BLOCK)
        return min(BLOCK_BYTES, max(self.batch_size, work) * self._pixel_bytes)

    @property
    def _pixel_bytes(self) -> int:
        height, width = self.prepared.preprocess.size
        return 3 * height * width


def make_plan(config: RunConfig, folder: RunFolder, source: ImageSource, spread: Resources) -> Plan:
    """Load the model once on a worker and decide what is left to decide.

    Args:
        config, folder, source: of the run.
        spread: what the replicas get.

    Raises:
        UsageError: the model cannot be loaded.
    """
    given = config.runtime.batch_size
    size = None if given == "auto" else given
    settings = ReplicaSettings(config.model, spread.device, spread.threads, size, config.selection)
    prepared = _prepared(config, settings, spread)
    schema = output_schema(
        config.source.carry,
        [query.name for query in config.queries],
        prepared.grid,
        maps=config.map_columns,
        embeddings=config.store.embeddings,
        properties=config.store.properties,
        metadata=manifest.file_metadata(config, prepared),
    )
    wanted = config.runtime.rows_per_part
    a_minute = round(prepared.images_per_second * spread.actors * SECONDS_PER_PART)
    rows = max(prepared.batch_size, min(MOST_PART_ROWS, a_minute)) if wanted == "auto" else wanted
    first = rows * SECONDS_OF_FIRST_PART // SECONDS_PER_PART if wanted == "auto" else rows
    first = max(prepared.batch_size, first)
    return Plan(config, folder, source, prepared, spread, settings, schema, rows, first)


def _prepared(config: RunConfig, settings: ReplicaSettings, spread: Resources) -> Prepared:
    # Ray ends a worker that had a GPU, and its memory there; others stay warm for what comes next.
    remote = ray.remote(num_cpus=spread.cpus, num_gpus=spread.gpus, max_retries=0)(prepare)
    try:
        found: Prepared = ray.get(remote.remote(settings, list(config.queries)))
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        if isinstance(cause, (UnsupportedModelError, UsageError)) or is_storage_error(cause):
            raise UsageError(f"model {config.model.name}: {redact(str(cause))}") from error
        raise
    return found
