"""Of a table that lacks rows only these are read again."""

import csv
from pathlib import Path

import pytest
from pipeline.runs.read_shards import ShardBook

from pipeline.config import RuntimeConfig
from pipeline.flow import run
from pipeline.progress.progress import ShardCount
from pipeline.results import open_results
from pipeline.runs.manifest import RunFolder
from pipeline.runs.resume import find_work
from pipeline.sources.listing import SourceFile
from pipeline.sources.read_unit import Part, Unit
from tests.data import jpeg, mini_config
from tests.parts import make_run, part, ray_name, row

FILE = SourceFile("/in/table", "table", 10_000, "etag:1")
OTHER = SourceFile("/in/table", "table", 10_000, "etag:2")


def pieces(file: SourceFile = FILE, *, grouped: bool = False) -> list[Unit]:
    """Three of four rows each."""
    return [
        Unit(f"table@{4 * n}", (file,), Part(4 * n, 4, 4, (n,) if grouped else (), (n, n + 1)))
        for n in range(3)
    ]


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    folder = make_run(tmp_path / "out")
    find_work(folder, pieces(), RuntimeConfig())
    return folder


def record(folder: RunFolder, units: list[Unit]) -> None:
    book = ShardBook.open(folder)
    found = {unit.name: ShardCount(4, unit.size) for unit in units}
    with book.recording(units, lambda: {name: found.pop(name) for name in list(found)}):
        pass


def commit(folder: RunFolder, numbers: list[int], *, grouped: bool = False) -> None:
    places = [{"row_group": n // 4, "row": n % 4} if grouped else {"row": n} for n in numbers]
    rows = [row("table", f"k{n}", **place) for n, place in zip(numbers, places, strict=True)]
    part(folder, ray_name(numbers[0]), rows, "wave-0000")


def left(folder: RunFolder, units: list[Unit], **runtime: object) -> dict[str, set[int] | None]:
    work = find_work(folder, units, RuntimeConfig.model_validate(runtime))
    chosen = {
        unit.name: unit.part.chosen if unit.part else None
        for wave in work.waves
        for unit in wave.units
    }
    return {name: None if rows is None else set(rows) for name, rows in chosen.items()}


def test_of_a_list_the_rows_that_are_missing(folder: RunFolder) -> None:
    record(folder, pieces())
    commit(folder, [0, 1, 2, 3, 4, 6])
    assert left(folder, pieces()) == {"table@4": {5, 7}, "table@8": {8, 9, 10, 11}}
    (wave,) = find_work(folder, pieces(), RuntimeConfig()).waves
    assert [unit.given for unit in wave.units] == [2, 0]
    commit(folder, [5, 7, *range(8, 12)])
    assert left(folder, pieces()) == {}


def test_a_part_that_was_not_read_to_its_end_is_read_as_a_whole(folder: RunFolder) -> None:
    record(folder, pieces()[:2])
    commit(folder, [0, 1, 2, 3, 8, 9, 10, 11])
    assert left(folder, pieces()) == {"table@4": {4, 5, 6, 7}, "table@8": None}


def test_of_parquet_the_row_groups_that_lack_rows(folder: RunFolder) -> None:
    record(folder, pieces(grouped=True))
    commit(folder, [0, 1, 2, 3, 4, 5], grouped=True)
    assert left(folder, pieces(grouped=True)) == {"table@4": None, "table@8": None}


def test_rows_that_stand_for_a_broken_part_tell_no_number(folder: RunFolder) -> None:
    record(folder, pieces(grouped=True))
    rows = [row("table", f"{n}", row_group=0, row=n) for n in range(3)]
    part(folder, ray_name(1), [*rows, row("table", "#unreadable-0")], "wave-0000")
    assert set(left(folder, pieces(grouped=True))) == {"table@0", "table@4", "table@8"}


def test_numbers_say_nothing_once_a_list_has_changed(folder: RunFolder) -> None:
    record(folder, pieces())
    commit(folder, [0, 1, 2, 3, 4, 5, 6])
    whole = {"table@0": None, "table@4": None, "table@8": None}
    assert left(folder, pieces(OTHER), changed_shards="keep") == whole
    record(folder, pieces(OTHER))
    ShardBook.open(folder).settle()
    record(folder, pieces(OTHER))
    assert left(folder, pieces(OTHER)) == whole


def test_a_dead_link_costs_no_second_look_at_the_rest(ray_session: None, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(6):
        (folder / f"{number}.jpg").write_bytes(jpeg(number))
    with (folder / "list.csv").open("w", newline="") as stream:
        names = [f"{number}.jpg" for number in (0, 1, 2, 99, 3, 4, 5, 5)]
        csv.writer(stream).writerows([["image"], *([name] for name in names)])
    config = mini_config({"format": "list", "uri": f"{folder}/list.csv"}, tmp_path / "out")
    first = run(config)
    assert first.statuses == {"ok": 6, "read_error": 1, "duplicate_key": 1}
    for number in range(1, 6):  # what is not read again may be gone
        (folder / f"{number}.jpg").unlink()
    again = run(config)
    assert again.statuses == first.statuses
    assert (again.resumed, again.progress.rows, again.progress.rows_read) == (7, 1, 8)
    (folder / "99.jpg").write_bytes(jpeg(99))
    assert run(config).statuses == {"ok": 7, "duplicate_key": 1}
    assert run(config).already_complete
    assert open_results(str(tmp_path / "out")).images().index.is_unique
