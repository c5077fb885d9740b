"""Killed in mid-run and started again: one row an image."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import ray.data
import yaml

from pipeline import open_results
from pipeline.demo import write_demo
from pipeline.errors import RunError
from pipeline.flow import _checkpointed, run
from pipeline.lease import Fence
from pipeline.loading import load_config
from pipeline.manifest import run_folder
from pipeline.parts import committed_parts
from pipeline.schema import output_schema
from pipeline.write import write
from tests.data import CLASSES_AND_CUES, mini_config, samples, tar_bytes

IMAGES = 1000


@pytest.fixture
def config(tmp_path: Path) -> Path:
    write_demo(str(tmp_path / "data"), IMAGES, seed=5)
    data = {
        "model": {"name": "mini"},
        "source": {"format": "webdataset", "uri": str(tmp_path / "data"), "alias": "demo"},
        "queries": list(CLASSES_AND_CUES),
        "output": str(tmp_path / "out"),
        "runtime": {"actors": 1, "threads_per_actor": 1, "batch_size": 25, "rows_per_part": 100},
    }
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump(data))
    return file


def start(config: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "jobs", "run", str(config)]
    return subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE)


def wait_for_parts(out: Path, count: int) -> None:
    end = time.monotonic() + 240
    while time.monotonic() < end:
        if len(committed_parts(run_folder(str(out)))) >= count:
            return
        time.sleep(0.05)
    raise AssertionError("no part was committed")


def assert_whole(out: Path) -> None:
    results = open_results(str(out))
    images = results.images()
    assert Counter(images["status"]) == {"ok": IMAGES}
    assert images.index.is_unique
    assert len(images) == IMAGES
    marker = json.loads((out / "_run" / "complete.json").read_text())
    assert marker["rows"] == IMAGES
    rows = sum(len(table) for table in results.batches(["fish"]))
    assert rows == IMAGES


def kill_after(config: Path, parts: int) -> None:
    process = start(config)
    try:
        wait_for_parts(config.parent / "out", parts)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.slow
def test_killed_again_and_again(config: Path) -> None:
    out = config.parent / "out"
    for parts in (1, 2, 3):
        kill_after(config, parts)
    subprocess.run([sys.executable, "-m", "jobs", "run", str(config)], check=True)
    assert_whole(out)


def test_sigkill_loses_and_doubles_nothing(config: Path) -> None:
    out = config.parent / "out"
    kill_after(config, 2)
    there = len(open_results(str(out)))
    assert 200 <= there < IMAGES
    assert not (out / "_run" / "complete.json").exists()
    again = subprocess.run(
        [sys.executable, "-m", "jobs", "run", str(config)], capture_output=True, check=True
    )
    assert "rows were there already" in again.stdout.decode()
    assert_whole(out)


def test_ctrl_c_says_how_to_continue(config: Path) -> None:
    process = start(config)
    wait_for_parts(config.parent / "out", 1)
    os.kill(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    assert b"run the same command again to continue" in errors
    assert b"Traceback" not in errors


def test_new_shards_are_added_to_a_complete_run(ray_session: None, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "0.tar").write_bytes(tar_bytes(samples(["a", "b"])))
    config = mini_config({"format": "webdataset", "uri": str(tmp_path / "in")}, tmp_path / "out")
    assert run(config).rows == 2
    assert run(config).already_complete
    (tmp_path / "in" / "1.tar").write_bytes(tar_bytes(samples(["a", "c", "d"], 7)))
    summary = run(config)
    assert (summary.rows, summary.resumed) == (5, 2)
    ids = sorted(open_results(str(tmp_path / "out")).images().index)
    assert ids == ["0.tar/a", "0.tar/b", "1.tar/a", "1.tar/c", "1.tar/d"]
    (tmp_path / "in" / "0.tar").unlink()
    (tmp_path / "in" / "2.tar").write_bytes(tar_bytes(samples(["e"], 20)))
    summary = run(config)
    assert summary.rows == 6
    assert any("2 rows are of files or samples that are no longer" in n for n in summary.notes)


def test_broken_shards_are_counted(ray_session: None, tmp_path: Path) -> None:
    whole = tar_bytes(samples([f"k{i}" for i in range(6)]))
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "0.tar").write_bytes(whole)
    (folder / "1.tar").write_bytes(whole[: len(whole) // 2])
    (folder / "2.tar").write_bytes(b"")
    (folder / "3.tar").write_bytes(tar_bytes([]))
    (folder / "4.tar").write_bytes(tar_bytes([*samples(["a", "a"]), ("b.json", b"{}")]))
    config = mini_config({"format": "webdataset", "uri": str(folder)}, tmp_path / "out")
    summary = run(config)
    assert summary.failures == {"shard_error": 3, "duplicate_key": 1, "no_image": 1}
    images = open_results(str(tmp_path / "out")).images()
    assert len(images) == summary.rows
    assert set(images.loc[images["status"] == "shard_error", "shard"]) == {"1.tar", "2.tar"}


def test_a_plan_that_ray_would_not_resume_is_an_error(ray_session: None, tmp_path: Path) -> None:
    folder = run_folder(str(tmp_path / "out"))
    schema = output_schema({}, ["a"], (2, 2), embeddings=False, metadata={})
    fence = Fence(folder.lease, "run", "out")
    with pytest.raises(RunError, match="no checkpoint"):
        write(ray.data.range(3), folder, schema, 10, fence)
    with _checkpointed(folder.checkpoint):
        rows = ray.data.from_items([{"image_id": "x"}]).map_batches(lambda batch: batch)
        with pytest.raises(RunError, match="would not resume"):
            write(rows, folder, schema, 10, fence)
    assert not (tmp_path / "out").exists()


def test_the_same_settings_from_another_folder_are_the_same_run(
    config: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir("/")
    assert load_config(config).output == str(tmp_path / "out")
