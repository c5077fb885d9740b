"""Rows that could not be read from storage are processed again by the same command."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeline import open_results
from pipeline.config import RuntimeConfig
from pipeline.runs.ledger import Ledger
from pipeline.runs.manifest import RunFolder, run_folder
from pipeline.runs.parts import committed_parts
from pipeline.runs.resume import find_work
from pipeline.runs.retry_rows import remove_rows_with_status
from pipeline.schema import BOOK
from pipeline.sources.read_unit import Part, Unit, stand_in
from pipeline.storage.location import Location
from tests.data import jpeg, mini_config
from tests.in_process import run
from tests.parts import end, make_run, part, row, rows, tar

UNITS = [tar("0.tar"), tar("1.tar")]


def test_read_errors_are_done_again(tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    for name in ("a", "b", "c"):
        (source / f"{name}.jpg").write_bytes(jpeg(ord(name)))
    (source / "d.jpg").symlink_to(source / "later")
    config = mini_config({"format": "folder", "uri": str(source)}, out)
    assert run(config).statuses == {"ok": 3, "read_error": 1}
    before = pq.read_schema(committed_parts(run_folder(str(out)))[0].path)

    (source / "later").write_bytes(jpeg(7))
    summary = run(config)
    assert summary.statuses == {"ok": 5}  # `later` is a file as well
    images = open_results(str(out)).images()
    assert sorted(images.index) == ["a.jpg", "b.jpg", "c.jpg", "d.jpg", "later"]
    assert summary.resumed == 3
    assert run(config).already_complete
    for place in committed_parts(run_folder(str(out))):
        assert pq.read_schema(place.path).equals(before, check_metadata=True)
    heats = list(open_results(str(out)).batches(["fish"]))
    assert sum(map(len, heats)) == 5


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """Two shards with a failed row in the first and an unreadable remainder in the second."""
    folder = make_run(tmp_path / "out")
    bad = row("0.tar", "b", status="decode_error")
    part(folder, [*rows("0.tar", "a"), bad, row("0.tar", "c")], ends=[end(UNITS[0], 3)])
    unread = row("1.tar", "#unreadable", status="read_error") | {BOOK: stand_in(0)}
    part(folder, rows("1.tar", "ab"))
    part(folder, [unread], ends=[end(UNITS[1], 3)])
    return folder


def left(folder: RunFolder, *redo: str) -> list[str]:
    work = find_work(folder, UNITS, RuntimeConfig(), redo=redo)
    return [unit.name for unit in work.left]


def test_only_rows_with_the_given_status_are_removed(folder: RunFolder) -> None:
    ledger = Ledger(folder).refresh()
    assert remove_rows_with_status(ledger, [], UNITS) == 0
    assert remove_rows_with_status(ledger, ["read_error"], UNITS) == 1
    assert ledger.statuses == {"ok": 4, "decode_error": 1}
    assert remove_rows_with_status(ledger, ["read_error"], UNITS) == 0
    assert remove_rows_with_status(ledger, ["decode_error"], UNITS) == 1
    assert ledger.statuses == {"ok": 4}


def test_the_rest_of_a_shard_is_read_again(folder: RunFolder) -> None:
    assert left(folder) == []
    assert left(folder, "read_error") == ["1.tar"]
    assert left(folder) == ["1.tar"]
    assert Ledger(folder).refresh().totals.ends["unit"].to_pylist() == ["0.tar"]
    part(folder, rows("1.tar", "c"), first=2, ends=[end(UNITS[1], 3)])
    assert left(folder) == []


def test_a_row_of_a_shard_stays_one_row(folder: RunFolder) -> None:
    assert left(folder, "decode_error") == ["0.tar"]
    part(folder, rows("0.tar", "ab")[1:], first=1)
    assert left(folder) == []


def test_an_end_in_another_part_is_dropped_too(folder: RunFolder) -> None:
    """A row group that could not be read, in a file that was read to its end."""
    (file,) = tar("t").files
    unit = Unit("t@0", (file,), Part(0, 4, 1000, (0, 1)))
    fault = row("t", "#unreadable-0", status="read_error") | {BOOK: stand_in(0, within=True)}
    part(folder, [fault])
    kept = part(folder, rows("t", "cd"), first=2, ends=[end(unit, 3)])
    remove_rows_with_status(Ledger(folder).refresh(), ["read_error"], [unit])
    assert "t@0" not in Ledger(folder).refresh().totals.ends["unit"].to_pylist()
    assert Path(kept.path).exists()
    assert Ledger(folder).refresh().totals.shards["t"] == 2


def test_a_kill_in_the_middle_is_repaired(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kill comes after the new part was written and before the old one was deleted."""

    class Killed(BaseException):
        pass

    def kill(place: Location) -> None:
        raise Killed

    before = Ledger(folder).refresh().rows
    with monkeypatch.context() as patch:
        patch.setattr(Location, "delete", kill)
        with pytest.raises(Killed):
            left(folder, "decode_error")
    assert Ledger(folder).refresh().rows == before + 2
    assert left(folder, "decode_error") == ["0.tar"]
    assert Ledger(folder).refresh().rows == before - 1
