"""Does an output add up: every state it can be in, made by hand."""

import json
from pathlib import Path

import pytest

from pipeline.errors import UsageError
from pipeline.runs.check import check, failures
from pipeline.runs.completeness import complete, unread_notes
from pipeline.runs.manifest import RunFolder, run_folder
from pipeline.runs.parts import Ledger
from pipeline.sources.read_unit import Part, Unit
from tests.parts import chunk, make_run, part, ray_name, row, rows, tar
from tests.runs.test_waves import record, work

SHARDS = [tar("0.tar"), tar("1.tar"), tar("2.tar")]


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    folder = make_run(tmp_path / "out")
    manifest = json.loads(folder.manifest.read())
    manifest["source"]["format"] = "webdataset"
    folder.manifest.write(json.dumps(manifest).encode())
    work(folder, *SHARDS)
    return folder


def commit(folder: RunFolder, number: int, shard: str, *keys: str) -> None:
    part(folder, ray_name(number), rows(shard, keys), "wave-0000")


def fill(folder: RunFolder) -> None:
    """All three shards, two rows each, one of them failed; and the marker."""
    commit(folder, 0, "0.tar", "a", "b")
    commit(folder, 1, "1.tar", "a", "b")
    bad = row("2.tar", "b", status="truncated", error="ends early")
    part(folder, ray_name(2), [*rows("2.tar", ["a"]), bad], "wave-0000")
    complete(folder, SHARDS, Ledger(folder).refresh(), record(folder, *SHARDS), [])


def test_a_complete_run(folder: RunFolder) -> None:
    fill(folder)
    found = check(folder)
    assert found.sound
    assert (found.rows, found.parts, found.marked) == (6, 3, 6)
    assert found.statuses == {"ok": 5, "truncated": 1}
    assert [(s.name, s.expected, s.rows, s.ok) for s in found.shards] == [
        ("0.tar", 2, 2, 2),
        ("1.tar", 2, 2, 2),
        ("2.tar", 2, 2, 1),
    ]
    listed = failures(folder)
    assert listed[["image_id", "status", "error"]].to_numpy().tolist() == [
        ["2.tar/b", "truncated", "ends early"]
    ]


def test_a_run_that_was_stopped(folder: RunFolder) -> None:
    record(folder, SHARDS[0], SHARDS[1])
    commit(folder, 0, "0.tar", "a", "b")
    commit(folder, 1, "1.tar", "a")
    found = check(folder)
    assert not found.sound
    assert [(s.expected, s.rows, s.missing) for s in found.shards] == [
        (2, 2, 0),
        (2, 1, 1),
        (None, 0, 0),
    ]
    told = "; ".join(found.problems)
    assert "1 of 3 shards are not read to the end" in told
    assert "1 rows of 1 shards are missing" in told
    assert "no attempt has finished" in told


def test_a_part_that_was_deleted_afterwards(folder: RunFolder) -> None:
    fill(folder)
    Path(folder.images.child(f"{ray_name(1)}-0.parquet").path).unlink()
    found = check(folder)
    assert [s.missing for s in found.shards] == [0, 2, 0]
    assert "6 rows when it finished, 4 now" in found.problems


def test_rows_that_stand_twice(folder: RunFolder) -> None:
    fill(folder)
    commit(folder, 7, "1.tar", "b")
    found = check(folder)
    assert found.duplicates == ("1.tar/b",)
    assert any("1 image ids stand twice, 1.tar/b first" in told for told in found.problems)


def test_a_shard_whose_rest_the_storage_kept_is_not_read_to_its_end(folder: RunFolder) -> None:
    commit(folder, 0, "0.tar", "a", "b")
    commit(folder, 1, "1.tar", "a", "b")
    unread = row("2.tar", "#unreadable", status="read_error", error="after 1 rows: 503")
    part(folder, ray_name(2), [*rows("2.tar", ["a"]), unread], "wave-0000")
    ledger = Ledger(folder).refresh()
    complete(folder, SHARDS, ledger, record(folder, *SHARDS), [])
    found = check(folder)
    assert [(s.expected, s.rows, s.ok) for s in found.shards] == [
        (2, 2, 2),
        (2, 2, 2),
        (None, 2, 1),
    ]
    assert found.problems == ["1 of 3 shards are not read to the end"]
    (told,) = unread_notes(ledger, ["read_error"])
    assert "1 rows could not be read" in told
    assert "The same command tries again" in told
    assert "runtime.redo" in unread_notes(ledger, [])[0]
    assert unread_notes(Ledger(folder), []) == ()


def test_nothing_committed_yet(folder: RunFolder) -> None:
    found = check(folder)
    assert (found.rows, found.duplicates, len(found.unread)) == (0, (), 3)
    assert failures(folder).empty


def test_a_folder_of_files_has_one_row_a_file(folder: RunFolder) -> None:
    manifest = json.loads(folder.manifest.read())
    manifest["source"]["format"] = "folder"
    folder.manifest.write(json.dumps(manifest).encode())
    record(folder, *SHARDS[:1], count=2)
    part(folder, ray_name(0), rows("0.tar", ["a"]), "wave-0000")
    assert [(s.expected, s.missing) for s in check(folder).shards] == [(1, 0), (1, 1), (1, 1)]


def test_units_that_read_one_file_count_together(folder: RunFolder) -> None:
    """Parts of a table, and tars that one unit reads for a limit."""
    (file,) = tar("a.parquet").files
    parts = [Unit(f"a.parquet@{n}", (file,), Part(n, 5, 10)) for n in (0, 5)]
    book = record(folder, *parts, chunk("x.tar", "y.tar"), count=5)
    commit(folder, 0, "a.parquet", *map(str, range(10)))
    commit(folder, 1, "x.tar", "a", "b")
    commit(folder, 2, "y.tar", "a", "b", "c")
    states = {s.name: (s.expected, s.rows) for s in check(folder).shards}
    assert states["a.parquet"] == (10, 10)
    assert states["x.tar"] == (5, 5)
    assert not book.faults([*parts, chunk("x.tar", "y.tar")], Ledger(folder).refresh().shards())


def test_no_run_has_no_failures_to_list(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no run there"):
        failures(run_folder(str(tmp_path / "typo")))
