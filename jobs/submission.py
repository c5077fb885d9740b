"""Submitting a run to Ray's job server, or following the attempt that is already running."""

import shlex
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jobs import package
from jobs.client import ClusterOptions, ShippingOptions, readable_errors
from jobs.cluster_jobs import (
    Attempt,
    conclude,
    follow,
    list_attempts,
    run_name,
    submission_id,
)
from jobs.display import log
from legrad import __version__
from pipeline.cluster.ray_internals import NO_AGENT
from pipeline.config import RunConfig
from pipeline.errors import RunError, UsageError
from pipeline.machine import user
from pipeline.storage.location import redact

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

_HOOK = "pipeline.cluster.job_variables.load"
_START_SECONDS = 60.0
_ENVIRONMENT = {
    "OMP_WAIT_POLICY": "PASSIVE",
    "RAY_JOB_STOP_WAIT_TIME_S": "30",  # time for a stopped run to release its output
}


@dataclass(frozen=True)
class Job:
    """A job to be submitted.

    Attributes:
        run: the name that all attempts at the run share.
        arguments: arguments of the ``legrad`` command.
        settings: settings of the run as YAML.
        output: URI of the run's output.
    """

    run: str
    arguments: tuple[str, ...]
    settings: str | None = None
    output: str = ""

    @property
    def entrypoint(self) -> str:
        """The driver's command line."""
        return shlex.join(["python", "-m", "jobs", *self.arguments])

    @property
    def metadata(self) -> dict[str, str]:
        """What the job server stores with the job."""
        return {
            "output": redact(self.output),
            "settings": package.digest(self.settings or ""),
            "user": user(),
            "version": __version__,
        }


def submit(
    settings: RunConfig, cluster: ClusterOptions, shipping: ShippingOptions, *, watch: bool
) -> None:
    """Start the next attempt at a run; if an attempt is running, follow it.

    Raises:
        UsageError: the cluster cannot be reached, or the run failed because of something the user
            can fix.
        RunError: the run failed otherwise, or was stopped.
    """
    text = package.settings_text(settings)
    job = Job(run_name(settings.output), ("run", package.CONFIG), text, settings.output)
    client = cluster.connect()
    with readable_errors(cluster.chosen):
        attempt = begin(client, job, shipping)
        if not watch:
            log(f"{attempt} is on the cluster; to follow it: legrad jobs logs -f {attempt}")
            return
        _follow(client, attempt)


def examine_cluster(cluster: ClusterOptions, settings: RunConfig | None) -> None:
    """Run ``legrad doctor`` on a cluster's head node; with settings, it asks all nodes.

    Raises:
        UsageError: a check failed.
    """
    text = None if settings is None else package.settings_text(settings)
    arguments = ("doctor",) if text is None else ("doctor", package.CONFIG)
    client = cluster.connect()
    with readable_errors(cluster.chosen):
        job = Job("doctor", arguments, text)
        _follow(client, _start(client, job, ShippingOptions(), _next(client, job)))


def _follow(client: "JobSubmissionClient", attempt: str) -> None:
    try:
        details = follow(client, attempt)
    except KeyboardInterrupt:
        log(f"{attempt} keeps running; to end it: legrad jobs stop {attempt}")
        raise
    conclude(attempt, details)


def begin(client: "JobSubmissionClient", job: Job, shipping: ShippingOptions) -> str:
    """Start the next attempt at a run; if an attempt is running, return its id instead.

    Raises:
        UsageError: an attempt with other settings is running.
        RuntimeError: the job server refuses the job.
    """
    active = _active_attempt(client, job)
    if active is not None:
        return _same_settings(active, job)
    number = _next(client, job)
    try:
        return _start(client, job, shipping, number)
    except RuntimeError:
        active = _active_attempt(client, job)  # another `submit` may have taken the id meanwhile
        if active is None:
            raise
        log(f"{submission_id(job.run, number)} was submitted by somebody else meanwhile")
        return _same_settings(active, job)


def _next(client: "JobSubmissionClient", job: Job) -> int:
    return 1 + max((attempt.number for attempt in list_attempts(client, job.run)), default=0)


def _active_attempt(client: "JobSubmissionClient", job: Job) -> Attempt | None:
    active = [attempt for attempt in list_attempts(client, job.run) if attempt.active]
    return active[-1] if active else None


def _same_settings(active: Attempt, job: Job) -> str:
    """The id of an active attempt, if it has the job's settings."""
    if (active.details.metadata or {}).get("settings") != job.metadata["settings"]:
        raise UsageError(
            f"{active.id} is {active.status.lower()} on this output with other settings. Wait "
            f"until it ends, stop it (legrad jobs stop {active.id}), or choose another output: "
            "--set output=NEW"
        )
    log(f"{active.id} is already {active.status.lower()}; following it")
    return active.id


def _start(client: "JobSubmissionClient", job: Job, shipping: ShippingOptions, number: int) -> str:
    attempt = submission_id(job.run, number)
    values = package.variables(shipping.env or ())
    environment: dict[str, Any] = {"env_vars": dict(_ENVIRONMENT)}
    if values:
        environment["worker_process_setup_hook"] = _HOOK
    if shipping.pip:
        environment["pip"] = package.dependencies()
    with package.packaged(job.settings, values, ship=not shipping.installed) as folder:
        request = {
            "entrypoint": job.entrypoint,
            "submission_id": attempt,
            "runtime_env": environment | {"working_dir": str(folder)},
            "metadata": job.metadata,
        }
        _send(client, request)
    log(f"submitted {attempt}" + (", which continues the run" if number > 1 else ""))
    return attempt


def _send(client: "JobSubmissionClient", request: dict[str, Any]) -> None:
    """Submit a job; a cluster that was just started needs a moment until it accepts one."""
    end = time.monotonic() + _START_SECONDS
    while True:
        try:
            client.submit_job(**request)
        except RuntimeError as error:
            if NO_AGENT not in str(error):
                raise
            if time.monotonic() > end:
                raise RunError(
                    "the cluster accepts no jobs: its head node's dashboard agent is not running. "
                    "dashboard_agent.log in Ray's log folder there says why (often a port that is "
                    "in use: ray start --dashboard-agent-listen-port)"
                ) from error
            time.sleep(1)
        else:
            return
