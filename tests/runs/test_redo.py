"""Rows of what the storage would not give are done again by the same command."""

import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import open_results
from pipeline.flow import run
from pipeline.runs.manifest import RunFolder, run_folder
from pipeline.runs.parts import Ledger, committed_parts
from pipeline.runs.retry_rows import reopen
from pipeline.storage.location import Location
from tests.data import jpeg, mini_config


def test_read_errors_are_done_again(ray_session: None, tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    for name in ("a", "b", "c"):
        (source / f"{name}.jpg").write_bytes(jpeg(ord(name)))
    (source / "d.jpg").symlink_to(source / "later")
    config = mini_config({"format": "folder", "uri": str(source)}, out)
    assert run(config).statuses == {"ok": 3, "read_error": 1}
    (part,) = committed_parts(run_folder(str(out)))
    before = pq.read_schema(part.path)

    (source / "later").write_bytes(jpeg(7))
    summary = run(config)
    assert summary.statuses == {"ok": 5}  # `later` is a file as well
    images = open_results(str(out)).images()
    assert sorted(images.index) == ["a.jpg", "b.jpg", "c.jpg", "d.jpg", "later"]
    assert summary.resumed == 3
    assert run(config).already_complete
    assert pq.read_schema(part.path).equals(before, check_metadata=True)
    heats = list(open_results(str(out)).batches(["fish"]))
    assert sum(map(len, heats)) == 5


def write_part(folder: RunFolder, name: str, statuses: list[str], numbered: bool = False) -> None:
    ids = [f"{name}{n}" for n in range(len(statuses))]
    numbers = pa.array(range(len(ids)) if numbered else [None] * len(ids), pa.int64())
    columns = {"image_id": ids, "shard": [name] * len(ids), "row": numbers, "status": statuses}
    rows = pa.table(columns)
    for place in (
        folder.images.child(f"{name}-0.parquet"),
        folder.checkpoint.child(f"{name}.parquet"),
    ):
        sink = io.BytesIO()
        pq.write_table(
            rows if place.path.endswith("-0.parquet") else rows.select(["image_id"]), sink
        )
        place.write(sink.getvalue())


def ids(place: Location) -> list[str]:
    return pq.read_table(place.path)["image_id"].to_pylist()


def test_only_the_rows_that_are_asked_for_go(tmp_path: Path) -> None:
    folder = run_folder(str(tmp_path))
    write_part(folder, "a", ["ok", "read_error", "ok"])
    write_part(folder, "b", ["ok", "decode_error"])
    write_part(folder, "c", ["read_error"])
    told: list[object] = []
    assert reopen(folder, [], told.append) == 0
    assert reopen(folder, ["read_error"], told.append) == 2
    assert folder.images.files() == ["a-0.parquet", "b-0.parquet"]
    assert folder.checkpoint.files() == ["a.parquet", "b.parquet"]
    assert ids(folder.images.child("a-0.parquet")) == ids(folder.checkpoint.child("a.parquet"))
    assert ids(folder.images.child("a-0.parquet")) == ["a0", "a2"]
    assert reopen(folder, ["read_error"], told.append) == 0
    assert reopen(folder, ["decode_error"], told.append) == 1
    assert told == [["a", "c"], [], ["b"]]
    assert Ledger(folder).refresh().rows == 3


def test_counts_are_forgotten_before_a_row_goes(tmp_path: Path) -> None:
    """Else a kill in between leaves the count of a shard that had been read in part: as soon as as
    many rows are there again, the rest of it would never be read.
    """
    folder = run_folder(str(tmp_path))
    write_part(folder, "a", ["ok", "read_error"])

    def killed(shards: object) -> None:
        assert shards == ["a"]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        reopen(folder, ["read_error"], killed)
    assert len(ids(folder.images.child("a-0.parquet"))) == 2
    assert len(ids(folder.checkpoint.child("a.parquet"))) == 2


def test_a_row_of_a_table_stays_one_row(tmp_path: Path) -> None:
    folder, told = run_folder(str(tmp_path)), []
    write_part(folder, "a", ["ok", "read_error"], numbered=True)
    assert reopen(folder, ["read_error"], told.append) == 1
    assert told == [[]]


def test_a_kill_in_the_middle_is_healed(tmp_path: Path) -> None:
    folder = run_folder(str(tmp_path))
    write_part(folder, "a", ["ok", "read_error"])
    commit, part = folder.checkpoint.child("a.parquet"), folder.images.child("a-0.parquet")
    pq.write_table(pq.read_table(commit.path).slice(0, 1), commit.path)  # after the ids, that is
    assert len(ids(part)) == 2
    assert reopen(folder, ["read_error"]) == 1
    assert ids(part) == ids(commit) == ["a0"]
