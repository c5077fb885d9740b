"""The commands as a user meets them: output, errors, exit codes."""

import gc
from pathlib import Path

import pandas as pd
import pytest
import yaml

from jobs import cli
from legrad import __version__
from pipeline.config import RuntimeConfig
from pipeline.errors import KEPT
from tests.conftest import DemoRun
from tests.data import jpeg
from tests.in_process import without_ray
from tests.jobs.command import legrad
from tests.parts import make_run, part, rows


def test_version_and_help() -> None:
    assert legrad("--version").stdout.strip() == f"legrad-audit {__version__}"
    shown = legrad("--help").stdout
    for command in ("demo", "init", "run", "scores", "explain", "models", "doctor"):
        assert command in shown
    assert "Usage" in legrad().stdout + legrad().stderr


def test_garbage_is_looked_for_less_often_while_a_command_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before, during, at_exit = gc.get_threshold(), [], []
    monkeypatch.setattr(cli.atexit, "register", at_exit.append)
    monkeypatch.setattr(cli, "_code", lambda: during.append(gc.get_threshold()))
    assert legrad().returncode == 0
    assert during[0] == (100_000, *before[1:])
    assert gc.get_threshold() == before
    assert at_exit == [gc.freeze]


GOOD = {
    "model": {"name": "ViT-B-32", "pretrained": "laion2b_s34b_b79k"},
    "source": {"format": "folder", "uri": "pictures"},
    "queries": [{"name": "dog", "role": "class"}],
    "output": "out",
}
BAD = {
    "unknown key": (GOOD | {"modle": {}}, "modle"),
    "weights": (GOOD | {"model": {"name": "ViT-B-32", "pretrained": "w.pt"}}, "no weights file"),
}


@pytest.mark.parametrize("fault", BAD)
def test_a_bad_configuration_is_one_message_and_code_2(fault: str, tmp_path: Path) -> None:
    data, word = BAD[fault]
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(data))
    done = legrad("run", "run.yaml", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("legrad: error: run.yaml: ")
    assert word in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(("step", "kept"), [("open_source", False), ("_run_passes", True)])
def test_only_a_run_that_began_says_that_rows_are_kept(
    step: str, kept: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*arguments: object) -> None:
        raise ZeroDivisionError("it failed")

    monkeypatch.setattr(f"pipeline.flow.{step}", fails)
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "0.jpg").write_bytes(jpeg(0))
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(GOOD | {"model": {"name": "mini"}}))
    with without_ray():
        done = legrad("run", "run.yaml", cwd=tmp_path)
    assert done.returncode == 1
    assert "it failed" in done.stderr
    assert (KEPT in done.stderr) is kept


def test_missing_files_and_arguments(tmp_path: Path) -> None:
    for arguments, word in (
        (["run", "absent.yaml"], "no such file"),
        (["run"], "CONFIG"),
        (["scores", "nothing"], "manifest.json is missing"),
        (["jump"], "jump"),
        (["demo", "--images", "0"], "--images"),
        (["check", "nothing", "--failures", "--recompute", "3"], "--recompute"),
        (["label", "nothing", "--depth", "reliance"], "--depth"),
    ):
        done = legrad(*arguments, cwd=tmp_path)
        assert done.returncode == 2, arguments
        assert word in done.stderr
        assert "Traceback" not in done.stderr


def test_check_says_fine(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(GOOD))
    done = legrad("run", "run.yaml", "--check", cwd=tmp_path)
    assert done.returncode == 0
    assert "run.yaml" in done.stdout
    assert not (tmp_path / "out").exists()


def labelled_pictures(folder: Path, **config: object) -> None:
    """Three pictures of two labels, and a configuration for them."""
    for number, label in enumerate(("cat", "cat", "dog")):
        (folder / "pictures" / label).mkdir(parents=True, exist_ok=True)
        (folder / "pictures" / label / f"{number}.jpg").write_bytes(jpeg(number))
    data = GOOD | {"model": {"name": "mini"}} | config
    (folder / "run.yaml").write_text(yaml.safe_dump(data))


