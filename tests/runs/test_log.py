"""The run log, and what an observer makes of an output."""

import json
from pathlib import Path

import pytest

from jobs.check import state_line
from pipeline.errors import UsageError
from pipeline.progress.progress import Progress
from pipeline.progress.watch import Watch
from pipeline.runs import log as run_log
from pipeline.runs import observe
from pipeline.runs.lease import hold_lease
from pipeline.runs.log import logged
from pipeline.runs.manifest import RunFolder, run_folder
from tests.conftest import DemoRun
from tests.data import mini_config
from tests.parts import make_run, part, rows

SECRET = "https://me:pass@host/x?sig=abc"


def config(folder: RunFolder):  # type: ignore[no-untyped-def]
    source = {"format": "folder", "uri": SECRET, "options": {"key": "hush"}}
    return mini_config(source, folder.uri)


def counts(number: int) -> Progress:
    progress = Progress(bytes_total=1000, resumed=10)
    progress.statuses.update({"ok": number, "truncated": 1})
    progress.rows_read, progress.bytes_read = 20, 500
    progress.first_image, progress.seconds_elapsed = 0.0, 2.0
    return progress


def events(folder: RunFolder) -> list[dict[str, object]]:
    (name,) = folder.log.files()
    return [json.loads(text) for text in folder.log.child(name).read().decode().splitlines()]


def _attempt(folder: RunFolder, stages: list[str]) -> None:
    with logged(folder, "abcdef0123", config(folder)) as log:
        watch = log.recording(Watch(stage=stages.append))
        watch.stage(f"listing {SECRET}")
        assert folder.log.files() == []  # nothing before the output is known to be this run's
        log.open()
        watch.progress(Progress())
        watch.progress(counts(9))
        raise UsageError(f"cannot read {SECRET}")


def test_an_attempt_is_written_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_log, "PROGRESS_SECONDS", 0.0)
    folder = make_run(tmp_path / "out")
    stages: list[str] = []
    with pytest.raises(UsageError):
        _attempt(folder, stages)
    recorded = events(folder)
    assert [event["event"] for event in recorded] == ["start", "stage", "progress", "end"]
    assert recorded[0]["runtime"]["actors"] == 1  # type: ignore[index]
    assert recorded[2]["failed"] == 1
    assert recorded[2]["expected"] == 40
    assert (recorded[3]["outcome"], recorded[3]["error"]) == (
        "failed",
        "UsageError: cannot read https://host/x",
    )
    text = json.dumps(recorded)
    assert "pass" not in text.replace("passed", "")
    assert "hush" not in text
    assert "sig" not in text.replace("signal", "")
    assert stages == [f"listing {SECRET}"]


def test_a_refused_attempt_leaves_no_log(tmp_path: Path) -> None:
    folder = run_folder(str(tmp_path / "out"))
    with pytest.raises(UsageError), logged(folder, "a" * 10, config(folder)):
        raise UsageError("holds another run")
    assert not (tmp_path / "out").exists()


def test_a_long_run_keeps_a_short_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_log, "PROGRESS_SECONDS", 0.0)
    monkeypatch.setattr(run_log, "MOST_PROGRESS", 20)
    folder = make_run(tmp_path / "out")
    with logged(folder, "a" * 10, config(folder)) as log:
        log.open()
        for number in range(1, 200):
            log.progress(counts(number))
    recorded = events(folder)
    assert len(recorded) <= 22
    done = [event["rows"] for event in recorded if event["event"] == "progress"]
    assert done == sorted(done)  # type: ignore[type-var]
    assert done[0] == 2
    assert done[-1] == 200


def test_an_observer_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_log, "PROGRESS_SECONDS", 0.0)
    folder = make_run(tmp_path / "out")
    with hold_lease(folder) as fence, logged(folder, fence.run, config(folder)) as log:
        log.open()
        looks = observe.observe(folder, 0.0)
        log.add("stage", text="loading mini")
        assert state_line(next(looks)).startswith("loading mini; committed 0 rows in 0 parts")
        part(folder, rows("0.tar", ["a", "b"]))
        log.progress(counts(9))
        text = state_line(next(looks))
        assert text.startswith("20 of ~40 images  5 images/s  4 s left  1 failed; committed 2 rows")
    last = next(looks)
    assert last.is_over
    assert last.outcome == "complete"
    assert "complete" not in state_line(last)  # no marker: it is for the flow to write
    assert list(looks) == []


def test_a_driver_that_vanished_on_another_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_run(tmp_path / "out")
    monkeypatch.setattr(observe, "STALE_SECONDS", -1.0)
    with hold_lease(folder):
        (state,) = observe.observe(folder, 0.0)
    assert str(state.holder) in state_line(state)


def test_nothing_to_observe(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"manifest\.json is missing"):
        next(observe.observe(run_folder(str(tmp_path)), 0.0))


def test_the_log_of_a_real_run(demo_run: DemoRun) -> None:
    folder = run_folder(demo_run.output)
    recorded = observe.last_log(folder)
    assert recorded[0]["event"] == "start"
    assert recorded[-1]["outcome"] == "complete"
    (state,) = observe.observe(folder, 0.0)
    assert state.complete
    assert state_line(state).endswith("; complete")
    assert state.rows == 260
