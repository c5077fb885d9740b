"""Connecting to a cluster's job server: options, and errors that say what to do."""

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
    """The cluster that a command talks to."""

    address: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Address of the cluster's dashboard, http://HOST:8265. Default: the variable "
            "RAY_API_SERVER_ADDRESS, else RAY_ADDRESS.",
        ),
    ] = None

    @property
    def chosen(self) -> str:
        """The address from the command line or the environment.

        Raises:
            UsageError: there is none.
        """
        candidates = [self.address, *(os.environ.get(name) for name in ADDRESS_VARIABLES)]
        for address in candidates:
            if address:
                return address
        raise UsageError(
            "no cluster is named: give --address http://HOST:8265, or set RAY_API_SERVER_ADDRESS"
        )

    def connect(self) -> "JobSubmissionClient":
        """Connect to the job server.

        Raises:
            UsageError: it does not answer, or refuses the token.
        """
        address = self.chosen
        with readable_errors(address), _without_address_variables():
            from ray.job_submission import JobSubmissionClient

            for name in ray_internals.SUBMISSION_LOGGERS:
                logging.getLogger(name).setLevel(logging.WARNING)
            return JobSubmissionClient(address)


@dataclass(frozen=True)
class ShippingOptions:
    """What a job brings to the cluster besides its settings."""

    env: Annotated[
        list[str] | None,
        typer.Option(
            "--env",
            metavar="NAME",
            help="Pass this environment variable with its value here. Repeatable.",
        ),
    ] = None
    installed: Annotated[
        bool,
        typer.Option(
            "--installed", help="Use the legrad-audit that the cluster has, do not upload this one."
        ),
    ] = False
    pip: Annotated[
        bool,
        typer.Option(
            "--pip",
            help="Install this package's dependencies on the nodes with pip; slow the first time.",
        ),
    ] = False


@contextmanager
def readable_errors(address: str) -> Iterator[None]:
    """Turn errors of a job server's client into ours, which say what to do.

    Raises:
        UsageError: the server cannot be reached, or refuses the token.
        RunError: the server reported an error.
    """
    import requests
    from ray.exceptions import AuthenticationError

    from pipeline.storage.location import redact

    shown = redact(address)
    try:
        yield
    except AuthenticationError as error:
        raise UsageError(explain_refusal(shown, str(error))) from error
    except (ConnectionError, requests.exceptions.RequestException) as error:
        raise UsageError(
            f"{shown}: no Ray job server answers there ({type(error).__name__}). Is the cluster "
            "up, and its dashboard (port 8265) forwarded to this machine? For example: "
            "ssh -L 8265:localhost:8265 HEAD, kubectl port-forward service/NAME-head-svc 8265, "
            "ray dashboard CLUSTER.yaml"
        ) from error
    except RuntimeError as error:
        raise RunError(f"{shown}: {error}") from error


def explain_refusal(address: str, text: str) -> str:
    """Say what to do about a refused or missing token.

    Args:
        address: the cluster's address.
        text: Ray's message.
    """
    from pipeline.cluster.session import TOKEN_ADVICE

    if ray_internals.TOKEN_MISSING in text:
        return f"{address}: the cluster requires a token, and none was sent. {TOKEN_ADVICE}"
    if ray_internals.TOKEN_REFUSED in text:
        variables = [name for name in _TOKEN_VARIABLES if os.environ.get(name)]
        source = variables[0] if variables else "~/.ray/auth_token"
        return f"{address}: the cluster refuses the token of {source}. {TOKEN_ADVICE}"
    return f"{address}: no token can be sent: {text.splitlines()[0]} {TOKEN_ADVICE}"


@contextmanager
def _without_address_variables() -> Iterator[None]:
    """Unset the variables that Ray's client prefers to the address that it is given."""
    saved = {name: os.environ.pop(name) for name in ADDRESS_VARIABLES if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(saved)
