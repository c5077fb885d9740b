"""Runs killed at random and at each step of writing a part: the result is as without a kill.

Without Ray and without a model, so that many rounds take little time; `tests.integration` and
``benchmarks/kill.py`` kill real runs.
"""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pytest

from pipeline import open_results
from pipeline.runs.check import check
from pipeline.runs.manifest import run_folder
from tests.data import samples, tar_bytes
from tests.parts import make_run

pytestmark = pytest.mark.starts
POINT = """
import os, signal, sys
from pipeline.runs import parts
from pipeline.stages import write
passes = iter(range({skip} + 1))
def reach(point):
    if point == {point!r} and next(passes) == {skip}:
        os.kill(os.getpid(), signal.{signal})
write_part, write_rows, fsync = parts.write_part, parts._write_rows, os.fsync
def part(*args):
    reach("before part")
    place = write_part(*args)
    reach("after part")
def rows(sink, *args):
    import io
    whole = io.BytesIO()
    write_rows(whole, *args)
    data = whole.getvalue()
    sink.write(data[:len(data) // 2])
    sink.flush()
    reach("in data")
    sink.write(data[len(data) // 2:])
def sync(descriptor):
    fsync(descriptor)
    reach("before rename")
write.write_part, parts._write_rows, parts.os.fsync = part, rows, sync
from tests.runs.plain_run import main
main(*sys.argv[1:3], int(sys.argv[3]))
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six shards of 0 to 50 samples, one of them truncated, one with repeated keys."""
    folder = tmp_path_factory.mktemp("source")
    for number in range(6):
        data = tar_bytes(samples([f"k{i % 45}" for i in range(10 * number)], 100 * number))
        (folder / f"{number}.tar").write_bytes(data if number != 3 else data[: len(data) // 2])
    return folder


@pytest.fixture(scope="module")
def wanted(source: Path, tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    out = make_run(tmp_path_factory.mktemp("whole") / "out")
    assert run(source, out.uri, 0).wait() == 0
    return rows(out.uri)


def run(source: Path, output: str, seed: int, code: str | None = None) -> "subprocess.Popen[bytes]":
    what = ["-m", "tests.runs.plain_run"] if code is None else ["-c", code]
    return subprocess.Popen([sys.executable, *what, str(source), output, str(seed)])


def rows(output: str) -> pa.Table:
    return open_results(output).runs[0].dataset.to_table().sort_by("image_id")


def finish(source: Path, output: str, wanted: pa.Table, seed: int = 1) -> None:
    """Run the same command again and compare the results with those of an undisturbed run."""
    assert run(source, output, seed).wait() == 0
    assert rows(output).equals(wanted)
    assert check(run_folder(output)).sound


@pytest.mark.parametrize("skip", [2])
@pytest.mark.parametrize("point", ["before part", "in data", "before rename", "after part"])
def test_every_step(source: Path, wanted: pa.Table, tmp_path: Path, point: str, skip: int) -> None:
    out = make_run(tmp_path / "out")
    killed = run(source, out.uri, skip, POINT.format(point=point, skip=skip, signal="SIGKILL"))
    assert killed.wait() == -signal.SIGKILL
    finish(source, out.uri, wanted)


def test_at_random(source: Path, wanted: pa.Table, tmp_path: Path) -> None:
    """Kill the run twice per round, between the first part and the end."""
    chance = random.Random(0)
    for number in range(int(os.environ.get("KILL_ROUNDS", "2"))):
        out = make_run(tmp_path / f"out-{number}")
        for attempt in range(2):
            process = run(source, out.uri, chance.randrange(1000) + attempt)
            before = len(out.images.files())
            while process.poll() is None and len(out.images.files()) == before:
                time.sleep(0.005)
            time.sleep(chance.uniform(0, 0.2))
            process.kill()
            process.wait()
        finish(source, out.uri, wanted, chance.randrange(1000))


@pytest.mark.parametrize("ended", [True, False])
def test_a_writer_that_outlives_its_run(
    source: Path, wanted: pa.Table, tmp_path: Path, ended: bool
) -> None:
    """It was suspended after it had checked the lease, and commits its part after the next run."""
    out = make_run(tmp_path / "out")
    code = POINT.format(point="before rename", skip=3, signal="SIGSTOP")
    late = run(source, out.uri, 5, code)
    try:
        os.waitpid(late.pid, os.WUNTRACED)
        draft = next(Path(out.images.path).glob(".*.draft"))
        kept = tmp_path / "kept"
        kept.write_bytes(draft.read_bytes())
        out.lease.delete()  # as after a minute without a sign, from another machine
        if ended:
            finish(source, out.uri, wanted)
        kept.rename(Path(out.images.path) / draft.name[1:].rsplit(".", 2)[0])
    finally:
        late.kill()
        late.wait()
    finish(source, out.uri, wanted, 9)
