"""Compacting: the same rows in new, sorted parts."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipeline import open_results
from pipeline.errors import RunError, UsageError
from pipeline.runs import parts, sort
from pipeline.runs.compact import compact
from pipeline.runs.completeness import mark_complete
from pipeline.runs.ledger import Ledger
from pipeline.runs.manifest import RunFolder, run_folder
from pipeline.runs.parts import committed_parts, is_of_earlier_version, read_part
from pipeline.schema import BOOK
from tests.parts import earlier_part, end, make_run, part, ray_name, rows, tar
from tests.runs.test_resume import left, work

DRAFT = ".part-0.parquet.0123abcd.draft"
KEYS = [f"{number:03d}" for number in np.random.default_rng(0).permutation(300)]
UNITS = [tar("1.tar"), tar("ö.tar")]


@pytest.fixture
def old(tmp_path: Path) -> RunFolder:
    """600 rows of 2 shards in 12 unsorted parts, and a half-written part."""
    folder = make_run(tmp_path / "old")
    for number in range(6):
        keys = KEYS[50 * number : 50 * number + 50]
        for unit in UNITS:
            ends = [end(unit, 300)] if number == 5 else []
            part(folder, rows(unit.name, keys), first=50 * number, ends=ends)
    (Path(folder.images.path) / DRAFT).write_bytes(b"half")
    return folder


@pytest.fixture
def whole(old: RunFolder) -> RunFolder:
    mark_complete(Ledger(old).refresh(), UNITS, [])
    return old


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("ROWS_PER_PART", 90), ("PARTS_PER_PASS", 3), ("_BATCH_ROWS", 17)):
        monkeypatch.setattr(sort, name, value)
    monkeypatch.setattr(parts, "ROW_GROUP_ROWS", 40)


def new_uri(tmp_path: Path) -> str:
    return str(tmp_path / "new")


def test_dictionaries_only_where_values_repeat(whole: RunFolder, tmp_path: Path) -> None:
    compact(whole.uri, new_uri(tmp_path))
    new = committed_parts(open_results(new_uri(tmp_path)).folder)[0]
    group = pq.read_metadata(new.path).row_group(0)
    chunks = [group.column(number) for number in range(group.num_columns)]
    coded = {chunk.path_in_schema for chunk in chunks if "RLE_DICTIONARY" in chunk.encodings}
    assert {"shard", "status"} <= coded
    assert not {"image_id", "key", "score__cue", "heatmap__cue", "heatmap_max__cue"} & coded


@pytest.mark.usefixtures("small")
def test_rows_are_the_same_and_sorted(whole: RunFolder, tmp_path: Path) -> None:
    done = compact(whole.uri, new_uri(tmp_path))
    assert (done.rows, done.parts_before, done.parts, done.deleted) == (600, 12, 7, False)
    before, after = open_results(whole.uri), open_results(new_uri(tmp_path))
    assert after.images().equals(before.images().sort_index())
    np.testing.assert_array_equal(after.maps("cue")[1], before.maps("cue", after.maps("cue")[0])[1])
    files = [pq.ParquetFile(part.path) for part in committed_parts(after.folder)]
    ids = [id_ for file in files for id_ in file.read(["image_id"])["image_id"].to_pylist()]
    assert ids == sorted(ids)
    first = pq.ParquetFile(committed_parts(whole)[0].path)
    for file in files:
        assert file.schema_arrow.equals(first.schema_arrow, check_metadata=True)
        assert file.metadata.metadata[b"legrad"] == first.metadata.metadata[b"legrad"]
        assert file.metadata.row_group(0).num_rows == 40
        assert 60 <= file.metadata.num_rows <= 120


def test_the_new_folder_is_an_ordinary_run(whole: RunFolder, tmp_path: Path) -> None:
    compact(whole.uri, new_uri(tmp_path))
    new = open_results(new_uri(tmp_path)).folder
    assert new.complete.exists()
    assert not work(new, *UNITS).left
    assert left(work(new, *UNITS, tar("2.tar"))) == ["2.tar"]
    again = compact(new.uri, f"{new_uri(tmp_path)}-again")
    assert again.rows == 600
    assert not work(run_folder(again.output), *UNITS).left


def test_every_row_keeps_its_number(whole: RunFolder, tmp_path: Path) -> None:
    """If a part is lost later, only its rows are computed again."""
    compact(whole.uri, new_uri(tmp_path))
    new = run_folder(new_uri(tmp_path))
    for folder in (whole, new):
        tables = [read_part(part)[0] for part in committed_parts(folder)]
        numbers = {
            row["image_id"]: row[BOOK]["number"]
            for table in tables
            for row in table.select(["image_id", BOOK]).to_pylist()
        }
        assert numbers == {f"{u.name}/{key}": n for u in UNITS for n, key in enumerate(KEYS)}


def test_a_run_of_an_earlier_version(tmp_path: Path) -> None:
    old = make_run(tmp_path / "old")
    earlier_part(old, ray_name(1), rows("0.tar", "ba"))
    compact(old.uri, new_uri(tmp_path), partial=True)
    assert list(open_results(new_uri(tmp_path)).images().index) == ["0.tar/a", "0.tar/b"]
    assert is_of_earlier_version(run_folder(new_uri(tmp_path)))


def test_the_old_folder_is_deleted_only_on_request(whole: RunFolder, tmp_path: Path) -> None:
    (tmp_path / "old" / "images" / "mine.parquet").write_bytes(b"of the user")
    (tmp_path / "old" / "notes.txt").write_text("of the user")
    assert compact(whole.uri, new_uri(tmp_path), delete_source=True).deleted
    left_over = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.glob("old/**/*"))
    assert left_over == [
        "old/images",
        f"old/images/{DRAFT}",
        "old/images/mine.parquet",
        "old/notes.txt",
    ]
    assert len(open_results(new_uri(tmp_path))) == 600


def test_what_people_decided_goes_along(whole: RunFolder, tmp_path: Path) -> None:
    written = {name: name.encode() for name in ("verdicts.csv", "labels.csv", "label_design.json")}
    for name, data in written.items():
        whole.root.child("_run", name).write(data)
    compact(whole.uri, new_uri(tmp_path), delete_source=True)
    new = run_folder(new_uri(tmp_path)).root.child("_run")
    assert {name: new.child(name).read() for name in written} == written


def test_an_incomplete_run_is_refused(old: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"600 rows are committed.*--partial"):
        compact(old.uri, new_uri(tmp_path))
    assert not Path(new_uri(tmp_path)).exists()
    compact(old.uri, new_uri(tmp_path), partial=True)
    assert len(open_results(new_uri(tmp_path))) == 600
    assert not open_results(new_uri(tmp_path)).folder.complete.exists()


def test_output_folders_that_are_not_empty(whole: RunFolder, tmp_path: Path) -> None:
    for output in (whole.uri, f"{whole.uri}/images/new", str(tmp_path)):
        with pytest.raises(UsageError, match="--output"):
            compact(whole.uri, output)
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "file").write_text("x")
    with pytest.raises(UsageError, match="1 file in it"):
        compact(whole.uri, new_uri(tmp_path))
    with pytest.raises(UsageError, match=r"manifest\.json is missing"):
        compact(str(tmp_path / "nowhere"), str(tmp_path / "new2"))


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("written", [0, 3, "all"])
def test_a_killed_compaction_is_repeated(
    whole: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: int | str
) -> None:
    class Killed(BaseException):
        pass

    def kill(*args):
        raise Killed

    write, done = sort.write_part, []

    def write_some(*arguments):
        if len(done) == written:
            kill()
        done.append(arguments)
        write(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(sort, "write_part", write_some)
        patch.setattr("pipeline.runs.compact._verify", kill)
        with pytest.raises(Killed):
            compact(whole.uri, new_uri(tmp_path))
    (tmp_path / "new" / "_run" / ".input.parquet.123.draft").touch()
    with pytest.raises(UsageError, match=r"manifest\.json is missing"):
        open_results(new_uri(tmp_path))
    messages: list[str] = []
    assert compact(whole.uri, new_uri(tmp_path), report_message=messages.append).rows == 600
    assert any("interrupted" in text for text in messages)
    assert len(open_results(new_uri(tmp_path))) == 600
    assert not list((tmp_path / "new").glob("_run/*compacting*"))
    assert not list((tmp_path / "new").glob("**/*.draft"))


def test_an_interrupted_attempt_beside_other_files_is_left_alone(
    whole: RunFolder, tmp_path: Path
) -> None:
    new = run_folder(new_uri(tmp_path))
    new.compacting.write(b'{"from": "/another/run"}')
    with pytest.raises(UsageError, match=r"_run/compacting\.json"):
        compact(whole.uri, new_uri(tmp_path))
    new.compacting.write(json.dumps({"from": whole.root.path}).encode())
    new.images.child("mine.parquet").write(b"of the user")
    with pytest.raises(UsageError, match=r"images/mine\.parquet"):
        compact(whole.uri, new_uri(tmp_path))
    assert new.images.child("mine.parquet").exists()


def test_duplicate_rows_are_an_error(whole: RunFolder, tmp_path: Path) -> None:
    part(whole, rows("1.tar", ["007"]), first=7)
    with pytest.raises(RunError, match=r"1\.tar/007 occurs twice"):
        compact(whole.uri, new_uri(tmp_path), partial=True, delete_source=True)
    assert Ledger(whole).refresh().rows == 601


def test_a_source_is_kept_when_the_rows_differ(
    whole: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = sort.write_part

    def spoil(images, table, ends, number):
        write(images, table.slice(1), ends, number)

    monkeypatch.setattr(sort, "write_part", spoil)
    with pytest.raises(RunError, match="is kept"):
        compact(whole.uri, new_uri(tmp_path), delete_source=True)
    assert len(open_results(whole.uri)) == 600
    with pytest.raises(UsageError, match=r"manifest\.json is missing"):
        open_results(new_uri(tmp_path))
