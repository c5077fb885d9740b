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
    """Writes the rows of a write task as one part, while this run holds the lease.

    Args:
        folder: the output of the run.
        schema: the schema of the output, without the column of the book.
        rows: minimum number of rows in a part; the last parts may be smaller.
        fence: checks before each part that this run still holds the lease.
    """

    def __init__(self, folder: RunFolder, schema: pa.Schema, rows: int, fence: Fence) -> None:
        self.folder = folder
        self.schema = with_book(schema)
        self.rows = rows
        self.fence = fence

    @property
    def min_rows_per_write(self) -> int:
        """See `Datasink.min_rows_per_write`."""
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
