"""Finding the work that is left from the parts alone."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.config import RuntimeConfig
from pipeline.errors import RunError, UsageError
from pipeline.results import open_results
from pipeline.runs.completeness import is_complete, mark_complete, refuse_unfinished
from pipeline.runs.ledger import Ledger
from pipeline.runs.manifest import RunFolder
from pipeline.runs.parts import committed_parts, is_of_earlier_version
from pipeline.runs.resume import Work, find_work
from pipeline.schema import BOOK
from pipeline.sources.listing import SourceFile
from pipeline.sources.read_unit import Part, Unit, stand_in, stood_for
from tests.data import jpeg, mini_config
from tests.in_process import run
from tests.parts import chunk, data, earlier_part, end, make_run, part, ray_name, row, rows, tar
from tests.parts import whole as commit

TABLE = SourceFile("/in/table", "table", 10_000, "etag:1")
CHANGED = SourceFile("/in/table", "table", 10_000, "etag:2")


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return make_run(tmp_path / "out")


def work(folder: RunFolder, *units: Unit, redo: tuple[str, ...] = (), **runtime: object) -> Work:
    return find_work(folder, units, RuntimeConfig.model_validate(runtime), redo=redo)


def left(found: Work) -> list[str]:
    return [unit.name for unit in found.left]


def done(folder: RunFolder, *units: Unit) -> None:
    mark_complete(Ledger(folder).refresh(), units, [])


def numbers(unit: Unit) -> dict[str, list[int]]:
    """Numbers of the committed rows by shard, as the read task receives them."""
    return {shard: ranges.numbers().tolist() for shard, ranges in unit.committed.ranges.items()}


def test_whole_shards_are_skipped_and_rows_of_others_left_out(folder: RunFolder) -> None:
    units = [tar(f"{i}.tar") for i in range(4)]
    assert left(work(folder, *units)) == [unit.name for unit in units]
    commit(folder, units[0], "ab")
    part(folder, rows("1.tar", "c"), first=2, ends=[end(units[1], 3)])
    part(folder, rows("1.tar", "a"))
    part(folder, rows("3.tar", "ab"))  # never read to its end
    found = work(folder, *units)
    assert left(found) == ["1.tar", "2.tar", "3.tar"]
    assert [numbers(unit) for unit in found.left] == [
        {"1.tar": [0, 2]},
        {},
        {"3.tar": [0, 1]},
    ]
    before = found.initial_progress()
    assert (before.rows_read, before.bytes_read, before.bytes_total) == (2, 1000, 4000)
    assert before.resumed == 6


def test_nothing_is_left_of_a_finished_run_but_new_shards(folder: RunFolder) -> None:
    old = [tar("a.tar"), tar("c.tar")]
    commit(folder, old[0], "ab")
    commit(folder, old[1], "ab")
    found = work(folder, *old)
    assert not found.left
    notes: list[str] = []
    mark_complete(found.ledger, found.units, notes)
    assert notes == []
    assert is_complete(folder, found.units, found.ledger)
    grown = work(folder, tar("a.tar"), tar("b.tar"), tar("c.tar"))
    assert left(grown) == ["b.tar"]
    assert not is_complete(folder, grown.units, grown.ledger)


@pytest.mark.parametrize("change", [{"version": "etag:2"}, {"size": 999}])
@pytest.mark.parametrize("ended", [True, False])
def test_a_changed_shard_is_refused_and_named(
    folder: RunFolder, change: dict[str, str], ended: bool
) -> None:
    commit(folder, tar("0.tar"), "ab")
    old = tar("1.tar")
    part(folder, rows("1.tar", "ab"), ends=[end(old, 2)] if ended else [])
    other = (tar("0.tar"), tar("1.tar", **change))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"1\.tar") as caught:
        work(folder, *other)
    assert "output=NEW" in str(caught.value)
    assert "runtime.changed_shards=keep" in str(caught.value)
    (kept,) = work(folder, *other, changed_shards="keep").left
    assert kept.name == "1.tar"
    assert numbers(kept) == {}
    (holder,) = kept.committed.other_versions
    assert holder.path in [p.path for p in committed_parts(folder)]


def test_a_changed_shard_is_read_until_its_new_rows_are_committed(folder: RunFolder) -> None:
    """An equal number of rows does not mean that they are the same rows."""
    old, new = tar("0.tar", version="etag:1"), tar("0.tar", version="etag:2")
    commit(folder, old, "ab")
    assert left(work(folder, new, changed_shards="keep")) == ["0.tar"]
    ended = [end(new, 2, kept=1)]  # read as [a, c, d]: a is kept
    part(folder, rows("0.tar", "d"), first=2, version="etag:2", ends=ended)
    (rest,) = work(folder, new).left  # accepted by now
    assert numbers(rest) == {"0.tar": [2]}
    part(folder, rows("0.tar", "c"), first=1, version="etag:2")
    found = work(folder, new)
    assert left(found) == []
    notes: list[str] = []
    mark_complete(found.ledger, [new], notes)
    assert [note.split()[0] for note in notes] == ["1"]  # b


def test_a_data_set_that_moved_is_the_same(folder: RunFolder) -> None:
    """From a disk to a bucket: a modification time and an etag cannot be compared."""
    commit(folder, tar("0.tar", version="mtime:5"), "ab")
    assert not work(folder, tar("0.tar", version="etag:1")).left
    with pytest.raises(UsageError, match="changed"):
        work(folder, tar("0.tar", size=7, version="etag:1"))


def test_a_folder_that_grows(folder: RunFolder) -> None:
    for name in ("b/1.jpg", "b/3.jpg"):
        part(folder, rows(name, "x"), size=10)
    assert not work(folder, chunk("b/1.jpg", "b/3.jpg")).left
    found = work(folder, chunk("a/0.jpg", "b/1.jpg", "b/2.jpg", "b/3.jpg"))
    assert [f.name for unit in found.left for f in unit.files] == ["a/0.jpg", "b/2.jpg"]
    assert found.initial_progress().rows_read == 2
    with pytest.raises(UsageError, match="changed"):
        work(folder, chunk("b/1.jpg", "b/3.jpg", version="etag:2"))


def test_shards_that_are_read_together_for_a_limit(folder: RunFolder) -> None:
    both = Unit("0.tar", (*tar("0.tar").files, *tar("1.tar").files), limit=5)
    part(folder, rows("0.tar", "abc"))
    part(folder, rows("1.tar", "b"), first=1, ends=[end(both, 5)])
    (rest,) = work(folder, both).left
    assert numbers(rest) == {"0.tar": [0, 1, 2], "1.tar": [1]}
    part(folder, rows("1.tar", "a"))
    assert not work(folder, both).left


def table(file: SourceFile = TABLE) -> list[Unit]:
    """Three parts of four rows each."""
    return [Unit(f"table@{4 * n}", (file,), Part(4 * n, 4, 4, (n,), (n, n + 1))) for n in range(3)]


def commit_rows(folder: RunFolder, *numbers: int, ends: dict[int, int] | None = None) -> None:
    some = [row("table", f"k{n}", row=n) | {BOOK: n} for n in numbers]
    units = table()
    found = [end(units[n], count) for n, count in (ends or {}).items()]
    part(folder, some, size=10_000, ends=found)


def chosen(found: Work) -> dict[str, set[int] | None]:
    parts = {unit.name: unit.part for unit in found.left}
    return {
        name: set(part.chosen) if part and part.chosen is not None else None
        for name, part in parts.items()
    }


def test_missing_rows_of_a_table(folder: RunFolder) -> None:
    commit_rows(folder, 0, 1, 2, 3, 4, 6, ends={0: 4, 1: 4, 2: 4})
    found = work(folder, *table())
    assert chosen(found) == {"table@4": {5, 7}, "table@8": None}
    assert [unit.committed.skipped for unit in found.left] == [2, 0]
    commit_rows(folder, 5, 7, *range(8, 12))
    assert chosen(work(folder, *table())) == {}


def test_rows_of_a_table_without_a_recorded_end(folder: RunFolder) -> None:
    commit_rows(folder, 0, 1, 2, 3)
    assert chosen(work(folder, *table()[:1])) == {"table@0": set()}


def test_stand_in_rows_count_in_their_part(folder: RunFolder) -> None:
    commit_rows(folder, 4, 5, stand_in(4, within=True), ends={1: 3})
    found = work(folder, *table())
    assert list(chosen(found)) == ["table@0", "table@8"]
    for first in (0, 1, 4, 4000):
        for within in (False, True):
            assert stood_for(stand_in(first, within=within)) == first


def test_row_numbers_are_void_once_a_table_has_changed(folder: RunFolder) -> None:
    commit_rows(folder, *range(12), ends={0: 4, 1: 4, 2: 4})
    found = work(folder, *table(CHANGED), changed_shards="keep")
    assert chosen(found) == {"table@0": None, "table@4": None, "table@8": None}
    assert all(unit.committed.other_versions for unit in found.left)


def test_the_marker_requires_every_shard(folder: RunFolder) -> None:
    units = [tar("0.tar"), tar("1.tar")]
    commit(folder, units[0], "ab")
    with pytest.raises(RunError, match=r"1\.tar"):
        done(folder, *units)
    part(folder, rows("1.tar", "a"), ends=[end(units[1], 2)])
    with pytest.raises(RunError, match=r"1\.tar"):
        done(folder, *units)
    assert not folder.complete.exists()
    part(folder, rows("1.tar", "b"), first=1)
    done(folder, *units)
    assert json.loads(folder.complete.read())["rows"] == 4


def test_an_end_without_a_row(folder: RunFolder) -> None:
    """An empty tar, or one whose last row was committed without its end."""
    empty = tar("0.tar")
    ledger = Ledger(folder)
    ledger.remember([json.dumps(end(empty, 0))])
    ledger.remember([json.dumps(end(empty, 0))])
    assert len(folder.ends.read().splitlines()) == 1
    assert not work(folder, empty).left


def test_rows_of_files_that_left_the_source_are_noted(folder: RunFolder) -> None:
    commit(folder, tar("0.tar"), "ab")
    commit(folder, tar("gone.tar"), "a")
    notes: list[str] = []
    mark_complete(Ledger(folder).refresh(), [tar("0.tar")], notes)
    assert [note.split()[0] for note in notes] == ["1"]


def test_runs_of_earlier_versions(folder: RunFolder) -> None:
    """A complete one has nothing left to do; an unfinished one is refused."""
    earlier_part(folder, ray_name(1), rows("0.tar", "ab"))
    data(folder, ray_name(2), rows("0.tar", "c"))  # not committed
    assert is_of_earlier_version(folder)
    ledger = Ledger(folder).refresh()
    assert ledger.rows == 2
    with pytest.raises(UsageError, match="output=NEW"):
        refuse_unfinished(folder, [tar("0.tar")], ledger)
    new = make_run(Path(folder.root.path).parent / "new")
    commit(new, tar("0.tar"), "ab")
    done(new, tar("0.tar"))
    folder.complete.write(new.complete.read())
    refuse_unfinished(folder, [tar("0.tar")], ledger)
    with pytest.raises(UsageError):
        refuse_unfinished(folder, [tar("0.tar"), tar("1.tar")], ledger)


def test_a_limit_on_shards_of_one_attempt_is_another_unit() -> None:
    both = Unit("0.tar", (*tar("0.tar").files, *tar("1.tar").files), limit=5)
    assert both.key != replace(both, files=(*both.files, *tar("2.tar").files)).key


def test_a_dead_link_does_not_make_other_files_be_read_again(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(6):
        (folder / f"{number}.jpg").write_bytes(jpeg(number))
    with (folder / "list.csv").open("w", newline="") as stream:
        names = [f"{number}.jpg" for number in (0, 1, 2, 99, 3, 4, 5, 5)]
        csv.writer(stream).writerows([["image"], *([name] for name in names)])
    config = mini_config({"format": "list", "uri": f"{folder}/list.csv"}, tmp_path / "out")
    first = run(config)
    assert first.statuses == {"ok": 6, "read_error": 1}
    for number in range(1, 6):  # what is not read again may be gone
        (folder / f"{number}.jpg").unlink()
    (folder / "99.jpg").write_bytes(jpeg(99))
    again = run(config)
    assert again.statuses == {"ok": 7}
    assert (again.resumed, again.progress.rows, again.progress.rows_read) == (6, 1, 7)
    assert run(config).already_complete
    assert open_results(str(tmp_path / "out")).images().index.is_unique
