"""A job's log as it grows, and how it ended."""

import asyncio
import sys
from typing import TYPE_CHECKING

from jobs.display import log
from pipeline.cluster.ray_internals import JOB_LOG_EXCERPT
from pipeline.errors import RunError, UsageError

if TYPE_CHECKING:
    from ray.job_submission import JobDetails, JobSubmissionClient

_PAUSE = 2.0
_MOST_SILENCE = 150  # pauses without the job server before following is given up
_LONGEST = 300  # characters of Ray's message


def follow(client: "JobSubmissionClient", job: str) -> "JobDetails":
    """Write a job's log to standard output until it ends.

    Raises:
        RunError: the job server does not answer any more.
    """
    return asyncio.run(_follow(client, job))


async def _follow(client: "JobSubmissionClient", job: str) -> "JobDetails":
    import aiohttp
    import requests

    screen, silence = _Screen(), 0
    while True:
        try:
            details = client.get_job_info(job)
            if str(details.status) != "PENDING":
                screen.rewind()
                async for chunk in client.tail_job_logs(job):
                    screen.write(chunk)
            if details.status.is_terminal():  # before the log was read: there is no more of it
                return details
            silence = 0
        except (OSError, RuntimeError, aiohttp.ClientError, requests.RequestException) as error:
            if silence == 0:
                log(f"the log of {job} broke off ({type(error).__name__}); trying again")
            silence += 1
            if silence > _MOST_SILENCE:
                raise RunError(
                    f"no word of {job} for {_PAUSE * _MOST_SILENCE / 60:.0f} minutes: {error}. It "
                    "may well go on: legrad jobs status tells once the cluster answers"
                ) from error
        await asyncio.sleep(_PAUSE)


class _Screen:
    """Shows a text that is read from its beginning again and again, every character once."""

    def __init__(self) -> None:
        self.shown = 0
        self.read = 0

    def rewind(self) -> None:
        """The text comes from its beginning now."""
        self.read = 0

    def write(self, chunk: str) -> None:
        """The next piece of it."""
        fresh = chunk[max(0, self.shown - self.read) :]
        self.read += len(chunk)
        self.shown = max(self.shown, self.read)
        sys.stdout.write(fresh)
        sys.stdout.flush()


def conclude(job: str, details: "JobDetails") -> None:
    """Say how it ended.

    Raises:
        UsageError: the user can mend it; its log says what.
        RunError: it failed or was stopped.
    """
    status = str(details.status)
    if status == "SUCCEEDED":
        log(f"{job} succeeded")
        return
    if status == "STOPPED":
        raise RunError(f"{job} was stopped. What it committed is kept: submit the run again")
    if details.driver_exit_code == 2:
        raise UsageError(f"{job} failed: its log says what to mend")
    raise RunError(f"{job} failed: {reason(details)}")


def reason(details: "JobDetails") -> str:
    """Ray's message, without the log that it repeats."""
    text = (details.message or "no reason given").split(JOB_LOG_EXCERPT)[0]
    return " ".join(text.split())[:_LONGEST]
