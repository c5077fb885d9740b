"""Parquet parts, committed with Ray Data's checkpoint: pending ids -> data file -> rename."""

import warnings

import pyarrow as pa
import ray.data
from ray.data.checkpoint import CheckpointConfig
from ray.data.datasource import FilenameProvider

from pipeline.cluster.ray_internals import sources_without_checkpoint
from pipeline.cluster.session import RETRIES
from pipeline.errors import RunError
from pipeline.runs.lease import Fence
from pipeline.runs.manifest import RunFolder
from pipeline.runs.parts import ROW_GROUP_ROWS, arrow_filesystem, parquet_options
from pipeline.storage.location import Location

_NOT_RESUMABLE = (
    "Ray would not resume this plan, so a restart would write rows twice: it must be "
    "Read -> map_batches -> write_parquet, with a checkpoint."
)
_SWITCHED_OFF = "You've enabled checkpointing, but the logical plan doesn't support"


def checkpoint_config(place: Location) -> CheckpointConfig:
    """Row-level checkpoint by image_id, kept after success so that new shards can follow.

    Args:
        place: folder of a wave's commits.
    """
    return CheckpointConfig(
        id_column="image_id",
        checkpoint_path=place.path,
        delete_checkpoint_on_success=False,
        override_filesystem=arrow_filesystem(place),
    )


class _Guarded(FilenameProvider):
    """Names parts as Ray does, for those that hold the lease.

    A write task asks for its name before it writes the ids and again before the data.
    """

    def __init__(self, fence: Fence) -> None:
        super().__init__(file_format="parquet")
        self.fence = fence

    def get_filename_for_task(self, write_uuid: str, task_index: int) -> str:
        """Raises: RunError: the lease is lost."""
        self.fence.require()
        return str(super().get_filename_for_task(write_uuid, task_index))


def write(
    rows: "ray.data.Dataset",
    folder: RunFolder,
    schema: pa.Schema,
    rows_per_part: int,
    fence: Fence,
) -> None:
    """Execute the plan and write its rows.

    Args:
        rows: of ``schema``; its plan must be Read -> maps -> Write.
        folder: of the run.
        schema: of every part.
        fence: asked before every part.
        rows_per_part: least rows of a part (the last ones may be smaller).

    Raises:
        RunError: Ray would run this plan without its checkpoint.
    """
    _require_checkpoint(rows)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=_SWITCHED_OFF)
        try:
            rows.write_parquet(
                folder.images.path,
                filesystem=arrow_filesystem(folder.images),
                filename_provider=_Guarded(fence),
                min_rows_per_file=rows_per_part,
                row_group_size=ROW_GROUP_ROWS,
                schema=schema,
                ray_remote_args={"max_retries": RETRIES},
                **parquet_options(schema),
            )
        except UserWarning as warning:
            raise RunError(f"{_NOT_RESUMABLE} Ray says: {warning}") from warning


def _require_checkpoint(rows: "ray.data.Dataset") -> None:
    """Ray filters committed rows right after Read; a plan that starts otherwise is never filtered,
    and Ray only warns of some of them.
    """
    if rows.context.checkpoint_config is None:
        raise RunError(f"{_NOT_RESUMABLE} There is no checkpoint in its DataContext.")
    for name in sources_without_checkpoint(rows):
        raise RunError(f"{_NOT_RESUMABLE} This one starts with {name}.")
