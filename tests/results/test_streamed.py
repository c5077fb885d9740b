"""Batches of stored files: all rows, in order, a few row groups at a time."""

from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from pipeline.results.streamed import in_batches


@pytest.fixture
def dataset(tmp_path: Path) -> ds.FileSystemDataset:
    """Three files, one of them empty, with row groups of seven rows."""
    for number, count in enumerate((20, 0, 9)):
        start = 100 * number
        table = pa.table({"n": range(start, start + count), "text": ["x" * 1000] * count})
        table = table.cast(pa.schema({"n": pa.int64(), "text": pa.string()}))
        pq.write_table(table, tmp_path / f"{number}.parquet", row_group_size=7)
    return ds.dataset(tmp_path, format="parquet")


@pytest.mark.parametrize("rows", [None, 1, 5, 7, 100])
def test_all_rows_come_in_order(dataset: ds.FileSystemDataset, rows: int | None) -> None:
    batches = list(in_batches(dataset, ["n"], rows))
    numbers = [value for batch in batches for value in batch["n"].to_pylist()]
    assert numbers == [*range(20), *range(200, 209)]
    assert max(batch.num_rows for batch in batches) == min(rows or 7, 7)
    assert batches[0].schema.names == ["n"]


def test_few_groups_are_in_memory(tmp_path: Path) -> None:
    """pyarrow's own batches are all read by the time that a slow reader has the first one."""
    text = pa.array(["".join(map(str, range(n, n + 2000))) for n in range(400)])
    pq.write_table(pa.table({"text": text}), tmp_path / "0.parquet", row_group_size=10)
    size = text.nbytes
    del text
    before, most = pa.total_allocated_bytes(), 0
    for _ in in_batches(ds.dataset(tmp_path, format="parquet"), ["text"], 5):
        most = max(most, pa.total_allocated_bytes() - before)
    assert 0 < most < size / 4


def test_the_reader_may_stop(dataset: ds.FileSystemDataset) -> None:
    first = next(in_batches(dataset, ["n"], 3))
    assert first["n"].to_pylist() == [0, 1, 2]


def test_what_reads_as_a_dataset_is_asked_itself() -> None:
    memory = ds.dataset(pa.table({"n": [1, 2, 3], "m": [4, 5, 6]}))
    assert [b.to_pydict() for b in in_batches(memory, ["m"], 2)] == [{"m": [4, 5]}, {"m": [6]}]
