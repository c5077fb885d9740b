"""Shard records, waves, and what is left to do: decided without Ray."""

from dataclasses import replace
from pathlib import Path

import pytest
from pipeline.runs.read_shards import ShardBook, key_of
from pipeline.runs.waves import MOST_UNITS, plan_waves

from pipeline.config import RuntimeConfig
from pipeline.errors import RunError, UsageError
from pipeline.progress.progress import ShardCount
from pipeline.runs.completeness import complete, is_complete
from pipeline.runs.manifest import RunFolder
from pipeline.runs.parts import Ledger
from pipeline.runs.resume import Work, find_work
from pipeline.sources.read_unit import Unit
from tests.parts import chunk, make_run, part, pending, ray_name, rows, tar

ROWS = RuntimeConfig().rows_per_wave


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return make_run(tmp_path / "out")


def record(folder: RunFolder, *units: Unit, count: int = 2) -> ShardBook:
    """As if readers had come to the end of these."""
    book = ShardBook.open(folder)
    found = {unit.name: ShardCount(count, unit.size) for unit in units}
    with book.recording(units, lambda: {name: found.pop(name) for name in list(found)}):
        pass
    return ShardBook.open(folder)


def work(folder: RunFolder, *units: Unit, **runtime: object) -> Work:
    return find_work(folder, units, RuntimeConfig.model_validate(runtime))


def left(found: Work) -> dict[str, list[str]]:
    return {wave.name: [unit.name for unit in wave.units] for wave in found.waves}


def commit(folder: RunFolder, number: int, shard: str, keys: str, wave: str = "wave-0000") -> None:
    part(folder, ray_name(number), rows(shard, keys.split()), wave)


def test_recorded_shards_whose_rows_are_committed_are_skipped(folder: RunFolder) -> None:
    units = [tar(f"{i}.tar") for i in range(4)]
    assert left(work(folder, *units)) == {"wave-0000": [unit.name for unit in units]}
    record(folder, *units[:3])
    commit(folder, 1, "0.tar", "a b")  # whole
    commit(folder, 2, "1.tar", "a")  # a row is missing
    commit(folder, 3, "3.tar", "a b")  # never read to its end
    found = work(folder, *units)
    assert left(found) == {"wave-0000": ["1.tar", "2.tar", "3.tar"]}
    before = found.before()
    assert (before.rows_read, before.bytes_read, before.bytes_total) == (2, 1000, 4000)
    assert before.resumed == 5


def test_nothing_is_left_of_a_finished_run_but_new_shards(folder: RunFolder) -> None:
    old = [tar("a.tar"), tar("c.tar")]
    work(folder, *old)
    book = record(folder, *old)
    commit(folder, 1, "a.tar", "a b")
    commit(folder, 2, "c.tar", "a b")
    found = work(folder, *old)
    assert not found.waves
    notes: list[str] = []
    complete(folder, found.units, found.ledger, book, notes)
    assert notes == []
    assert is_complete(folder, found.units, found.ledger)
    grown = work(folder, tar("a.tar"), tar("b.tar"), tar("c.tar"))
    assert left(grown) == {"wave-0001": ["b.tar"]}
    assert not is_complete(folder, grown.units, grown.ledger)
    assert left(work(folder, *old, tar("b.tar"), tar("d.tar"))) == {
        "wave-0001": ["b.tar"],
        "wave-0002": ["d.tar"],
    }


@pytest.mark.parametrize("change", [{"version": "etag:2"}, {"size": 999}])
def test_a_changed_shard_is_refused_and_named(folder: RunFolder, change: dict[str, str]) -> None:
    work(folder, tar("0.tar"), tar("1.tar"))
    record(folder, tar("0.tar"), tar("1.tar"))
    commit(folder, 1, "0.tar", "a b")
    commit(folder, 2, "1.tar", "a b")
    other = (tar("0.tar"), tar("1.tar", **change))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"1 shards changed .*\(1\.tar\)") as caught:
        work(folder, *other)
    assert "output=NEW" in str(caught.value)
    assert "runtime.changed_shards=keep" in str(caught.value)
    kept = work(folder, *other, changed_shards="keep")
    assert left(kept) == {"wave-0000": ["1.tar"]}


