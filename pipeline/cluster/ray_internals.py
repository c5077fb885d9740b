"""Everything of Ray that is not its public interface and that this package relies on.

Ray may rename or change any of these in its next release. They are kept in this file only, and
`tests/cluster/test_ray_internals.py` checks each of them against the installed Ray, so that an
upgrade fails there, with the name that moved. Ray is imported inside the functions, because
commands that never start it import this file as well.
"""

import json
import logging
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ray.data import Dataset

JOB_CONFIG_VARIABLE = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Environment variable in which the job server hands a job's configuration to its driver."""
TOLERATED_ERRORS_LOGGER = "ray.data._internal.execution.streaming_executor_state"
"""Logger that receives, as ``exc_info``, each error that ``max_errored_blocks`` tolerates."""
DATA_LOGGER = "ray.data"
"""Logger whose stream handler prints to the terminal what Ray Data also writes to its log file."""
SUBMISSION_LOGGERS = (
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
    "ray._private.runtime_env.packaging",
)
"""Loggers that report the upload of a job's package at level INFO."""
LOG_LEVEL_NOTE = "Set ray log level from environment variable"
"""Start of the line that Ray's native code prints when it finds ``RAY_BACKEND_LOG_LEVEL``."""
MANY_WORKERS_WARNING = "worker processes have been started on node"
"""Part of a raylet's warning about more worker processes than cores."""
NO_AGENT = "No available agent"
"""Start of the job server's answer while the head node's dashboard agent is not running."""
TOKEN_MISSING = "Authentication required"
"""Start of the message of an `AuthenticationError` when no token was sent."""
TOKEN_REFUSED = "Authentication failed"
"""Start of the message of an `AuthenticationError` when the token was wrong."""
SOCKET_PATH_ERROR = "AF_UNIX path length"
"""Part of the `OSError` for a temporary folder whose sockets would have too long a path."""
JOB_LOG_EXCERPT = ", last available logs"
"""Separates a failed job's reason from the end of its log in `JobDetails.message`."""


def configure_native_code(*, oom_retries: int, quiet: bool) -> None:
    """Set the environment variables that Ray's native code reads when it starts.

    Variables that the user has set keep their values.

    Args:
        oom_retries: attempts at a task whose worker was ended to save memory; Ray's default is
            to try for ever.
        quiet: whether the native code stays silent on the driver's terminal.
    """
    os.environ.setdefault("RAY_task_oom_retries", str(oom_retries))
    # the default that Ray announces; unset, every start warns of it
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if quiet:
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")


def set_raylet_printer(printer: Callable[..., None]) -> None:
    """Replace the function that prints messages of raylets on the driver's terminal.

    Args:
        printer: called with a dictionary whose ``lines`` are the text, and ``ignore_prefix``.
    """
    import ray

    ray._private.worker.print_to_stdstream = printer


def submitted_runtime_env() -> dict[str, Any]:
    """The runtime environment with which this process was submitted as a job; empty if it was not.

    `ray.init` refuses fields and variables that are set in it already.
    """
    submitted: dict[str, Any] = json.loads(os.environ.get(JOB_CONFIG_VARIABLE) or "{}")
    return submitted.get("runtime_env") or {}


def head_address(address: str) -> str | None:
    """The ``host:port`` of the head node that `ray.init` connects to; None if it would start one.

    Args:
        address: ``host:port``, or ``auto`` for the cluster that this machine belongs to.

    Raises:
        ValueError: not an address.
    """
    import ray

    resolved: str | None = ray._private.services.canonicalize_bootstrap_address(address)
    return resolved


def autoscaler_maxima() -> Mapping[str, float]:
    """Resources that an autoscaling cluster may grow to; empty for a cluster that does not grow."""
    import ray

    return ray._private.state.state.get_max_resources_from_cluster_config() or {}


def call_at_every_step(dataset: "Dataset", callback: Callable[[], None]) -> None:
    """Have Ray Data call a function in each turn of the loop that executes a dataset.

    An error that the function raises ends the execution.

    Args:
        dataset: only its own context changes.
        callback: must return at once.
    """
    from ray.data._internal.execution.execution_callback import ExecutionCallback

    class StepCallback(ExecutionCallback):
        def on_execution_step(self, executor: Any) -> None:  # noqa: ARG002 - Ray's signature
            callback()

    dataset.context.custom_execution_callback_classes = [StepCallback]


def silence_data_console() -> None:
    """Keep Ray Data's messages off the terminal; its log files still receive them."""
    for handler in logging.getLogger(DATA_LOGGER).handlers:
        to_console = isinstance(handler, logging.StreamHandler)
        if to_console and not isinstance(handler, logging.FileHandler):
            handler.setLevel(logging.CRITICAL)