def test_a_dry_run_shows_the_first_images_and_writes_nothing(tmp_path: Path) -> None:
    labelled_pictures(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    done = legrad("run", "run.yaml", "--dry-run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "3 images, 1 map each" in done.stdout
    for image_id in ("cat/0.jpg", "cat/1.jpg", "dog/2.jpg"):
        (line,) = (line for line in done.stdout.splitlines() if image_id in line)
        assert line.split()[1:5] == [image_id.split("/")[0], "40", "x", "30"]
    assert sorted(tmp_path.rglob("*")) == before


def test_a_complete_run_has_nothing_to_do(tmp_path: Path) -> None:
    labelled_pictures(tmp_path)
    with without_ray():
        first, again = (legrad("run", "run.yaml", cwd=tmp_path) for _ in range(2))
    assert first.returncode == again.returncode == 0, first.stderr + again.stderr
    assert "nothing to do" not in first.stdout
    assert "nothing to do: the run is complete" in again.stdout


def test_check_lists_failures_and_computes_again(tmp_path: Path) -> None:
    labelled_pictures(tmp_path, runtime={"max_failed_fraction": 1})
    (tmp_path / "pictures" / "dog" / "bad.jpg").write_bytes(b"no picture")
    with without_ray():
        assert legrad("run", "run.yaml", cwd=tmp_path).returncode == 0
    listed = legrad("check", "out", "--failures", cwd=tmp_path)
    assert listed.returncode == 0
    assert "dog/bad.jpg" in listed.stdout
    assert "not_an_image" in listed.stdout
    assert "cat/0.jpg" not in listed.stdout
    written = legrad("check", "out", "--csv", "failed.csv", cwd=tmp_path)
    assert written.returncode == 0
    frame = pd.read_csv(tmp_path / "failed.csv")
    assert frame[["image_id", "status"]].to_numpy().tolist() == [["dog/bad.jpg", "not_an_image"]]
    again = legrad("check", "out", "--recompute", "2", cwd=tmp_path)
    assert again.returncode == 0, again.stdout
    assert "2 images" in again.stdout


def test_a_source_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(GOOD))
    done = legrad("run", "run.yaml", cwd=tmp_path)
    assert done.returncode == 2
    assert "pictures: not found" in done.stderr


def test_scores(demo_run: DemoRun, tmp_path: Path) -> None:
    table = legrad("scores", demo_run.output, "-q", "bird", "-n", "3").stdout
    assert "image_id" in table
    assert "bird" in table
    assert "257 more" in table
    csv = tmp_path / "scores.csv"
    assert legrad("scores", demo_run.output, "--csv", str(csv)).returncode == 0
    frame = pd.read_csv(csv)
    assert len(frame) == 260
    assert {"image_id", "label", "status", "bird", "an_image"} <= set(frame.columns)
    piped = legrad("scores", demo_run.output, "-q", "bird", "--csv", "-").stdout
    assert piped.splitlines()[0] == "image_id,label,status,bird"
    unknown = legrad("scores", demo_run.output, "-q", "dragon")
    assert unknown.returncode == 2
    assert "no query 'dragon'" in unknown.stderr


def test_demo_and_run_from_nothing(ray_session: None, tmp_path: Path) -> None:
    done = legrad("demo", "--images", "60", "--out", "d", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for word in ("60 rows, 60 explained", "sheet.png", "images/s", "fewer than 20 images"):
        assert word in done.stdout
    assert "No cue is flagged for any class" in done.stdout  # too few to say so
    assert (tmp_path / "d" / "sheet.png").stat().st_size > 50_000
    assert (tmp_path / "d" / "report" / "index.html").exists()
    assert len(pd.read_csv(tmp_path / "d" / "pairs.csv")) == 11 * (10 + 15)
    other = legrad("demo", "--images", "70", "--out", "d", cwd=tmp_path)
    assert other.returncode == 2
    assert "another demo data set" in other.stderr


def test_progress_lines_without_a_terminal(ray_session: None, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(200):
        (folder / f"{number}.jpg").write_bytes(jpeg(number))
    data = GOOD | {
        "model": {"name": "mini"},
        "runtime": {"report_every": 0.2, "actors": 1, "batch_size": 20},
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(data))
    done = legrad("run", "run.yaml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "mean nothing" in done.stderr
    assert "images/s" in done.stderr
    assert "200 rows, 200 explained" in done.stdout
    assert RuntimeConfig().report_every == 10


def test_doctor(ray_session: None) -> None:
    done = legrad("doctor")
    assert done.returncode == 0, done.stdout
    for word in ("torch", "ray", "logical CPUs", "free", "cores"):
        assert word in done.stdout


def test_compact(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "out")
    for number, keys in enumerate(["dbe", "ca"]):
        part(folder, rows("0.tar", list(keys)), first=100 * number)
    refused = legrad("compact", "out", "--output", "new", cwd=tmp_path)
    assert refused.returncode == 2
    assert "not complete, 5 rows are committed" in refused.stderr
    done = legrad("compact", "out", "--output", "new", "--partial", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "5 rows, sorted by image_id" in done.stdout
    assert "parts   1, " in done.stdout
    listed = legrad("scores", "new", "--csv", "-", cwd=tmp_path).stdout.splitlines()
    assert [line.split(",")[0] for line in listed[1:]] == [f"0.tar/{key}" for key in "abcde"]
