"""Parquet parts, committed with Ray Data's checkpoint: pending ids -> data file -> rename."""

import warnings
from typing import Any

import pyarrow as pa
import ray.data
from ray.data._internal.logical.operators import Read
from ray.data.checkpoint import CheckpointConfig

from pipeline.cluster import RETRIES
from pipeline.errors import RunError
from pipeline.manifest import RunFolder
from pipeline.parts import PENDING, arrow_filesystem
from pipeline.schema import EMBEDDING

ROW_GROUP_ROWS = 10_000
_NOT_RESUMABLE = (
    "Ray would not resume this plan, so a restart would write rows twice: it must be "
    "Read -> map_batches -> write_parquet, with a checkpoint."
)
_SWITCHED_OFF = "You've enabled checkpointing, but the logical plan doesn't support"


def checkpoint_config(folder: RunFolder) -> CheckpointConfig:
    """Row-level checkpoint by image_id, kept after success so that new shards can follow."""
    return CheckpointConfig(
        id_column="image_id",
        checkpoint_path=folder.checkpoint.path,
        delete_checkpoint_on_success=False,
        override_filesystem=arrow_filesystem(folder.checkpoint),
    )


def tidy(folder: RunFolder) -> None:
    """Before a run: drop pending files whose part is already committed.

    A kill between the copy and the delete of a commit on object storage leaves both; Ray would then
    delete the data and keep its ids.
    """
    names = set(folder.checkpoint.files())
    for name in names:
        if name.endswith(PENDING) and name.replace(PENDING, ".parquet") in names:
            folder.checkpoint.fs.rm_file(folder.checkpoint.child(name).path)


def write(
    rows: "ray.data.Dataset", folder: RunFolder, schema: pa.Schema, rows_per_part: int
) -> None:
    """Execute the plan and write its rows.

    Args:
        rows: of ``schema``; its plan must be Read -> maps -> Write.
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
    waiting = [rows._logical_plan.dag]
    while waiting:
        operator = waiting.pop()
        waiting += operator.input_dependencies
        if not operator.input_dependencies and not isinstance(operator, Read):
            raise RunError(f"{_NOT_RESUMABLE} This one starts with {operator.name}.")


def parquet_options(schema: pa.Schema) -> dict[str, Any]:
    """zstd 3; statistics on everything but maps and embeddings, which nobody filters by."""
    plain = [n for n in schema.names if not n.startswith("heatmap__") and n != EMBEDDING]
    return {"compression": "zstd", "compression_level": 3, "write_statistics": plain}
