"""Our jobs on a cluster: their names, listing them, following their logs, stopping them.

An attempt at a run is a job ``legrad-<run>-<attempt>``; attempts are counted from 1.
"""

import asyncio
import hashlib
import posixpath
import re
import sys
import time
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from jobs.client import ClusterOptions, readable_errors
from jobs.display import console, duration, log, plain_table
from pipeline.cluster.ray_internals import JOB_LOG_EXCERPT
from pipeline.errors import RunError, UsageError
from pipeline.storage.location import redact

if TYPE_CHECKING:
    from ray.job_submission import JobDetails, JobSubmissionClient

_ID = re.compile(r"legrad-(?P<run>.+)-(?P<number>\d+)")
_NAME_LENGTH = 24
_PAUSE = 2.0
_MOST_FAILURES = 150  # unanswered requests in a row before following ends
_MESSAGE_LENGTH = 300
_STOP_SECONDS = 120.0
_LIST_WIDTH = 240  # without a terminal, so that no line is broken
_STYLES = {"SUCCEEDED": "green", "FAILED": "red", "RUNNING": "cyan"}


def run_name(output: str) -> str:
    """The name that all attempts at a run share: the end of its output and a digest of all of it.

    The output identifies a run: its manifest refuses other settings.
    """
    uri = redact(output).rstrip("/")
    words = re.sub(r"[^a-z0-9]+", "-", posixpath.basename(uri).lower()).strip("-")
    digest = hashlib.sha256(uri.encode()).hexdigest()[:8]
    return f"{words[:_NAME_LENGTH].strip('-') or 'run'}-{digest}"


def submission_id(run: str, number: int) -> str:
    """``legrad-<run>-<attempt>``."""
    return f"legrad-{run}-{number}"


@dataclass(frozen=True)
class Attempt:
    """One attempt at a run.

    Attributes:
        run: see `run_name`.
        number: number of the attempt, from 1.
        details: the job server's information.
    """

    run: str
    number: int
    details: "JobDetails"

    @property
    def id(self) -> str:
        """Ray's submission id."""
        return submission_id(self.run, self.number)

    @property
    def status(self) -> str:
        """PENDING, RUNNING, STOPPED, SUCCEEDED or FAILED."""
        return str(self.details.status)

    @property
    def active(self) -> bool:
        """Whether it is running or waits to run."""
        return not self.details.status.is_terminal()

    @property
    def seconds(self) -> float | None:
        """Duration; None before the end."""
        start, end = self.details.start_time, self.details.end_time
        return None if not start or not end else (end - start) / 1000

    @property
    def started(self) -> str:
        """Local time of the start; empty before it."""
        start = self.details.start_time
        return datetime.fromtimestamp(start / 1000).strftime("%Y-%m-%d %H:%M:%S") if start else ""

    @property
    def output(self) -> str:
        """URI of the output; empty if the job was not submitted by ``legrad submit``."""
        return (self.details.metadata or {}).get("output", "")

    @property
    def took(self) -> str:
        """Duration in words; empty before the end."""
        return "" if self.seconds is None else duration(self.seconds)


def list_attempts(client: "JobSubmissionClient", run: str | None = None) -> list[Attempt]:
    """The attempts on a cluster, oldest first.

    Args:
        client: client of the job server.
        run: see `run_name`; None for those of all runs.
    """
    attempts = []
    for details in client.list_jobs():
        match = _ID.fullmatch(details.submission_id or "")
        if match and run in (None, match["run"]):
            attempts.append(Attempt(match["run"], int(match["number"]), details))
    return sorted(attempts, key=lambda attempt: (attempt.details.start_time or 0, attempt.number))


def find_attempt(client: "JobSubmissionClient", name: str) -> Attempt:
    """The attempt with an id, or the last attempt at the run whose name begins like this.

    Raises:
        UsageError: no attempt matches, or those of several runs do.
    """
    attempts = list_attempts(client)
    exact = [attempt for attempt in attempts if attempt.id == name]
    begun = [a for a in attempts if a.id.startswith(name) or a.run.startswith(name)]
    matching = exact or begun
    if not matching:
        raise UsageError(f"no job {name!r} on this cluster; `legrad jobs list` shows all")
    runs = sorted({attempt.run for attempt in matching})
    if len(runs) > 1:
        raise UsageError(f"{name!r} matches several runs: {', '.join(runs)}. Give more of the name")
    return max(matching, key=lambda attempt: attempt.number)


def follow(client: "JobSubmissionClient", job: str) -> "JobDetails":
    """Write a job's log to standard output until the job ends.

    Raises:
        RunError: the job server stopped answering.
    """
    return asyncio.run(_follow(client, job))


