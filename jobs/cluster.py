"""``legrad submit`` and ``legrad jobs``: the commands that talk to a cluster's job server."""

from typing import Annotated

import typer

from jobs.client import ClusterOptions
from jobs.options import ConfigArgument, Limit, RunOptions, ShippingOptions, grouped

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
    from jobs import cluster_jobs

    cluster_jobs.show_all(cluster, limit)


@jobs.command()
@grouped
def status(name: Name, cluster: ClusterOptions) -> None:
    """Show the status of a job.

    Exit code 0: it waits, runs or succeeded; 1: it failed or was stopped.
    """
    from jobs import cluster_jobs

    raise typer.Exit(0 if cluster_jobs.status(name, cluster) else 1)


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
    from jobs import cluster_jobs

    cluster_jobs.logs(name, cluster, watch=watch)


@jobs.command()
@grouped
def stop(name: Name, cluster: ClusterOptions) -> None:
    """Stop a job. Its committed rows are kept; submit the run again to continue."""
    from jobs import cluster_jobs

    cluster_jobs.stop(name, cluster)
