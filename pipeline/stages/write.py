"""The last stage: blocks of rows become parts, each written in one piece."""

from collections.abc import Iterable

import pyarrow as pa
from ray.data import Dataset
from ray.data.block import Block
from ray.data.datasource import Datasink

from pipeline.cluster.session import RETRIES
from pipeline.runs.lease import Fence
from pipeline.runs.manifest import RunFolder
from pipeline.runs.parts import write_part
from pipeline.schema import with_book


class PartSink(Datasink[None]):
    """Writes the rows of a write task as one part, for those that hold the lease.

    Args:
        folder: of the run.
        schema: of every part.
        rows: least rows of a part; the last ones may be smaller.
        fence: asked before every part.
    """

    def __init__(self, folder: RunFolder, schema: pa.Schema, rows: int, fence: Fence) -> None:
        self.folder = folder
        self.schema = with_book(schema)
        self.rows = rows
        self.fence = fence

    @property
    def min_rows_per_write(self) -> int:
        """As Ray Data asks for it."""
        return self.rows

    def write(self, blocks: Iterable[Block], ctx: object) -> None:  # noqa: ARG002 - Ray's signature
        """Commit a part.

        Raises:
            RunError: the lease is lost.
            OSError: the storage refuses.
        """
        tables = [
            block.cast(self.schema)
            for block in blocks
            if isinstance(block, pa.Table) and block.num_rows
        ]
        if not tables:
            return
        self.fence.require()
        write_part(self.folder.images, pa.concat_tables(tables))


def write(rows: Dataset, sink: PartSink) -> None:
    """Execute the plan and write its rows."""
    rows.write_datasink(sink, ray_remote_args={"max_retries": RETRIES})
