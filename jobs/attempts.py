"""Attempts at a run on a cluster: ``legrad-<run>-<attempt>``, counted from 1."""

import hashlib
import posixpath
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.errors import UsageError
from pipeline.storage.location import redact

if TYPE_CHECKING:
    from ray.job_submission import JobDetails, JobSubmissionClient

_ID = re.compile(r"legrad-(?P<run>.+)-(?P<number>\d+)")
_NAME_LENGTH = 24


def run_name(output: str) -> str:
    """What attempts at one run share: the end of its output, and a digest of the whole.

    A run is its output: other settings into the same one are refused by its manifest.
    """
    place = redact(output).rstrip("/")
    words = re.sub(r"[^a-z0-9]+", "-", posixpath.basename(place).lower()).strip("-")
    digest = hashlib.sha256(place.encode()).hexdigest()[:8]
    return f"{words[:_NAME_LENGTH].strip('-') or 'run'}-{digest}"


@dataclass(frozen=True)
class Attempt:
    """One job of ours.

    Attributes:
        run: see `run_name`.
        number: of the attempt.
        details: what the job server says of it.
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
    def lives(self) -> bool:
        """Whether it may still do something."""
        return not self.details.status.is_terminal()

    @property
    def seconds(self) -> float | None:
        """How long it took; None while it runs."""
        start, end = self.details.start_time, self.details.end_time
        return None if not start or not end else (end - start) / 1000

    @property
    def output(self) -> str:
        """Where it writes; empty where it was submitted by other means."""
        return (self.details.metadata or {}).get("output", "")


def submission_id(run: str, number: int) -> str:
    """``legrad-<run>-<attempt>``."""
    return f"legrad-{run}-{number}"


def attempts(client: "JobSubmissionClient", run: str | None = None) -> list[Attempt]:
    """The attempts that a cluster knows of, of one run or of all, oldest first."""
    found = []
    for details in client.list_jobs():
        match = _ID.fullmatch(details.submission_id or "")
        if match and run in (None, match["run"]):
            found.append(Attempt(match["run"], int(match["number"]), details))
    return sorted(found, key=lambda attempt: (attempt.details.start_time or 0, attempt.number))


def find(client: "JobSubmissionClient", name: str) -> Attempt:
    """The attempt of an id, or of the beginning of one: of several of a run the last.

    Raises:
        UsageError: there is none, or runs differ.
    """
    every = attempts(client)
    exact = [attempt for attempt in every if attempt.id == name]
    begun = [a for a in every if a.id.startswith(name) or a.run.startswith(name)]
    found = exact or begun
    if not found:
        raise UsageError(f"no job {name!r} on this cluster; `legrad jobs list` shows them")
    runs = sorted({attempt.run for attempt in found})
    if len(runs) > 1:
        raise UsageError(f"{name!r} may be {', '.join(runs)}: say more of it")
    return max(found, key=lambda attempt: attempt.number)
