"""Attempts at runs as jobs of a cluster: their names, finding them, and following their logs.

An attempt at a run is a job ``legrad-<run>-<attempt>``; attempts are counted from 1.
"""

import asyncio
import hashlib
import posixpath
import re
import sys
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from jobs.display import duration, log
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
        start, end = self.details.start_time, self.details.end_time
        return duration((end - start) / 1000) if start and end else ""


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
    matching = exact or [
        attempt
        for attempt in attempts
        if attempt.id.startswith(name) or attempt.run.startswith(name)
    ]
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
            if details.status.is_terminal():  # it had ended before the log was read to its end
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
