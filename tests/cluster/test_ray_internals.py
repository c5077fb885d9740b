"""Each private name of Ray that `pipeline.cluster.ray_internals` holds, against the installed Ray.

A test that fails after an upgrade names what Ray moved; the code that uses it is found by the
constant or function of `ray_internals` in the test.
"""

import importlib
import inspect
import logging
import mmap
import os
import re
from pathlib import Path
from typing import Any

import pytest
import ray
import ray.data

from pipeline.cluster import ray_internals
from pipeline.cluster.session import _environment

ROOT = Path(__file__).parents[2]
RAY = Path(ray.__file__).parent
PRIVATE = re.compile(r"ray\.(\w+\.)*_[a-z]|_logical_plan|RAY_JOB_CONFIG|RAY_BACKEND_|RAY_task_")


def contains(file: Path, text: str) -> bool:
    """Whether a binary of Ray holds a text."""
    with file.open("rb") as binary, mmap.mmap(binary.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return data.find(text.encode()) >= 0


def test_no_other_file_touches_private_names_of_ray() -> None:
    """A private attribute or module, or a variable that only Ray's own code sets or reads."""
    sources = [p for room in ("legrad", "pipeline", "jobs") for p in (ROOT / room).rglob("*.py")]
    assert len(sources) > 100
    offending = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in sources
        if path.name != "ray_internals.py"
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if PRIVATE.search(line)
    ]
    assert offending == []


def test_the_search_for_private_names_finds_them() -> None:
    text = Path(ray_internals.__file__).read_text()
    assert len([line for line in text.splitlines() if PRIVATE.search(line)]) > 8
    assert not PRIVATE.search("ray.get(actor.snapshot.remote())")


def test_the_variable_that_holds_a_jobs_configuration() -> None:
    constants = importlib.import_module("ray._private.runtime_env.constants")
    assert constants.RAY_JOB_CONFIG_JSON_ENV_VAR == ray_internals.JOB_CONFIG_VARIABLE


def test_what_a_job_was_submitted_with_is_not_set_again(monkeypatch: pytest.MonkeyPatch) -> None:
    name = ray_internals.JOB_CONFIG_VARIABLE
    monkeypatch.delenv(name, raising=False)
    own = {"working_dir": "/e", "env_vars": {"OMP_WAIT_POLICY": "PASSIVE"}}
    assert _environment("/e") == own
    monkeypatch.setenv(name, '{"runtime_env": {"working_dir": "gcs://x.zip"}, "metadata": {}}')
    assert _environment("/e") == {"env_vars": {"OMP_WAIT_POLICY": "PASSIVE"}}
    monkeypatch.setenv(name, '{"runtime_env": {"env_vars": {"OMP_WAIT_POLICY": "x"}}}')
    assert _environment("/e") == {"working_dir": "/e", "env_vars": {}}
    monkeypatch.setenv(name, '{"runtime_env": null}')
    assert _environment("/e") == own


def test_ray_refuses_a_field_that_is_set_twice() -> None:
    """The reason for `submitted_runtime_env`; otherwise that function can go."""
    merge = ray._private.worker._merge_runtime_env
    assert merge({"working_dir": "/a"}, {"working_dir": "/b"}, override=False) is None
    assert merge({"working_dir": "/a"}, {"env_vars": {}}, override=False) is not None


def test_variables_of_the_native_code(monkeypatch: pytest.MonkeyPatch) -> None:
    accelerator = importlib.import_module("ray._private.accelerators.accelerator")
    name = accelerator.RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO_ENV_VAR
    monkeypatch.setattr(os, "environ", {"RAY_task_oom_retries": "7"})
    ray_internals.configure_native_code(oom_retries=1, quiet=False)
    assert os.environ == {"RAY_task_oom_retries": "7", name: "0"}
    ray_internals.configure_native_code(oom_retries=1, quiet=True)
    assert set(os.environ) == {"RAY_task_oom_retries", "RAY_BACKEND_LOG_LEVEL", name}
    for variable in ("task_oom_retries", "RAY_BACKEND_LOG_LEVEL"):
        assert contains(RAY / "_raylet.so", variable)


def test_the_line_about_the_log_level_is_worded_like_this() -> None:
    assert contains(RAY / "_raylet.so", ray_internals.LOG_LEVEL_NOTE)


def test_the_warning_about_many_workers_is_worded_like_this() -> None:
    assert contains(RAY / "core/src/ray/raylet/raylet", ray_internals.MANY_WORKERS_WARNING)


def test_the_printer_of_raylet_messages() -> None:
    source = inspect.getsource(ray._private.worker)
    assert re.search(r"^def print_to_stdstream\(data, ignore_prefix\b", source, re.MULTILINE)
    assert len(re.findall(r"\bprint_to_stdstream\(", source)) >= 2  # defined, and called by name


