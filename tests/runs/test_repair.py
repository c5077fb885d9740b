"""Parts that are deleted, truncated, doubled or foreign: named, and repaired or refused."""

import errno
import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import open_results
from pipeline.config import RuntimeConfig
from pipeline.errors import UsageError
from pipeline.runs import book
from pipeline.runs.completeness import mark_complete
from pipeline.runs.ledger import BrokenPartError, Ledger
from pipeline.runs.manifest import RunFolder
from pipeline.runs.parts import PART, committed_parts, read_part
from pipeline.runs.resume import Work, find_work
from pipeline.runs.retry_rows import drop_repeated
from pipeline.schema import BOOK
from pipeline.storage.location import Location
from tests.parts import end, make_run, part, rows, tar

UNITS = [tar("0.tar"), tar("1.tar")]


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """Two shards of four rows in three parts; complete."""
    folder = make_run(tmp_path / "out")
    part(folder, rows("0.tar", "abcd"), ends=[end(UNITS[0], 4)])
    part(folder, rows("1.tar", "ab"))
    part(folder, rows("1.tar", "cd"), first=2, ends=[end(UNITS[1], 4)])
    mark_complete(Ledger(folder).refresh(), UNITS, [])
    return folder


def repaired(folder: RunFolder) -> tuple[Work, str]:
    """What the next start finds, and what it says."""
    messages: list[str] = []
    work = find_work(folder, UNITS, RuntimeConfig(), messages.append)
    return work, "; ".join(messages)


def path_of(folder: RunFolder, number: int) -> Path:
    return Path(committed_parts(folder)[number].path)


def ids(folder: RunFolder) -> list[str]:
    tables = [pq.read_table(place.path) for place in committed_parts(folder)]
    return sorted(pa.concat_tables(tables)["image_id"].to_pylist())


def test_a_sound_run_is_left_alone(folder: RunFolder) -> None:
    before = folder.root.sizes()
    work, messages = repaired(folder)
    assert (work.left, messages) == ((), "")
    assert folder.root.sizes().keys() - before.keys() == {"_run/input.parquet"}


def test_a_part_that_was_deleted(folder: RunFolder) -> None:
    path = path_of(folder, 0)
    lost = set(pq.read_table(path)["shard"].to_pylist())
    path.unlink()
    with pytest.raises(UsageError, match=path.name):
        open_results(folder.uri).scores()
    work, messages = repaired(folder)
    assert path.name in messages
    assert {unit.name for unit in work.left} == lost


@pytest.mark.parametrize("size", [0, 200, -30])
def test_a_part_that_was_truncated(folder: RunFolder, size: int) -> None:
    path = path_of(folder, 1)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(BrokenPartError, match=path.name):
        Ledger(folder).refresh()
    work, messages = repaired(folder)
    assert path.name in messages
    assert not path.exists()
    assert work.left


def test_a_part_that_was_copied(folder: RunFolder) -> None:
    before = ids(folder)
    copy = path_of(folder, 0).with_name(f"part-{'f' * 32}.parquet")
    shutil.copy(path_of(folder, 0), copy)
    with pytest.raises(UsageError, match="8 rows"):
        open_results(folder.uri).scores()
    work, messages = repaired(folder)
    assert copy.name in messages
    assert not copy.exists()
    assert not work.left
    assert ids(folder) == before


def test_a_late_part_that_shares_some_rows(folder: RunFolder) -> None:
    before = ids(folder)
    some = [rows("0.tar", "abcd")[3] | {BOOK: 3}, rows("1.tar", "abc")[2] | {BOOK: 2}]
    part(folder, some)
    ledger = Ledger(folder).refresh()
    assert ledger.rows == 10
    messages: list[str] = []
    assert drop_repeated(ledger, messages.append) == 2
    assert ledger.rows == 8
    assert ids(folder) == before
    assert drop_repeated(ledger, messages.append) == 0
    assert not repaired(folder)[0].left


def test_the_end_of_a_part_that_goes_is_kept(folder: RunFolder) -> None:
    """Its rows stand in two other parts, which know no end."""
    part(folder, rows("0.tar", "abc"))
    part(folder, rows("0.tar", "abcd")[2:], first=2)
    longest = next(p for p in committed_parts(folder) if read_part(p)[0].num_rows == 4)
    longest.delete()
    part(folder, rows("0.tar", "abcde"))  # longest now
    part(folder, rows("0.tar", "abcd"), ends=[end(UNITS[0], 4)])
    work, _ = repaired(folder)
    assert not work.left
    assert json.loads(folder.ends.read())["unit"] == "0.tar"