def test_a_data_set_that_moved_is_the_same(folder: RunFolder) -> None:
    """From a disk to a bucket: a time and an etag say nothing of each other."""
    work(folder, tar("0.tar", version="mtime:5"))
    record(folder, tar("0.tar", version="mtime:5"))
    commit(folder, 1, "0.tar", "a b")
    assert not work(folder, tar("0.tar", version="etag:1")).waves
    with pytest.raises(UsageError, match="changed"):
        work(folder, tar("0.tar", size=7, version="etag:1"))


def test_runs_of_version_0_1_go_on(folder: RunFolder) -> None:
    """Commits in one flat folder, no records: shards with rows stay with that folder."""
    commit(folder, 1, "0.tar", "a b", wave="")
    units = [tar("0.tar"), tar("1.tar")]
    assert left(work(folder, *units)) == {"": ["0.tar"], "wave-0001": ["1.tar"]}
    found = work(folder, *units)
    assert left(found) == {"": ["0.tar"], "wave-0001": ["1.tar"]}
    assert found.waves[0].checkpoint.path == folder.checkpoint.path


def test_large_inputs_go_in_waves_that_stay(folder: RunFolder) -> None:
    units = [tar(f"{i}.tar", size=320 * 2**10) for i in range(5)]  # about 10 rows each
    first = left(work(folder, *units, rows_per_wave=25))
    assert first == {
        "wave-0000": ["0.tar", "1.tar"],
        "wave-0001": ["2.tar", "3.tar"],
        "wave-0002": ["4.tar"],
    }
    assert left(work(folder, *units, rows_per_wave=1000)) == first
    assert left(work(folder, *units[1:], rows_per_wave=1000)) == first | {"wave-0000": ["1.tar"]}


def test_waves_hold_a_bounded_number_of_tasks(folder: RunFolder) -> None:
    units = [tar(f"{i:05d}.tar") for i in range(MOST_UNITS + 1)]
    waves = plan_waves(folder, units, Ledger(folder), ShardBook(folder), ROWS)
    assert [len(wave.units) for wave in waves] == [MOST_UNITS, 1]


def test_units_of_one_shard_share_a_wave_and_are_done_together(folder: RunFolder) -> None:
    """Row groups of a Parquet file: their rows tell the file, not the group."""
    halves = [replace(tar("0.parquet", size=2**20), name=f"0.parquet#{i}") for i in range(2)]
    other = tar("1.parquet", size=2**20)
    first = left(work(folder, *halves, other, rows_per_wave=20))
    assert first == {"wave-0000": ["0.parquet#0", "0.parquet#1"], "wave-0001": ["1.parquet"]}
    record(folder, halves[0])
    commit(folder, 1, "0.parquet", "a b")
    assert left(work(folder, *halves, other)) == first
    record(folder, halves[1], count=0)
    assert left(work(folder, *halves, other)) == {"wave-0001": ["1.parquet"]}


def test_a_folder_that_grows_is_cut_so_that_old_chunks_stay(folder: RunFolder) -> None:
    old = chunk("b/1.jpg", "b/3.jpg")
    work(folder, old)
    record(folder, old)
    for number, name in enumerate(["b/1.jpg", "b/3.jpg"]):
        commit(folder, number, name, "x")
    assert not work(folder, old).waves
    grown = chunk("a/0.jpg", "b/1.jpg", "b/2.jpg", "b/3.jpg")
    found = work(folder, grown)
    assert [file.name for unit in found.waves[0].units for file in unit.files] == [
        "a/0.jpg",
        "b/2.jpg",
    ]
    assert left(found) == {"wave-0001": ["a/0.jpg"]}
    with pytest.raises(UsageError, match="changed"):
        work(folder, chunk("b/1.jpg", "b/3.jpg", version="etag:2"))


def test_an_assignment_that_is_lost_is_refused(folder: RunFolder) -> None:
    commit(folder, 1, "0.tar", "a b", wave="wave-0001")
    with pytest.raises(UsageError, match=r"waves\.json does not know wave-0001"):
        work(folder, tar("0.tar"))


def test_records_are_put_into_one_file(folder: RunFolder) -> None:
    for number in range(4):
        record(folder, tar(f"{number}.tar"))
    assert len(ShardBook.open(folder).records) == 4
    assert len(folder.shards.files()) == 1


