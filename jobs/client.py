"""A cluster's job server: connecting to it, and its refusals in words that say what to do."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cluster import ray_internals
from pipeline.errors import RunError, UsageError

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

ADDRESS_VARIABLES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
_TOKEN_VARIABLES = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")


@dataclass(frozen=True)
class ClusterOptions:
    """Which cluster."""

    address: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="The cluster's dashboard: http://HOST:8265. Default RAY_API_SERVER_ADDRESS, then "
            "RAY_ADDRESS.",
        ),
    ] = None

    @property
    def named(self) -> str:
        """The address, given or from the environment.

        Raises:
            UsageError: there is none.
        """
        given = [self.address, *(os.environ.get(name) for name in ADDRESS_VARIABLES)]
        for address in given:
            if address:
                return address
        raise UsageError("which cluster? --address http://HOST:8265, or set RAY_API_SERVER_ADDRESS")

    def connect(self) -> "JobSubmissionClient":
        """A client of the job server.

        Raises:
            UsageError: no answer, or no token, or a wrong one.
        """
        address = self.named
        with answers(address), _alone():
            from ray.job_submission import JobSubmissionClient

            for name in ray_internals.SUBMISSION_LOGGERS:
                logging.getLogger(name).setLevel(logging.WARNING)
            return JobSubmissionClient(address)


@contextmanager
def answers(address: str) -> Iterator[None]:
    """Turns what a job server answers into errors that people can act on.

    Raises:
        UsageError: it cannot be reached, or wants (another) token.
        RunError: it failed.
    """
    import requests
    from ray.exceptions import AuthenticationError

    from pipeline.storage.location import redact

    place = redact(address)
    try:
        yield
    except AuthenticationError as error:
        raise UsageError(refusal(place, str(error))) from error
    except (ConnectionError, requests.exceptions.RequestException) as error:
        raise UsageError(
            f"{place}: no Ray job server answers there ({type(error).__name__}). Is the cluster "
            "up, and its dashboard (port 8265) forwarded to this machine? For example: "
            "ssh -L 8265:localhost:8265 HEAD, kubectl port-forward service/NAME-head-svc 8265, "
            "ray dashboard CLUSTER.yaml"
        ) from error
    except RuntimeError as error:
        raise RunError(f"{place}: {error}") from error


def refusal(place: str, text: str) -> str:
    """What to do about a refusal by token authentication.

    Args:
        place: the cluster's address.
        text: Ray's own words.
    """
    from pipeline.cluster.session import TOKEN_ADVICE

    if ray_internals.TOKEN_MISSING in text:
        return f"{place}: the cluster wants a token, and none was sent. {TOKEN_ADVICE}"
    if ray_internals.TOKEN_REFUSED in text:
        there = [name for name in _TOKEN_VARIABLES if os.environ.get(name)]
        source = there[0] if there else "~/.ray/auth_token"
        return f"{place}: the cluster refuses the token of {source}. {TOKEN_ADVICE}"
    return f"{place}: no token can be sent: {text.splitlines()[0]} {TOKEN_ADVICE}"


@contextmanager
def _alone() -> Iterator[None]:
    """Without the variables that Ray would let win over an address that is given."""
    kept = {name: os.environ.pop(name) for name in ADDRESS_VARIABLES if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(kept)
