"""``legrad submit`` and ``legrad jobs``: the commands that talk to a cluster's job server."""

import sys
import time
from typing import Annotated

import typer

from jobs.client import ClusterOptions, ShippingOptions, readable_errors
from jobs.options import ConfigArgument, Limit, RunOptions, grouped
from pipeline.errors import RunError

_STOP_SECONDS = 120.0
_LIST_WIDTH = 240  # without a terminal, so that no line is broken
_STYLES = {"SUCCEEDED": "green", "FAILED": "red", "RUNNING": "cyan"}
jobs = typer.Typer(
    name="jobs",
    help="List, follow and stop this package's jobs on a cluster.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
Name = Annotated[
    str,
    typer.Argument(
        metavar="JOB", help="Id of the job as `legrad jobs list` shows it, or its beginning."
    ),
]


@grouped
def submit(
    config: ConfigArgument,
    chosen: RunOptions,
    cluster: ClusterOptions,
    shipping: ShippingOptions,
    watch: Annotated[
        bool, typer.Option("--follow/--no-wait", help="Print the job's log until it ends.")
    ] = True,
) -> None:
    """Explain a dataset on a Ray cluster.

    The same command again follows an attempt that is running, or continues one that ended early.
    """
    settings = chosen.load(config)
    from jobs import submission

    submission.submit(settings, cluster, shipping, watch=watch)


@jobs.command("list")
@grouped
def show_all(cluster: ClusterOptions, limit: Limit = 20) -> None:
    """List the jobs on a cluster, the last one first."""
    from rich.console import Console
    from rich.markup import escape

    from jobs.cluster_jobs import list_attempts
    from jobs.display import console, plain_table

    client = cluster.connect()
    with readable_errors(cluster.chosen):
        attempts = list_attempts(client)[::-1]
    table = plain_table()
    for heading in ("job", "status", "started", "took"):
        table.add_column(heading, no_wrap=True)
    table.add_column("output", overflow="fold")
    for attempt in attempts[:limit]:
        style = _STYLES.get(attempt.status, "")
        status = f"[{style}]{attempt.status}[/]" if style else attempt.status
        table.add_row(attempt.id, status, attempt.started, attempt.took, escape(attempt.output))
    wide = console if console.is_terminal else Console(highlight=False, width=_LIST_WIDTH)
    wide.print(table if attempts else "no jobs of legrad on this cluster")
    if len(attempts) > limit:
        console.print(f"... and {len(attempts) - limit} more; --limit shows more")


@jobs.command()
@grouped
def status(name: Name, cluster: ClusterOptions) -> None:
    """Show the status of a job.

    Exit code 0: it waits, runs or succeeded; 1: it failed or was stopped.
    """
    from jobs.cluster_jobs import find_attempt, reason
    from jobs.display import console

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
    raise typer.Exit(0 if attempt.active or attempt.status == "SUCCEEDED" else 1)


@jobs.command()
@grouped
def logs(
    name: Name,
    cluster: ClusterOptions,
    watch: Annotated[
        bool, typer.Option("--follow", "-f", help="Continue until the job ends.")
    ] = False,
) -> None:
    """Print the log of a job."""
    from jobs.cluster_jobs import conclude, find_attempt, follow

    client = cluster.connect()
    with readable_errors(cluster.chosen):
        attempt = find_attempt(client, name)
        if watch:
            conclude(attempt.id, follow(client, attempt.id))
        else:
            sys.stdout.write(client.get_job_logs(attempt.id))


@jobs.command()
@grouped
def stop(name: Name, cluster: ClusterOptions) -> None:
    """Stop a job. Its committed rows are kept; submit the run again to continue."""
    from jobs.cluster_jobs import find_attempt
    from jobs.display import log

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
