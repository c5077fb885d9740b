"""Killed in mid-run and started again: one row an image."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks import kill
from pipeline import flow, open_results
from pipeline.demo.dataset import write_demo
from pipeline.errors import RunError, UsageError
from pipeline.flow import Watch
from pipeline.progress.progress import Progress
from pipeline.runs import lease
from pipeline.runs.lease import Holder
from pipeline.runs.manifest import run_folder
from pipeline.runs.parts import committed_parts
from tests.data import CLASSES_AND_CUES, mini_config, samples, tar_bytes
from tests.in_process import run
from tests.jobs.command import legrad

pytestmark = pytest.mark.starts

IMAGES, PART = 600, 60


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of images, drawn once."""
    folder = tmp_path_factory.mktemp("images")
    write_demo(str(folder), IMAGES, seed=5)
    return folder


@pytest.fixture
def config(tmp_path: Path, images: Path) -> Path:
    data = {
        "model": {"name": "mini"},
        "source": {"format": "webdataset", "uri": str(images), "alias": "demo"},
        "queries": list(CLASSES_AND_CUES),
        "output": str(tmp_path / "out"),
        "runtime": {"actors": 1, "threads_per_actor": 1, "batch_size": 20, "rows_per_part": PART},
    }
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump(data))
    return file


@contextmanager
def started(config: Path) -> "Iterator[subprocess.Popen[bytes]]":
    """``legrad run`` in a process group of its own; nothing of it is alive afterwards."""
    command = [sys.executable, "-m", "jobs", "run", str(config)]
    options: dict[str, Any] = {"start_new_session": True, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, **options) as process:
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


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


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["local", "s3"])
def test_killed_at_random_and_in_mid_commit(kind: str, tmp_path: Path) -> None:
    """Driver, actor and writer; and right after a part was written."""
    with kill.open_store(kind, tmp_path) as store:
        wanted = kill.undisturbed(store, images=800)  # more than 3 s, within which it kills
        plans = [("random", target) for target in kill.TARGETS]
        if kind == "s3":
            plans = [("after part", "driver"), ("after part", "worker")]
        report = kill.rounds(store, plans, wanted, random.Random(1))
    assert report.counts["killed"] == len(plans)
    assert report.worst <= 1


def test_ctrl_c_and_sigkill_lose_and_double_nothing(config: Path) -> None:
    out = config.parent / "out"
    with started(config) as process:
        wait_for_parts(out, 1)
        os.kill(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    kept = len(open_results(str(out)))
    said = re.search(r"interrupted: ([\d,]+) rows", errors.decode())
    assert said is not None
    assert PART <= int(said[1].replace(",", "")) <= kept  # a part that was being written may follow
    assert b"Traceback" not in errors
    assert "same command again" in errors.decode()
    with started(config) as process:
        wait_for_parts(out, len(committed_parts(run_folder(str(out)))) + 1)
        os.killpg(process.pid, signal.SIGSTOP)  # or it would be done before the next has begun
        refused = legrad("run", str(config))
    assert refused.returncode == 2
    assert f"process {process.pid} of" in refused.stderr
    there = len(open_results(str(out)))
    assert kept < there < IMAGES
    assert (out / "_run" / "lease.json").exists()
    assert not (out / "_run" / "complete.json").exists()
    command = [sys.executable, "-m", "jobs", "run", str(config)]
    again = subprocess.run(command, capture_output=True, check=False)
    assert again.returncode == 0, again.stderr.decode()
    assert f"{there:,} rows" in again.stdout.decode()
    assert_whole(out)


def test_a_run_that_is_taken_over_commits_no_more(ray_session: None, tmp_path: Path) -> None:
    write_demo(str(tmp_path / "data"), 200, seed=5, per_shard=25)
    runtime = {"actors": 1, "threads_per_actor": 1, "batch_size": 25, "rows_per_part": 25}
    source = {"format": "webdataset", "uri": str(tmp_path / "data")}
    config = mini_config(source, tmp_path / "out", runtime=runtime)
    folder = run_folder(config.output)
    stolen: list[int] = []

    def steal(progress: Progress) -> None:
        if progress.rows and not stolen:
            other = replace(Holder.here(), host="gpu-7", table="another machine")
            folder.lease.write(lease._lease_json(other))
            stolen.append(len(committed_parts(folder)))

    with pytest.raises(RunError, match="on gpu-7"):
        flow.run(config, Watch(progress=steal, seconds=0.02))
    assert not folder.complete.exists()
    assert len(committed_parts(folder)) < 8
    folder.lease.delete()
    assert flow.run(config).rows == 200


def test_shards_come_and_go_and_finished_ones_are_not_read_again(tmp_path: Path) -> None:
    shards = tmp_path / "in"
    shards.mkdir()
    for number in range(2):
        tar = tar_bytes(samples([f"k{i}" for i in range(4)], 10 * number))
        (shards / f"{number}.tar").write_bytes(tar)
    config = mini_config({"format": "webdataset", "uri": str(shards)}, tmp_path / "out")
    assert run(config).rows == 8
    assert run(config).already_complete
    file = shards / "1.tar"  # what is not read does not matter
    times = (file.stat().st_atime, file.stat().st_mtime)
    file.write_bytes(bytes(file.stat().st_size))
    os.utime(file, times)
    (shards / "0.tar").unlink()
    (shards / "2.tar").write_bytes(tar_bytes(samples(["k0", "new"], 7)))
    summary = run(config)
    assert (summary.rows, summary.resumed, summary.statuses) == (10, 8, {"ok": 10})
    assert (summary.progress.rows, summary.progress.rows_read) == (2, 6)
    assert any(note.startswith("4 rows ") for note in summary.notes)
    ids = open_results(config.output).images().index
    assert {"0.tar/k0", "1.tar/k0", "2.tar/k0", "2.tar/new"} <= set(ids)
    os.utime(shards / "1.tar", (0, 0))
    with pytest.raises(UsageError, match=r"1 shard changed .*\(1\.tar\)"):
        run(config)


def test_broken_shards_are_counted(tmp_path: Path) -> None:
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
