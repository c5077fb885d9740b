"""What runs on a cluster, how it goes, and how to end it."""

import sys
import time
from datetime import datetime

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from jobs.attempts import Attempt, attempts, find
from jobs.client import ClusterOptions, answers
from jobs.display import console, duration, log
from jobs.follow import conclude, follow, reason
from pipeline.errors import RunError

_STOP_SECONDS = 120.0
_WIDE = 240
_STYLES = {"SUCCEEDED": "green", "FAILED": "red", "RUNNING": "cyan"}


def show_all(cluster: ClusterOptions, limit: int) -> None:
    """List legrad's jobs on a cluster, the last ones first."""
    client = cluster.connect()
    with answers(cluster.named):
        found = attempts(client)[::-1]
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("job", no_wrap=True)
    for name in ("status", "started", "took"):
        table.add_column(name, no_wrap=True)
    table.add_column("output", overflow="fold")
    for attempt in found[:limit]:
        style = _STYLES.get(attempt.status, "")
        took = "" if attempt.seconds is None else duration(attempt.seconds)
        status = f"[{style}]{attempt.status}[/]" if style else attempt.status
        table.add_row(attempt.id, status, _started(attempt), took, escape(attempt.output))
    wide = console if console.is_terminal else Console(highlight=False, width=_WIDE)
    wide.print(table if found else "no jobs of legrad on this cluster")
    if len(found) > limit:
        console.print(f"... and {len(found) - limit} more; --limit shows more")


def status(name: str, cluster: ClusterOptions) -> bool:
    """Tell how a job goes; True while it lives, and where it succeeded."""
    client = cluster.connect()
    with answers(cluster.named):
        attempt = find(client, name)
    lines = {
        "job": attempt.id,
        "status": attempt.status,
        "started": _started(attempt),
        "took": "" if attempt.seconds is None else duration(attempt.seconds),
        "output": attempt.output,
        "message": reason(attempt.details),
    }
    for key, value in lines.items():
        if value:
            console.print(f"{key:<9}{value}", markup=False, soft_wrap=True)
    if attempt.output:
        console.print(f"legrad check {attempt.output} --watch", markup=False, soft_wrap=True)
    return attempt.lives or attempt.status == "SUCCEEDED"


def logs(name: str, cluster: ClusterOptions, *, watch: bool) -> None:
    """Print a job's log."""
    client = cluster.connect()
    with answers(cluster.named):
        attempt = find(client, name)
        if watch:
            conclude(attempt.id, follow(client, attempt.id))
        else:
            sys.stdout.write(client.get_job_logs(attempt.id))


def stop(name: str, cluster: ClusterOptions) -> None:
    """End a job; what it committed is kept, and submitting the run again continues it."""
    client = cluster.connect()
    with answers(cluster.named):
        attempt = find(client, name)
        if not attempt.lives:
            log(f"{attempt.id} has ended already: {attempt.status}")
            return
        client.stop_job(attempt.id)
        end = time.monotonic() + _STOP_SECONDS
        while not client.get_job_status(attempt.id).is_terminal():
            if time.monotonic() > end:
                raise RunError(f"{attempt.id} does not end; legrad jobs status {attempt.id}")
            time.sleep(1)
    log(f"{attempt.id} is stopped")


def _started(attempt: Attempt) -> str:
    start = attempt.details.start_time
    return datetime.fromtimestamp(start / 1000).strftime("%Y-%m-%d %H:%M:%S") if start else ""
