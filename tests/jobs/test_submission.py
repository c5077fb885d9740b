"""Submission without a cluster: ids, the content of the package, and refusals."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.job_submission import JobDetails, JobStatus, JobType

from jobs import package
from jobs.client import ADDRESS_VARIABLES, ClusterOptions, ShippingOptions, explain_refusal
from jobs.cluster_jobs import (
    Screen,
    conclude,
    find_attempt,
    list_attempts,
    reason,
    run_name,
    submission_id,
)
from jobs.submission import Job, begin
from legrad import __version__
from pipeline.errors import RunError, UsageError
from tests.data import mini_config
from tests.jobs.command import legrad

SOURCE = {"format": "folder", "uri": "s3://bucket/pictures"}


class Server:
    """Stands for a job server: keeps what it is given, and refuses used ids as Ray does."""

    def __init__(self, jobs: Sequence[JobDetails] = ()) -> None:
        self.jobs = list(jobs)
        self.sent: list[dict[str, Any]] = []
        self.before = lambda: None

    def list_jobs(self) -> list[JobDetails]:
        return list(self.jobs)

    def submit_job(self, **request: Any) -> str:
        self.before()
        if request["submission_id"] in [job.submission_id for job in self.jobs]:
            raise RuntimeError("Request failed with status code 500: already been used")
        self.sent.append(request)
        self.files = sorted(
            str(path.relative_to(request["runtime_env"]["working_dir"]))
            for path in Path(request["runtime_env"]["working_dir"]).rglob("*")
            if path.is_file()
        )
        self.jobs.append(details(request["submission_id"], "RUNNING", request["metadata"]))
        return str(request["submission_id"])


def details(name: str, status: str, metadata: dict[str, str] | None = None) -> JobDetails:
    return JobDetails(
        type=JobType.SUBMISSION,
        submission_id=name,
        status=JobStatus(status),
        entrypoint="",
        metadata=metadata or {},
        start_time=1,
    )


def job(output: str = "s3://b/heat/Run 1/") -> Job:
    config = mini_config(SOURCE, output)
    text = package.settings_text(config)
    return Job(run_name(output), ("run", package.CONFIG), text, output)


def test_a_run_is_named_by_its_output() -> None:
    name = run_name("s3://b/heat/Run 1/")
    assert name == run_name("s3://b/heat/Run 1")
    assert name.startswith("run-1-")
    assert name != run_name("s3://other/heat/Run 1")
    assert len(run_name("x" * 300)) < 40
    assert run_name("s3://b/***").startswith("run-")
    assert submission_id(name, 2) == f"legrad-{name}-2"


def test_attempts_are_counted_and_used_ids_are_never_asked_for() -> None:
    run = job().run
    server = Server(
        [details("raysubmit_1", "RUNNING")]
        + [details(f"legrad-{run}-{n}", "FAILED") for n in (1, 10, 2)]
        + [details("legrad-other-run-3", "RUNNING")]
    )
    assert [a.number for a in list_attempts(server, run)] == [1, 2, 10]  # type: ignore[arg-type]
    assert begin(server, job(), ShippingOptions()) == f"legrad-{run}-11"  # type: ignore[arg-type]
    assert server.sent[0]["entrypoint"] == "python -m jobs run run.yaml"


def test_one_that_lives_is_followed_and_another_with_other_settings_refused() -> None:
    server = Server()
    first = begin(server, job(), ShippingOptions())  # type: ignore[arg-type]
    assert begin(server, job(), ShippingOptions()) == first  # type: ignore[arg-type]
    assert len(server.sent) == 1
    text = (job().settings or "") + "# changed"
    other = Job(job().run, job().arguments, text, job().output)
    with pytest.raises(UsageError, match="settings"):
        begin(server, other, ShippingOptions())  # type: ignore[arg-type]


def test_two_that_submit_at_once_make_one_job() -> None:
    server = Server()
    name = submission_id(job().run, 1)
    server.before = lambda: server.jobs.append(details(name, "RUNNING", job().metadata))
    assert begin(server, job(), ShippingOptions()) == name  # type: ignore[arg-type]
    assert server.sent == []


def test_a_job_is_found_by_the_beginning_of_its_name() -> None:
    names = ["legrad-a-1-1", "legrad-a-1-2", "legrad-b-1"]
    server = Server([details(name, "SUCCEEDED") for name in names])
    assert find_attempt(server, "legrad-a-1-1").id == "legrad-a-1-1"  # type: ignore[arg-type]
    assert find_attempt(server, "a-").id == "legrad-a-1-2"  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="a-1, b"):
        find_attempt(server, "legrad-")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="no job 'c'"):
        find_attempt(server, "c")  # type: ignore[arg-type]


def test_variables_travel_in_a_file_and_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_TOKEN", "hush")
    server = Server()
    begin(server, job(), ShippingOptions(env=["A_TOKEN"]))  # type: ignore[arg-type]
    assert "hush" not in json.dumps(server.sent[0])
    assert (
        server.sent[0]["runtime_env"]["worker_process_setup_hook"]
        == "pipeline.cluster.job_variables.load"
    )
    assert {"run.yaml", "legrad-variables.json", "pipeline/configs/base.yaml"} <= set(server.files)
    assert not [name for name in server.files if name.endswith(".pyc")]
    for name in ("NOT_THERE", "A=b"):
        with pytest.raises(UsageError, match=f"--env {name[0]}") as refused:
            package.variables([name])
        assert "=b" not in str(refused.value)


@pytest.mark.starts
def test_what_is_shipped_runs_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    code = (
        "import importlib.metadata, os, jobs.cli, legrad, pipeline, pipeline.cluster.job_variables;"
        "from pipeline.config.loading import load_config, packaged_config;"
        "load_config(packaged_config('demo.yaml')); load_config('run.yaml');"
        "pipeline.cluster.job_variables.load();"
        "print(pipeline.__file__, importlib.metadata.version('legrad-audit'), os.environ['X'])"
    )
    monkeypatch.delenv("PYTHONPATH", raising=False)
    with package.packaged(job().settings, {"X": "1"}, ship=True) as folder:
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True
        )
        assert done.stdout.split() == [f"{folder}/pipeline/__init__.py", __version__, "1"]
    with package.packaged(job().settings, {}, ship=False) as folder:
        assert [path.name for path in folder.iterdir()] == ["run.yaml"]


def test_a_package_that_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(package, "MOST_BYTES", 10**6)
    with (
        pytest.raises(UsageError, match="--installed"),
        package.packaged(None, {}, ship=True),
    ):
        pass


def test_credentials_do_not_travel_in_settings() -> None:
    plain = {"endpoint_url": "http://s3", "anon": True, "client_kwargs": {"region_name": "x"}}
    config = mini_config(SOURCE | {"options": plain}, "s3://b/out", output_options=plain)
    assert yaml.safe_load(package.settings_text(config))["output_options"] == plain
    for options in ({"key": "k"}, {"client_kwargs": {"aws_secret_access_key": "x"}}):
        config = mini_config(SOURCE, "s3://b/out", output_options=options)
        with pytest.raises(UsageError, match=r"output_options.*--env"):
            package.settings_text(config)
    config = mini_config(SOURCE | {"uri": "ftp://me:pass@host/x"}, "s3://b/out")
    with pytest.raises(UsageError, match="password"):
        package.settings_text(config)


def test_dependencies_leave_ray_and_extras_out() -> None:
    found = package.dependencies()
    assert any(text.replace("_", "-").startswith("open-clip-torch") for text in found)
    assert not [text for text in found if "ray" in text.split(">")[0] or "pytest" in text]


def test_refusals_say_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "/t")
    none = explain_refusal("http://h:8265", "Authentication required: Unauthorized: Missing\n\nx")
    assert "RAY_AUTH_MODE=token" in none
    wrong = explain_refusal("http://h:8265", "Authentication failed: Forbidden\n\nx")
    assert "refuses the token of RAY_AUTH_TOKEN_PATH" in wrong
    for name in ADDRESS_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UsageError, match="--address"):
        ClusterOptions().connect()
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:1")
    assert ClusterOptions("http://h").chosen == "http://h"
    assert ClusterOptions().chosen == "http://127.0.0.1:1"


def test_no_cluster_there(tmp_path: Path) -> None:
    done = legrad("jobs", "list", "--address", "http://127.0.0.1:1", cwd=tmp_path)
    assert done.returncode == 2
    assert "http://127.0.0.1:1" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_log_that_begins_anew_is_shown_once(capsys: pytest.CaptureFixture[str]) -> None:
    screen = Screen()
    for chunks in (["ab", "cd"], ["abc", "def"], ["a", "b", "cdef", "g"]):
        screen.rewind()
        for chunk in chunks:
            screen.write(chunk)
    assert capsys.readouterr().out == "abcdefg"


def test_how_a_job_ended_is_the_exit_code() -> None:
    message = "Job entrypoint command failed with exit code 2, last available logs (...):\nlong"
    failed = details("j", "FAILED").model_copy(update={"message": message})
    assert reason(failed) == "Job entrypoint command failed with exit code 2"
    with pytest.raises(RunError, match="exit code 2"):
        conclude("j", failed)
    lacking = failed.model_copy(
        update={"message": "x\nModuleNotFoundError: No module named 'yaml'"}
    )
    with pytest.raises(UsageError, match=r"yaml.*--pip"):
        conclude("j", lacking)
    with pytest.raises(UsageError, match="its log"):
        conclude("j", failed.model_copy(update={"driver_exit_code": 2}))
    with pytest.raises(RunError, match="stopped"):
        conclude("j", details("j", "STOPPED"))
    conclude("j", details("j", "SUCCEEDED"))
