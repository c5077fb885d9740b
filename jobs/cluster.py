"""``legrad submit`` and ``legrad jobs``: the commands that talk to a cluster's job server."""

from pathlib import Path
from typing import Annotated

import typer

from jobs.client import ClusterOptions
from jobs.options import RunOptions, ShippingOptions, grouped

jobs = typer.Typer(
    name="jobs",
    help="List, follow and stop the jobs of a cluster.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
Name = Annotated[str, typer.Argument(help="Submission id, or the beginning of one.")]


@grouped
def submit(
    config: Annotated[Path, typer.Argument(help="YAML file; see configs/base.yaml.")],
    chosen: RunOptions,
    cluster: ClusterOptions,
    shipping: ShippingOptions,
    watch: Annotated[
        bool, typer.Option("--follow/--no-wait", help="Stream its log until it ends, or not.")
    ] = True,
) -> None:
    """Explain a data set on a Ray cluster; the same command again continues or follows it."""
    settings = chosen.load(config)
    from jobs import submission

    submission.submit(settings, cluster, shipping, watch=watch)


@jobs.command("list")
@grouped
def show_all(
    cluster: ClusterOptions,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="Rows of the table.")] = 20,
) -> None:
    """List legrad's jobs on a cluster, the last ones first."""
    from jobs import overview

    overview.show_all(cluster, limit)


@jobs.command()
@grouped
def status(name: Name, cluster: ClusterOptions) -> None:
    """Tell how a job goes. Exit code 0: it lives or succeeded; 1: it failed or was stopped."""
    from jobs import overview

    raise typer.Exit(0 if overview.status(name, cluster) else 1)


@jobs.command()
@grouped
def logs(
    name: Name,
    cluster: ClusterOptions,
    watch: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the job ends.")
    ] = False,
) -> None:
    """Print a job's log."""
    from jobs import overview

    overview.logs(name, cluster, watch=watch)


@jobs.command()
@grouped
def stop(name: Name, cluster: ClusterOptions) -> None:
    """End a job; what it committed is kept, and submitting the run again continues it."""
    from jobs import overview

    overview.stop(name, cluster)