def test_a_file_of_no_run(folder: RunFolder) -> None:
    shutil.copy(path_of(folder, 0), path_of(folder, 0).with_name("copy.parquet"))
    for open_it in (lambda: repaired(folder), open_results(folder.uri).scores):
        with pytest.raises(UsageError, match=r"images/copy\.parquet"):
            open_it()
    assert (Path(folder.images.path) / "copy.parquet").exists()


def test_half_written_drafts_go(folder: RunFolder) -> None:
    draft = Path(folder.images.path) / ".part-0.parquet.0123abcd.draft"
    draft.write_bytes(b"half")
    repaired(folder)
    assert not draft.exists()


def test_a_disk_that_is_full_in_mid_part(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    before = folder.images.sizes()
    monkeypatch.setattr("pipeline.runs.parts.os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        part(folder, rows("2.tar", "ab"))
    assert folder.images.sizes() == before


def test_an_index_is_used_where_it_fits(folder: RunFolder) -> None:
    sound = Ledger(folder).refresh()
    path = path_of(folder, 0)
    content = path.read_bytes()
    path.write_bytes(bytes(len(content)))  # not read again
    ledger = Ledger(folder).refresh()
    assert ledger.totals.row_ranges.equals(sound.totals.row_ranges)
    assert ledger.totals.ends.equals(sound.totals.ends)
    folder.index.write(b"broken")
    with pytest.raises(BrokenPartError):
        Ledger(folder).refresh()
    path.write_bytes(content)
    assert Ledger(folder).refresh().totals.row_ranges.equals(sound.totals.row_ranges)


def test_a_ledger_reads_only_what_is_new(folder: RunFolder) -> None:
    ledger = Ledger(folder).refresh()
    folder.index.delete()
    path = path_of(folder, 0)
    path.write_bytes(bytes(path.stat().st_size))
    part(folder, rows("2.tar", "ab"))
    assert ledger.refresh().rows == 10
    assert ledger.bytes == sum(folder.images.sizes().values())


def test_a_part_is_named_by_its_images(tmp_path: Path) -> None:
    folder = make_run(tmp_path)
    first = part(folder, rows("0.tar", "ab"))
    again = part(folder, rows("0.tar", "ab")[::-1])
    assert first == again
    assert PART.fullmatch(Path(first.path).name)
    assert len(committed_parts(folder)) == 1


def test_row_ranges_name_every_row(tmp_path: Path) -> None:
    folder = make_run(tmp_path)
    some = [
        *(row | {BOOK: n} for n, row in zip((4, 5, 9), rows("0.tar", "abc"), strict=True)),
        rows("ä.tar", "a")[0] | {BOOK: 10},
        rows("ä.tar", "b")[0] | {BOOK: 11, "status": "truncated"},
        rows("0.tar", "d")[0] | {BOOK: 6},
    ]
    place: Location = part(folder, some)
    table, ends = read_part(place)
    assert [value["number"] for value in table[BOOK].to_pylist()] == [4, 5, 9, 10, 11, 6]
    assert ends is not None
    assert not ends.num_rows
    ranges = book.row_ranges_of(table)
    assert ranges.select(["shard", "status", "first", "count"]).to_pylist() == [
        {"shard": "0.tar", "status": "ok", "first": 4, "count": 2},
        {"shard": "0.tar", "status": "ok", "first": 9, "count": 1},
        {"shard": "ä.tar", "status": "ok", "first": 10, "count": 1},
        {"shard": "ä.tar", "status": "truncated", "first": 11, "count": 1},
        {"shard": "0.tar", "status": "ok", "first": 6, "count": 1},
    ]
    merged = book.merge_ranges(ranges)
    assert sorted(zip(merged["first"].to_pylist(), merged["count"].to_pylist(), strict=True)) == [
        (4, 3),
        (9, 1),
        (10, 1),
        (11, 1),
    ]
    assert pq.read_schema(place.path).names == [n for n in table.column_names if n != BOOK]