def test_what_a_raylet_says_goes_to_stderr(
    ray_session: None, capsys: pytest.CaptureFixture[str]
) -> None:
    many = f"8 PYTHON {ray_internals.MANY_WORKERS_WARNING}: 1"
    data = {"lines": [many, "3 workers were killed"], "pid": "raylet", "is_err": False}
    ray._private.worker.print_to_stdstream(data, ignore_prefix=False)
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "ray: 3 workers were killed\n")


def test_the_address_that_ray_connects_to() -> None:
    assert ray_internals.head_address("10.1.2.3:6379") == "10.1.2.3:6379"
    assert ray_internals.head_address("local") is None
    with pytest.raises(ValueError, match="address"):
        ray_internals.head_address("nonsense")


def test_a_socket_path_that_is_too_long_is_worded_like_this() -> None:
    utils = importlib.import_module("ray._private.utils")
    with pytest.raises(OSError, match=ray_internals.SOCKET_PATH_ERROR):
        utils.validate_socket_filepath("/tmp/" + "x" * 200)


def test_what_an_autoscaling_cluster_may_grow_to(monkeypatch: pytest.MonkeyPatch) -> None:
    messages = importlib.import_module("ray.core.generated.autoscaler_pb2")
    groups = [
        messages.NodeGroupConfig(resources={"CPU": 4}, max_count=1),
        messages.NodeGroupConfig(resources={"CPU": 16, "GPU": 1}, max_count=8),
    ]
    config = messages.ClusterConfig(node_group_configs=groups)
    state: Any = ray._private.state.state
    monkeypatch.setattr(state, "get_cluster_config", lambda: config)
    assert ray_internals.autoscaler_maxima() == {"CPU": 132, "GPU": 8}
    monkeypatch.setattr(state, "get_cluster_config", lambda: None)
    assert ray_internals.autoscaler_maxima() == {}


class Records(logging.Handler):
    """Keeps the errors that are logged."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.errors: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.errors.append(str(record.exc_info and record.exc_info[1]))


def test_the_logger_of_tolerated_errors(ray_session: None) -> None:
    def fail(batch: Any) -> Any:
        raise ZeroDivisionError

    rows = ray.data.range(2, override_num_blocks=1).map_batches(fail)
    rows.context.max_errored_blocks = -1
    logger, records = logging.getLogger(ray_internals.TOLERATED_ERRORS_LOGGER), Records()
    logger.addHandler(records)
    try:
        assert rows.count() == 0
    finally:
        logger.removeHandler(records)
    assert len(records.errors) == 1
    assert "ZeroDivisionError" in records.errors[0]


def test_a_function_that_is_called_at_every_step(ray_session: None) -> None:
    steps = []

    def refuse() -> None:
        steps.append(1)
        if len(steps) > 1:
            raise LookupError("enough")

    rows = ray.data.range(8, override_num_blocks=8).map_batches(lambda batch: batch)
    ray_internals.call_at_every_step(rows, refuse)
    with pytest.raises(LookupError, match="enough"):
        rows.materialize()
    assert ray.data.range(2).count() == 2  # another dataset is not watched
    assert len(steps) == 2


def test_ray_data_logs_to_the_terminal_by_a_handler() -> None:
    importlib.import_module("ray.data._internal.logging").configure_logging()
    handlers = logging.getLogger(ray_internals.DATA_LOGGER).handlers
    console = [h for h in handlers if isinstance(h, logging.StreamHandler)]
    assert console
    ray_internals.silence_data_console()
    assert all(handler.level == logging.CRITICAL for handler in console)
    files = [handler for handler in handlers if handler not in console]
    assert all(handler.level < logging.CRITICAL for handler in files)


@pytest.mark.parametrize("name", ray_internals.SUBMISSION_LOGGERS)
def test_loggers_of_a_submission(name: str) -> None:
    assert "logging.getLogger(__name__)" in inspect.getsource(importlib.import_module(name))


def test_a_head_without_its_agent_is_answered_like_this() -> None:
    job_head = importlib.import_module("ray.dashboard.modules.job.job_head")
    assert ray_internals.NO_AGENT in inspect.getsource(job_head)


def test_refused_tokens_are_worded_like_this() -> None:
    tokens = importlib.import_module("ray._private.authentication.http_token_authentication")
    missing, refused = (tokens.format_authentication_http_error(code, "") for code in (401, 403))
    assert missing.startswith(ray_internals.TOKEN_MISSING)
    assert refused.startswith(ray_internals.TOKEN_REFUSED)


def test_a_failed_jobs_message_holds_its_log() -> None:
    supervisor = importlib.import_module("ray.dashboard.modules.job.job_supervisor")
    source = inspect.getsource(supervisor)
    joined = re.sub(r'"\s*f?"', "", source)  # texts that are written in several pieces
    assert ray_internals.JOB_LOG_EXCERPT in joined
