"""What a kill leaves at every step of a commit, and what is cleared away."""

from pathlib import Path

import pytest
from pipeline.runs.tidy import tidy

from pipeline.runs.manifest import RunFolder
from pipeline.runs.parts import Ledger, committed_parts
from tests.parts import data, ids, make_run, part, pending, ray_name, rows

ONE, TWO = rows("0.tar", ["a", "b", "c"]), rows("1.tar", ["d", "e"])
A, B = ray_name(1), ray_name(2)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    made = make_run(tmp_path / "out")
    part(made, A, ONE, "wave-0000")
    return made


def names(folder: RunFolder) -> list[str]:
    found = [*folder.checkpoint.sizes(), *folder.images.sizes()]
    return [name for name in found if name != "manifest.json"]


def test_a_whole_run_is_left_alone(folder: RunFolder) -> None:
    before = names(folder)
    assert not tidy(folder)
    assert names(folder) == before


def test_pending_beside_its_commit(folder: RunFolder) -> None:
    """Killed between the copy and the delete: Ray would delete the data and keep the ids."""
    before = names(folder)
    pending(folder, A, ONE, "wave-0000")
    assert not tidy(folder)
    assert names(folder) == before


@pytest.mark.parametrize("what", ["rows", "bytes", "nothing"])
def test_pending_beside_its_commit_and_half_the_data(folder: RunFolder, what: str) -> None:
    """A write task that was tried again, and killed while it wrote the part anew."""
    pending(folder, A, ONE, "wave-0000")
    place = Path(folder.images.child(f"{A}-0.parquet").path)
    if what == "rows":
        data(folder, A, ONE[:2])
    elif what == "bytes":
        place.write_bytes(place.read_bytes()[:200])
    else:
        place.unlink()
    assert "1 commit without data" in str(tidy(folder))
    assert names(folder) == []


@pytest.mark.parametrize("with_data", [False, True])
def test_pending_alone(folder: RunFolder, with_data: bool) -> None:
    before = names(folder)
    pending(folder, B, TWO, "wave-0001")
    if with_data:
        data(folder, B, TWO)
    assert tidy(folder).parts == with_data
    assert names(folder) == before


def test_data_that_nobody_knows(folder: RunFolder) -> None:
    before = names(folder)
    data(folder, B, TWO)
    assert str(tidy(folder)) == "removed 1 uncommitted part of an earlier attempt"
    assert names(folder) == before
    assert Ledger(folder).refresh().rows == 3


def test_data_that_was_deleted_by_hand_is_done_again(folder: RunFolder) -> None:
    part(folder, B, TWO)
    committed_parts(folder)[0].delete()
    assert tidy(folder).commits == 1
    assert Ledger(folder).refresh().shards() == {"1.tar": 2}


def test_files_of_others_stay(folder: RunFolder) -> None:
    mine = data(folder, "my-own-table", TWO)
    assert not tidy(folder)
    assert mine.exists()
    assert len(committed_parts(folder)) == 1


def test_both_layouts_are_read(folder: RunFolder) -> None:
    part(folder, B, TWO)  # as version 0.1 wrote it
    ids(folder, ray_name(3), TWO, "wave-0001")
    assert not tidy(folder).parts
    ledger = Ledger(folder).refresh()
    assert ledger.rows == 5
    assert ledger.statuses == {"ok": 5}
    assert ledger.shards() == {"0.tar": 3, "1.tar": 2}
    assert ledger.shards([B]) == {"1.tar": 2}


def test_a_ledger_reads_only_what_is_new(folder: RunFolder) -> None:
    ledger = Ledger(folder).refresh()
    place = Path(committed_parts(folder)[0].path)
    content = place.read_bytes()
    place.write_bytes(b"not read again")
    part(folder, B, TWO, "wave-0000")
    assert ledger.refresh().rows == 5
    assert ledger.bytes == len(b"not read again") + committed_parts(folder)[1].fs.size(
        committed_parts(folder)[1].path
    )
    place.write_bytes(content)
