"""Does an output add up: every state it can be in, made by hand."""

import json
from pathlib import Path

import pytest

from pipeline.errors import UsageError
from pipeline.runs.check import check, failures
from pipeline.runs.completeness import mark_complete, unread_notes
from pipeline.runs.ledger import Ledger
from pipeline.runs.manifest import RunFolder, run_folder
from pipeline.schema import BOOK
from pipeline.sources.read_unit import Part, Unit, stand_in
from tests.parts import earlier_part, end, make_run, part, ray_name, row, rows, tar
from tests.runs.test_resume import work

SHARDS = [tar("0.tar"), tar("1.tar"), tar("2.tar")]


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    folder = make_run(tmp_path / "out")
    manifest = json.loads(folder.manifest.read())
    manifest["source"]["format"] = "webdataset"
    folder.manifest.write(json.dumps(manifest).encode())
    work(folder, *SHARDS)
    return folder


def fill(folder: RunFolder) -> None:
    """All three shards, two rows each, one of them failed; and the marker."""
    part(folder, rows("0.tar", "ab"), ends=[end(SHARDS[0], 2)])
    part(folder, rows("1.tar", "ab"), ends=[end(SHARDS[1], 2)])
    bad = row("2.tar", "b", status="truncated", error="ends early")
    part(folder, [*rows("2.tar", "a"), bad], ends=[end(SHARDS[2], 2)])
    mark_complete(Ledger(folder).refresh(), SHARDS, [])


def test_a_complete_run(folder: RunFolder) -> None:
    fill(folder)
    result = check(folder)
    assert result.sound
    assert (result.rows, result.parts, result.rows_at_completion) == (6, 3, 6)
    assert result.statuses == {"ok": 5, "truncated": 1}
    assert [(s.name, s.expected, s.rows, s.ok) for s in result.shards] == [
        ("0.tar", 2, 2, 2),
        ("1.tar", 2, 2, 2),
        ("2.tar", 2, 2, 1),
    ]
    listed = failures(folder)
    assert listed[["image_id", "status", "error"]].to_numpy().tolist() == [
        ["2.tar/b", "truncated", "ends early"]
    ]


def test_a_run_that_was_stopped(folder: RunFolder) -> None:
    part(folder, rows("0.tar", "ab"), ends=[end(SHARDS[0], 2)])
    part(folder, rows("1.tar", "b"), first=1, ends=[end(SHARDS[1], 2)])
    result = check(folder)
    assert not result.sound
    assert [(s.expected, s.rows, s.missing) for s in result.shards] == [
        (2, 2, 0),
        (2, 1, 1),
        (None, 0, 0),
    ]
    assert len(result.unread) == 1
    assert len(result.problems) == 3


def test_a_part_that_was_deleted_afterwards(folder: RunFolder) -> None:
    fill(folder)
    next(Path(folder.images.path).glob("*.parquet")).unlink()
    result = check(folder)
    assert (result.rows_at_completion, result.rows) == (6, 4)
    assert not result.sound


def test_rows_that_stand_twice(folder: RunFolder) -> None:
    fill(folder)
    part(folder, rows("1.tar", "b"), first=1)
    result = check(folder)
    assert result.duplicates == ("1.tar/b",)
    assert not result.sound


def test_a_shard_whose_rest_the_storage_kept_is_not_read_to_its_end(folder: RunFolder) -> None:
    part(folder, rows("0.tar", "ab"), ends=[end(SHARDS[0], 2)])
    part(folder, rows("1.tar", "ab"), ends=[end(SHARDS[1], 2)])
    unread = row("2.tar", "#unreadable", status="read_error", error="after 1 rows: 503")
    unread[BOOK] = stand_in(0)
    part(folder, [*rows("2.tar", "a"), unread], ends=[end(SHARDS[2], 2)])
    ledger = Ledger(folder).refresh()
    mark_complete(ledger, SHARDS, [])
    result = check(folder)
    assert [(s.expected, s.rows, s.ok) for s in result.shards] == [
        (2, 2, 2),
        (2, 2, 2),
        (None, 2, 1),
    ]
    assert len(result.problems) == 1
    assert len(unread_notes(ledger, ["read_error"])) == 1
    assert "runtime.redo" in unread_notes(ledger, [])[0]
    assert unread_notes(Ledger(folder), []) == ()


def test_nothing_committed_yet(folder: RunFolder) -> None:
    result = check(folder)
    assert (result.rows, result.duplicates, len(result.unread)) == (0, (), 3)
    assert failures(folder).empty


def test_a_folder_of_files_has_one_row_a_file(folder: RunFolder) -> None:
    manifest = json.loads(folder.manifest.read())
    manifest["source"]["format"] = "folder"
    folder.manifest.write(json.dumps(manifest).encode())
    part(folder, rows("0.tar", "a"))
    assert [(s.expected, s.missing) for s in check(folder).shards] == [(1, 0), (1, 1), (1, 1)]


def test_units_that_read_one_file_count_together(folder: RunFolder) -> None:
    """Parts of a table, and tars that one unit reads for a limit."""
    (file,) = tar("a.parquet").files
    parts = [Unit(f"a.parquet@{n}", (file,), Part(n, 5, 1000)) for n in (0, 5)]
    both = Unit("x.tar", (*tar("x.tar").files, *tar("y.tar").files), limit=5)
    part(folder, rows("a.parquet", "0123456789"), ends=[end(unit, 5) for unit in parts])
    part(folder, rows("x.tar", "ab"))
    part(folder, rows("y.tar", "abc"), ends=[end(both, 5)])
    assert not work(folder, *parts, both).left
    states = {s.name: (s.expected, s.rows) for s in check(folder).shards}
    assert states == {"a.parquet": (10, 10), "x.tar": (5, 5)}


def test_a_run_of_an_earlier_version(folder: RunFolder) -> None:
    """Its marker says whether all is there."""
    earlier_part(folder, ray_name(1), rows("0.tar", "ab"))
    assert [(s.name, s.expected) for s in check(folder).shards] == [("0.tar", None)]
    folder.complete.write(b'{"rows": 2}')
    assert check(folder).sound


def test_no_run_has_no_failures_to_list(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"manifest\.json is missing"):
        failures(run_folder(str(tmp_path / "typo")))
