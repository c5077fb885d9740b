"""A run on a cluster, through Ray's job server: begun, or found running."""

import shlex
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jobs import package
from jobs.attempts import Attempt, attempts, run_name, submission_id
from jobs.client import ClusterOptions, answers
from jobs.display import log
from jobs.follow import conclude, follow
from jobs.options import ShippingOptions
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
    "RAY_JOB_STOP_WAIT_TIME_S": "30",  # a run that is stopped gives its output free
}


@dataclass(frozen=True)
class Job:
    """What is asked of a cluster.

    Attributes:
        run: name that its attempts share.
        arguments: of ``legrad``.
        settings: YAML of the run.
        output: where it writes.
    """

    run: str
    arguments: tuple[str, ...]
    settings: str | None = None
    output: str = ""

    @property
    def entrypoint(self) -> str:
        """The command of the driver."""
        return shlex.join(["python", "-m", "jobs", *self.arguments])

    @property
    def metadata(self) -> dict[str, str]:
        """What the job server keeps of it."""
        return {
            "output": redact(self.output),
            "settings": package.digest(self.settings or ""),
            "user": user(),
            "version": __version__,
        }


def submit(
    settings: RunConfig, cluster: ClusterOptions, shipping: ShippingOptions, *, watch: bool
) -> None:
    """Start the next attempt at a run, or follow the one that lives.

    Raises:
        UsageError: the cluster cannot be reached, or the user can mend what ended the run.
        RunError: it failed or was stopped.
    """
    text = package.settings_text(settings)
    job = Job(run_name(settings.output), ("run", package.CONFIG), text, settings.output)
    client = cluster.connect()
    with answers(cluster.named):
        attempt = begin(client, job, shipping)
        if not watch:
            log(f"{attempt} goes on; legrad jobs logs -f {attempt} follows it")
            return
        _follow(client, attempt)


def examine_there(cluster: ClusterOptions, settings: RunConfig | None) -> None:
    """``legrad doctor`` on a cluster's head node, and with a run's settings on all of its nodes.

    Raises:
        UsageError: something there does not fit.
    """
    text = None if settings is None else package.settings_text(settings)
    arguments = ("doctor",) if text is None else ("doctor", package.CONFIG)
    client = cluster.connect()
    with answers(cluster.named):
        job = Job("doctor", arguments, text)
        _follow(client, _start(client, job, ShippingOptions(), _next(client, job)))


def _follow(client: "JobSubmissionClient", attempt: str) -> None:
    try:
        details = follow(client, attempt)
    except KeyboardInterrupt:
        log(f"{attempt} goes on; legrad jobs stop {attempt} ends it")
        raise
    conclude(attempt, details)


def begin(client: "JobSubmissionClient", job: Job, shipping: ShippingOptions) -> str:
    """Start the next attempt at a run, or find the one that lives; returns its id.

    Raises:
        UsageError: one with other settings lives.
        RuntimeError: the job server refuses.
    """
    alive = _alive(client, job)
    if alive is not None:
        return _joined(alive, job)
    number = _next(client, job)
    try:
        return _start(client, job, shipping, number)
    except RuntimeError:
        alive = _alive(client, job)  # somebody else was faster, and has the id
        if alive is None:
            raise
        log(f"{submission_id(job.run, number)} was taken meanwhile")
        return _joined(alive, job)


def _next(client: "JobSubmissionClient", job: Job) -> int:
    return 1 + max((attempt.number for attempt in attempts(client, job.run)), default=0)


def _alive(client: "JobSubmissionClient", job: Job) -> Attempt | None:
    alive = [attempt for attempt in attempts(client, job.run) if attempt.lives]
    return alive[-1] if alive else None


def _joined(alive: Attempt, job: Job) -> str:
    if (alive.details.metadata or {}).get("settings") != job.metadata["settings"]:
        raise UsageError(
            f"{alive.id} is {alive.status.lower()} on this output with other settings. Wait for "
            f"its end, or end it: legrad jobs stop {alive.id}; or choose another place: --set "
            "output=NEW"
        )
    log(f"{alive.id} is {alive.status.lower()} already; following it")
    return alive.id


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
    again = "" if number == 1 else ", which continues what was committed"
    log(f"submitted {attempt}{again}")
    return attempt


def _send(client: "JobSubmissionClient", request: dict[str, Any]) -> None:
    """Submit; a cluster that was just started needs a moment until it takes jobs."""
    end = time.monotonic() + _START_SECONDS
    while True:
        try:
            client.submit_job(**request)
        except RuntimeError as error:
            if NO_AGENT not in str(error):
                raise
            if time.monotonic() > end:
                raise RunError(
                    "the cluster takes no jobs: the dashboard agent of its head node is not up. "
                    "dashboard_agent.log in Ray's log folder there says why (often a port that is "
                    "taken: ray start --dashboard-agent-listen-port)"
                ) from error
            time.sleep(1)
        else:
            return
