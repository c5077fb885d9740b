"""Rows of what the storage would not give are done again by the same command."""

from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq

from pipeline import open_results
from pipeline.flow import run
from pipeline.manifest import run_folder
from pipeline.parts import committed_parts, committed_rows
from pipeline.redo import reopen
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


def test_a_kill_in_the_middle_is_healed(demo_copy: Path) -> None:
    folder = run_folder(str(demo_copy))
    rows = committed_rows(folder)
    statuses = Counter(open_results(str(demo_copy)).images()["status"])
    assert reopen(folder, ["read_error"]) == set()
    assert committed_rows(folder) == rows
    (first, *_) = committed_parts(folder)
    commit = folder.checkpoint.child(f"{first.path.split('/')[-1].rsplit('-', 1)[0]}.parquet")
    ids = pq.read_table(commit.path)
    pq.write_table(ids.slice(0, 1), commit.path)  # killed after the ids, before the rows
    assert reopen(folder, ["ok"])
    assert committed_rows(folder) == rows - statuses["ok"]
    assert not [name for name in folder.images.files() if name.startswith(".")]