async def _follow(client: "JobSubmissionClient", job: str) -> "JobDetails":
    import aiohttp
    import requests

    screen, failures = Screen(), 0
    while True:
        try:
            details = client.get_job_info(job)
            if str(details.status) != "PENDING":
                screen.rewind()
                async for chunk in client.tail_job_logs(job):
                    screen.write(chunk)
            if details.status.is_terminal():  # asked before the log was read, so it was read whole
                return details
            failures = 0
        except (OSError, RuntimeError, aiohttp.ClientError, requests.RequestException) as error:
            if failures == 0:
                log(f"the log of {job} was interrupted ({type(error).__name__}); trying again")
            failures += 1
            if failures > _MOST_FAILURES:
                raise RunError(
                    f"no answer about {job} for {_PAUSE * _MOST_FAILURES / 60:.0f} minutes: "
                    f"{error}. The job may still be running: try `legrad jobs status {job}` later"
                ) from error
        await asyncio.sleep(_PAUSE)


class Screen:
    """Prints a text that is read from its beginning several times, each character once."""

    def __init__(self) -> None:
        self.shown = 0
        self.read = 0

    def rewind(self) -> None:
        """The next chunk starts at the beginning of the text."""
        self.read = 0

    def write(self, chunk: str) -> None:
        """Print the part of the next chunk that was not printed before."""
        unseen = chunk[max(0, self.shown - self.read) :]
        self.read += len(chunk)
        self.shown = max(self.shown, self.read)
        sys.stdout.write(unseen)
        sys.stdout.flush()


def conclude(job: str, details: "JobDetails") -> None:
    """Report how a job ended.

    Raises:
        UsageError: it failed because of something the user can fix.
        RunError: it failed otherwise, or was stopped.
    """
    status = str(details.status)
    if status == "SUCCEEDED":
        log(f"{job} succeeded")
        return
    if status == "STOPPED":
        raise RunError(f"{job} was stopped; its committed rows are kept. Submit again to continue")
    if details.driver_exit_code == 2:
        raise UsageError(f"{job} failed: its log says what to change")
    missing = re.search(r"No module named '([\w.]+)'", details.message or "")
    if missing:
        raise UsageError(
            f"{job} failed: the cluster's python lacks {missing[1]}. Let the job install the "
            "dependencies (--pip), start the nodes from an image that has them (Dockerfile), or "
            "start Ray there from the environment that they are installed in"
        )
    raise RunError(f"{job} failed: {reason(details)}")


def reason(details: "JobDetails") -> str:
    """Ray's message about a job, without the excerpt of the log that it contains."""
    text = (details.message or "no reason given").split(JOB_LOG_EXCERPT)[0]
    return " ".join(text.split())[:_MESSAGE_LENGTH]


def show_all(cluster: ClusterOptions, limit: int) -> None:
    """Print a table of the jobs on a cluster, the last one first."""
    from rich.console import Console
    from rich.markup import escape

    client = cluster.connect()
    with readable_errors(cluster.chosen):
        attempts = list_attempts(client)[::-1]
    table = plain_table()
    for name in ("job", "status", "started", "took"):
        table.add_column(name, no_wrap=True)
    table.add_column("output", overflow="fold")
    for attempt in attempts[:limit]:
        style = _STYLES.get(attempt.status, "")
        status = f"[{style}]{attempt.status}[/]" if style else attempt.status
        table.add_row(attempt.id, status, attempt.started, attempt.took, escape(attempt.output))
    wide = console if console.is_terminal else Console(highlight=False, width=_LIST_WIDTH)
    wide.print(table if attempts else "no jobs of legrad on this cluster")
    if len(attempts) > limit:
        console.print(f"... and {len(attempts) - limit} more; --limit shows more")


def status(name: str, cluster: ClusterOptions) -> bool:
    """Print the status of a job; return whether it is active or succeeded."""
    client = cluster.connect()
    with readable_errors(cluster.chosen):
        attempt = find_attempt(client, name)
    lines = {
        "job": attempt.id,
        "status": attempt.status,
        "started": attempt.started,
        "took": attempt.took,
        "output": attempt.output,
        "message": reason(attempt.details),
    }
    for key, value in lines.items():
        if value:
            console.print(f"{key:<9}{value}", markup=False, soft_wrap=True)
    if attempt.output:
        console.print(f"legrad check {attempt.output} --watch", markup=False, soft_wrap=True)
    return attempt.active or attempt.status == "SUCCEEDED"


def logs(name: str, cluster: ClusterOptions, *, watch: bool) -> None:
    """Print a job's log; with ``watch``, until the job ends."""
    client = cluster.connect()
    with readable_errors(cluster.chosen):
        attempt = find_attempt(client, name)
        if watch:
            conclude(attempt.id, follow(client, attempt.id))
        else:
            sys.stdout.write(client.get_job_logs(attempt.id))


def stop(name: str, cluster: ClusterOptions) -> None:
    """Stop a job and wait until it has ended."""
    client = cluster.connect()
    with readable_errors(cluster.chosen):
        attempt = find_attempt(client, name)
        if not attempt.active:
            log(f"{attempt.id} has already ended: {attempt.status}")
            return
        client.stop_job(attempt.id)
        end = time.monotonic() + _STOP_SECONDS
        while not client.get_job_status(attempt.id).is_terminal():
            if time.monotonic() > end:
                raise RunError(
                    f"{attempt.id} was asked to stop {_STOP_SECONDS:.0f} s ago and is still "
                    f"running; see `legrad jobs status {attempt.id}`"
                )
            time.sleep(1)
    log(f"{attempt.id} is stopped")