def test_records_are_kept_when_the_run_fails(folder: RunFolder) -> None:
    book, unit = ShardBook(folder), tar("0.tar")
    with pytest.raises(KeyError), book.recording([unit], lambda: {"0.tar": ShardCount(2, 1000)}):
        raise KeyError("x")
    assert ShardBook.open(folder).records[key_of(unit)].rows == 2


def test_the_marker_wants_every_shard(folder: RunFolder) -> None:
    units = [tar("0.tar"), tar("1.tar")]
    commit(folder, 1, "0.tar", "a b")
    commit(folder, 2, "1.tar", "a")
    ledger = Ledger(folder).refresh()
    with pytest.raises(RunError, match=r"1\.tar: not read to its end"):
        complete(folder, units, ledger, record(folder, units[0]), [])
    with pytest.raises(RunError, match=r"1\.tar: 2 rows were read, 1 are committed"):
        complete(folder, units, ledger, record(folder, units[1]), [])
    assert not folder.complete.exists()


def test_doubled_rows_are_found_and_their_parts_named(folder: RunFolder) -> None:
    book = record(folder, tar("0.tar"))
    commit(folder, 1, "0.tar", "a b")
    commit(folder, 2, "0.tar", "b")
    ledger = Ledger(folder).refresh()
    with pytest.raises(RunError, match=r"0\.tar/b in 0+1_000001-0\.parquet and 0+2_") as caught:
        complete(folder, [tar("0.tar")], ledger, book, [])
    assert "1 images stand there twice" in str(caught.value)


def test_a_missing_row_does_not_hide_a_doubled_one(folder: RunFolder) -> None:
    """Both in one shard: its count is right."""
    work(folder, tar("0.tar"))
    book = record(folder, tar("0.tar"), count=3)
    commit(folder, 1, "0.tar", "a b")
    commit(folder, 2, "0.tar", "b")
    with pytest.raises(RunError, match=r"1 images stand there twice \(0\.tar/b in"):
        complete(folder, [tar("0.tar")], Ledger(folder).refresh(), book, [])
    assert not folder.complete.exists()
    folder.images.child(f"{ray_name(2)}-0.parquet").delete()
    assert left(work(folder, tar("0.tar"))) == {"wave-0000": ["0.tar"]}


def test_rows_that_left_the_source_are_told(folder: RunFolder) -> None:
    book = record(folder, tar("0.tar"))
    commit(folder, 1, "0.tar", "a b c")  # one more than the shard holds
    commit(folder, 2, "gone.tar", "a")
    notes: list[str] = []
    complete(folder, [tar("0.tar")], Ledger(folder).refresh(), book, notes)
    assert notes == ["2 rows are of files or samples that are no longer in the source."]


def test_what_changed_is_read_until_a_run_completes(folder: RunFolder) -> None:
    """As many rows as before say nothing of which rows they are."""
    old, new = tar("0.tar", version="etag:1"), tar("0.tar", version="etag:2")
    work(folder, old)
    record(folder, old)
    commit(folder, 1, "0.tar", "a b")
    assert left(work(folder, old)) == {}
    assert left(work(folder, new, changed_shards="keep")) == {"wave-0000": ["0.tar"]}
    record(folder, new)  # read to its end as [a, c], and killed before c was committed
    assert left(work(folder, new, changed_shards="keep")) == {"wave-0000": ["0.tar"]}
    commit(folder, 2, "0.tar", "c")
    found = work(folder, new)
    assert left(found) == {"wave-0000": ["0.tar"]}
    complete(folder, found.units, found.ledger, found.book, [])
    assert not any(record.changed for record in ShardBook.open(folder).records.values())


def test_half_a_part_is_cleared_before_rows_are_looked_for(folder: RunFolder) -> None:
    unit = tar("0.tar")
    work(folder, unit)
    record(folder, unit)
    commit(folder, 1, "0.tar", "a b")
    pending(folder, ray_name(1), rows("0.tar", ["a", "b"]), "wave-0000")
    place = Path(folder.images.child(f"{ray_name(1)}-0.parquet").path)
    place.write_bytes(place.read_bytes()[:-30])
    found = find_work(folder, [unit], RuntimeConfig(), redo=["read_error"])
    assert left(found) == {"wave-0000": ["0.tar"]}
    assert not place.exists()
