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

DOUBLED_EVERY = 2
"""Parts of one size before they double."""


class GrowingRows(int):
    """Least rows of the next part: small at first, doubling up to the number that this is.

    What a run has finished in its first seconds is committed soon, and later parts stay few. Ray
    Data compares the rows at hand with this number before every write, in the driver: ``rows >=
    least`` asks the right side first, as its type is a subclass of the left one's.
    """

    _next: int
    _written: int

    def __new__(cls, most: int, first: int) -> "GrowingRows":
        """Start with ``first`` rows, and never ask for more than ``most``."""
        rows = super().__new__(cls, most)
        rows._next, rows._written = min(first, most), 0
        return rows

    def __reduce__(self) -> tuple[type[int], tuple[int]]:
        return int, (int(self),)  # workers have no use for more

    def __le__(self, rows: int) -> bool:
        enough = rows >= self._next
        if enough:
            self._written += 1
            if self._written % DOUBLED_EVERY == 0:
                self._next = min(2 * self._next, int(self))
        return enough


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
