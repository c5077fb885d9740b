"""A run without Ray and without a model, as a process to be killed: ``python -m ... IN OUT SEED``.

It reads, leaves out committed rows, writes parts and completes as a run does. Parts hold rows of
several shards in an order by chance, as those of many workers do.
"""

import random
import sys
from collections.abc import Iterator

import pyarrow as pa

from pipeline.config import RuntimeConfig
from pipeline.progress.progress import Reporter
from pipeline.runs.completeness import mark_complete
from pipeline.runs.lease import Fence, hold_lease
from pipeline.runs.manifest import RunFolder, run_folder
from pipeline.runs.resume import find_work
from pipeline.schema import with_book
from pipeline.sources.datasource import ImageSource, open_source, read_units
from pipeline.sources.read_unit import Unit
from pipeline.stages.write import PartSink
from tests.data import settings
from tests.parts import SCHEMA

ROWS = 9


class Ends(Reporter):
    """Gathers the ends that no row carries."""

    def __init__(self) -> None:
        super().__init__()
        self.ends: list[str] = []

    def shard(self, name: str, rows: int, size: int, end: str | None = None) -> None:
        self.ends += [] if end is None else [end]


def main(source: str, output: str, seed: int) -> None:
    """Run to the end."""
    config = settings("webdataset", source)
    folder = run_folder(output)
    opened = open_source(config)
    with hold_lease(folder) as fence:
        work = find_work(folder, opened.units, RuntimeConfig(), print)
        ends = Ends()
        _write(opened, work.left, folder, fence, ends, random.Random(seed))
        fence.require()
        work.ledger.remember(ends.ends)
        mark_complete(work.ledger.refresh(), opened.units, [], print)


def _write(
    source: ImageSource,
    units: tuple[Unit, ...],
    folder: RunFolder,
    fence: Fence,
    ends: Reporter,
    chance: random.Random,
) -> None:
    sink = PartSink(folder, SCHEMA, ROWS, fence)
    streams = [_rows(source, unit, ends) for unit in units]
    held_back: list[pa.Table] = []
    while streams:
        stream = chance.choice(streams)
        table = next(stream, None)
        if table is None:
            streams.remove(stream)
        else:
            held_back.append(table)
        if len(held_back) >= ROWS or (held_back and not streams):
            sink.write(held_back, None)
            held_back = []


def _rows(source: ImageSource, unit: Unit, ends: Reporter) -> Iterator[pa.Table]:
    """Rows of a unit one by one, with columns made up from their ids."""
    schema = with_book(SCHEMA)
    for block in read_units(source.source, [unit], ends):
        for number in range(block.num_rows):
            row = block.slice(number, 1)
            score = float(sum(row["image_id"][0].as_py().encode()) % 97)
            columns = {name: row[name] for name in row.column_names if name in schema.names}
            made = {"score__cue": pa.array([score], pa.float32())}
            yield pa.table(
                [columns.get(f.name, made.get(f.name, pa.nulls(1, f.type))) for f in schema],
                schema=schema,
            )


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
