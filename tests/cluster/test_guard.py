"""A run in which too much fails is ended, and the same command continues it."""

from collections import Counter
from pathlib import Path

import pytest
from ray.exceptions import ActorDiedError, OutOfMemoryError, RayTaskError, WorkerCrashedError

from pipeline import open_results
from pipeline.cluster.guard import FEWEST_ROWS, Guard, explain_end, is_death, refuse_failures
from pipeline.errors import RunError
from pipeline.flow import run
from pipeline.runs.manifest import run_folder
from tests import in_process
from tests.data import mini_config, samples, tar_bytes


def refuse(most: float, **statuses: int) -> None:
    refuse_failures(Counter(statuses), {"no_image": "0.tar/a: fields: json"}, most)


def test_a_run_that_goes_wrong_is_ended() -> None:
    refuse(0.5, ok=1, no_image=FEWEST_ROWS - 2)  # too early to tell
    refuse(0.5, ok=FEWEST_ROWS, no_image=FEWEST_ROWS)
    refuse(1.0, no_image=10_000)
    with pytest.raises(RunError) as caught:
        refuse(0.5, ok=400, no_image=500, truncated=100)
    for fact in ("600 of 1,000", "500 no_image", "100 truncated", "0.tar/a: fields: json"):
        assert fact in str(caught.value)


def test_deaths_are_told_from_errors() -> None:
    assert is_death(WorkerCrashedError())
    assert is_death(OutOfMemoryError("memory"))
    assert is_death(ActorDiedError())
    assert not is_death(RayTaskError("f", "traceback", ValueError("x")))
    assert not is_death(ValueError("x"))
    guard = Guard(None, 0.5, tolerant=True)
    guard.note(WorkerCrashedError())
    assert guard.deaths == 1
    guard.note(OSError(28, "No space left on device"))
    with pytest.raises(OSError, match="No space"):
        guard.on_execution_step()


def test_the_end_is_explained(tmp_path: Path) -> None:
    folder = run_folder(str(tmp_path / "out"))
    full = RayTaskError("f", "traceback", OSError(28, "No space left on device"))
    assert "the disk is full" in str(explain_end(full, folder))
    wrapped = RuntimeError("outer")
    wrapped.__cause__ = RayTaskError("f", "traceback", RunError("clear already"))
    assert str(explain_end(wrapped, folder)) == "clear already"
    denied = RayTaskError("f", "traceback", PermissionError(13, "denied"))
    assert "permission denied" in str(explain_end(denied, folder))
    assert "a worker died" in str(explain_end(WorkerCrashedError(), folder))
    bug = ZeroDivisionError()
    assert explain_end(bug, folder) is bug


def test_a_run_stops_and_goes_on(ray_session: None, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    rubbish = [(f"r{n:04d}.jpg", b"rubbish") for n in range(2 * FEWEST_ROWS)]
    for number in range(4):
        half = rubbish[number * FEWEST_ROWS // 2 : (number + 1) * FEWEST_ROWS // 2]
        (tmp_path / "in" / f"{number}.tar").write_bytes(
            tar_bytes([*half, *samples([f"k{number}"])])
        )
    source = {"format": "webdataset", "uri": str(tmp_path / "in"), "alias": "demo"}
    runtime = {"actors": 1, "threads_per_actor": 1, "rows_per_part": 100}
    with pytest.raises(RunError, match=r"not_an_image.*\.tar/r\d+: 7 bytes of no known"):
        run(mini_config(source, tmp_path / "out", runtime=runtime))
    assert not (tmp_path / "out" / "_run" / "complete.json").exists()
    summary = in_process.run(
        mini_config(source, tmp_path / "out", runtime=runtime | {"max_failed_fraction": 1})
    )
    assert summary.statuses == {"not_an_image": 2 * FEWEST_ROWS, "ok": 4}
    assert open_results(str(tmp_path / "out")).images().index.is_unique
