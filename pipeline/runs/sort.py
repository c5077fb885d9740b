"""Sort the rows of a run by image_id into parts of equal size, out of core.

Ids from a sample divide the id range into parts of equal size. Each row is appended to a scratch
file for its part; then each scratch file is sorted and written as a part. Memory holds one part,
the scratch folder at most `PARTS_PER_PASS`.
"""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.errors import RunError
from pipeline.machine import map_in_threads
from pipeline.runs import book
from pipeline.runs.manifest import RunFolder
from pipeline.runs.parts import ids_of, write_part
from pipeline.schema import BOOK_FIELD
from pipeline.storage.location import Location, arrow_filesystem

ROWS_PER_PART = 100_000
BYTES_PER_PART = 512 * 2**20
PARTS_PER_PASS = 256
SAMPLED_IDS = 1_000_000
_BATCH_ROWS = 2048


def sort_parts(sources: Sequence[Location], rows: int, new: RunFolder, ends: pa.Table) -> None:
    """Write the rows of the given parts into new ones, sorted by image_id.

    Args:
        sources: parts with the same schema.
        rows: number of rows in all of them.
        new: folder of the run that is written.
        ends: ends of all read units; the first new part records them.

    Raises:
        RunError: an image id occurs twice.
    """
    cuts = _cuts(sources, rows)
    spans = np.array(list(map_in_threads(span_of, sources)), dtype=object)
    schema = next(_batches(sources[0])).schema
    part_spans = np.searchsorted(cuts, spans.ravel(), side="right").reshape(spans.shape)
    for first in range(0, len(cuts) + 1, PARTS_PER_PASS):
        last = min(first + PARTS_PER_PASS, len(cuts) + 1)
        overlapping = [
            source
            for source, (begin, end) in zip(sources, part_spans, strict=True)
            if begin < last and end >= first
        ]
        with tempfile.TemporaryDirectory(prefix="legrad-compact-") as scratch:
            buckets = _scatter(overlapping, schema, cuts, range(first, last), Path(scratch))
            for number, bucket in buckets.items():
                written = _write_part(bucket, new, number, ends)
                ends = ends.slice(0, 0) if written else ends
                bucket.unlink()


def _cuts(sources: Sequence[Location], rows: int) -> NDArray[np.object_]:
    """Ids at which a new part begins, from a sample spread over all rows."""
    step = max(1, rows // SAMPLED_IDS)
    samples = map_in_threads(lambda part: ids_of(part)[::step], sources)
    ids = pa.concat_arrays(list(samples)).sort()
    sizes = list(map_in_threads(_uncompressed, sources))
    count = max(-(-rows // ROWS_PER_PART), -(-sum(sizes) // BYTES_PER_PART))
    cut_positions = [len(ids) * number // count for number in range(1, count)]
    return np.array(ids.take(pa.array(cut_positions, pa.int64())).to_pylist(), dtype=object)


def _uncompressed(part: Location) -> int:
    data = pq.read_metadata(part.path, filesystem=arrow_filesystem(part))
    return sum(data.row_group(i).total_byte_size for i in range(data.num_row_groups))


def _scatter(
    sources: Sequence[Location],
    schema: pa.Schema,
    cuts: NDArray[np.object_],
    numbers: range,
    scratch: Path,
) -> dict[int, Path]:
    """Write each row that belongs to one of the new parts `numbers` to that part's scratch file."""
    paths = {number: scratch / f"{number:06d}.arrow" for number in numbers}
    with ExitStack() as stack:
        options = pa.ipc.IpcWriteOptions(compression="lz4")
        writers = {
            number: stack.enter_context(pa.ipc.new_stream(str(path), schema, options=options))
            for number, path in paths.items()
        }
        for source in sources:
            for table in _batches(source):
                ids = np.array(table["image_id"].to_pylist(), dtype=object)
                bucket = np.searchsorted(cuts, ids, side="right")
                for number in np.intersect1d(bucket, numbers):
                    writers[int(number)].write_table(table.filter(pa.array(bucket == number)))
    return paths


def span_of(part: Location) -> tuple[str, str]:
    """The smallest and the largest image id of a part."""
    span = pc.min_max(ids_of(part)).as_py()
    return span["min"], span["max"]


def _batches(part: Location) -> Iterator[pa.Table]:
    """Yield a part's rows in small tables, with the column `BOOK` if the part records it."""
    with arrow_filesystem(part).open_input_file(part.path) as stream:
        file = pq.ParquetFile(stream)
        record = book.from_metadata(file.metadata.metadata)
        positions = None if record is None else book.positions(record[0])
        first = 0
        for batch in file.iter_batches(_BATCH_ROWS):
            table = pa.Table.from_batches([batch])
            if positions is not None:
                table = table.append_column(BOOK_FIELD, positions.slice(first, batch.num_rows))
            first += batch.num_rows
            yield table


def _write_part(bucket: Path, new: RunFolder, number: int, ends: pa.Table) -> bool:
    """Sort the rows of one part and write it; return whether there were any.

    Raises:
        RunError: an image id occurs twice.
    """
    with pa.ipc.open_stream(str(bucket)) as stream:
        table = stream.read_all()
    if not table.num_rows:
        return False
    table = table.take(pc.sort_indices(table["image_id"])).combine_chunks()
    ids = table["image_id"]
    same = pc.equal(ids.slice(1), ids.slice(0, len(ids) - 1))
    if pc.any(same).as_py():
        first = ids.filter(pa.chunked_array([pa.array([False]), *same.chunks]))[0]
        raise RunError(f"image {first} occurs twice, so the run cannot be compacted")
    write_part(new.images, table, ends, number)
    return True
