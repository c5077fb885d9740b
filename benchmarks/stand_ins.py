"""Stages that sleep instead of working. They import little, as every worker loads them."""

import time
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from pipeline.progress.progress import Reporter
from pipeline.schema import EMBEDDING, Status, map_column

EMBEDDING_WIDTH = 512
GRID = (14, 14)


class SleepingDecoder:
    """Sleeps `seconds` for each image and returns pixels of realistic size."""

    def __init__(self, seconds: float, size: int, schema: pa.Schema, reporter: Reporter) -> None:
        self.seconds = seconds
        self.pixels = bytes(3 * size * size)
        self.schema = schema
        self.reporter = reporter

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Rows of `source_schema` -> as many rows of `decoded_schema`."""
        with self.reporter.timed("decode"):
            time.sleep(self.seconds * batch.num_rows)
            columns = {name: batch[name] for name in batch.column_names}
            made = {"pixels": self.pixels, "sha256": "0" * 64, "width": 500, "height": 375}
            for name, value in made.items():
                one = pa.scalar(value, self.schema.field(name).type)
                columns[name] = pa.repeat(one, batch.num_rows)
            return pa.table([columns[name] for name in self.schema.names], schema=self.schema)


class SleepingExplainer:
    """Sleeps `seconds` for each batch and returns maps that compress as real ones do."""

    def __init__(
        self, seconds: float, schema: pa.Schema, names: Sequence[str], reporter: Reporter
    ) -> None:
        self.seconds = seconds
        self.schema = schema
        self.names = names
        self.reporter = reporter
        self.noise = np.random.default_rng()  # unseeded, so that actors differ

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Rows of `decoded_schema` -> as many rows of the output's schema."""
        with self.reporter.timed("explain"):
            time.sleep(self.seconds)
        columns: dict[str, pa.Array | pa.ChunkedArray] = {
            name: batch[name] for name in batch.column_names if name in self.schema.names
        }
        columns["status"] = pa.array([str(Status.OK)] * batch.num_rows)
        for field in self.schema:
            if field.name not in columns:
                columns[field.name] = self._made(field, batch.num_rows)
        table = pa.table([columns[n] for n in self.schema.names], schema=self.schema)
        self.reporter.batch(table, len(self.names) * batch.num_rows)
        return table

    def _made(self, field: pa.Field, rows: int) -> pa.Array:
        if field.name == EMBEDDING:
            values = self.noise.normal(size=rows * EMBEDDING_WIDTH).astype(np.float16)
            offsets = np.arange(0, values.size + 1, EMBEDDING_WIDTH, dtype=np.int32)
            return pa.ListArray.from_arrays(offsets, values.astype(np.float32))
        if field.name.startswith(map_column("")):
            cells = self.noise.integers(0, 200, (rows, GRID[0] * GRID[1]), dtype=np.uint8)
            return pa.array([cells_of_row.tobytes() for cells_of_row in cells], field.type)
        return pa.array(self.noise.random(rows, dtype=np.float32))
