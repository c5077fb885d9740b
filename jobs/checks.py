"""``legrad check`` and ``legrad doctor``: is an output sound, is a machine or a cluster fit?"""

import sys
from pathlib import Path
from typing import Annotated

import typer

from jobs.client import ClusterOptions
from jobs.options import RunOptions, StorageOptions, grouped


@grouped
def check(
    out: Annotated[str, typer.Argument(help="A run's output folder or URI.")],
    storage: StorageOptions,
    failures: Annotated[
        bool, typer.Option("--failures", help="List the images without results.")
    ] = False,
    csv: Annotated[
        str | None, typer.Option(help="Write that list as CSV to this file; - for standard output.")
    ] = None,
    again: Annotated[
        int, typer.Option("--recompute", min=0, help="Explain so many images again and compare.")
    ] = 0,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="Rows of the tables.")] = 20,
    watch: Annotated[
        bool, typer.Option("--watch", help="Follow a run from its output, wherever it runs.")
    ] = False,
) -> None:
    """Does a run's output add up? Exit code 0: complete, every row once; 1: not (yet)."""
    from jobs import display
    from pipeline.runs.check import check as check_output
    from pipeline.runs.check import failures as failed_rows
    from pipeline.runs.manifest import run_folder

    folder = run_folder(out, storage.options())
    if watch:
        from jobs import watching

        watching.watch(folder)
    if failures or csv is not None:
        frame = failed_rows(folder)
        if csv is None:
            display.failures(frame, limit)
        else:
            frame.to_csv(sys.stdout if csv == "-" else csv, index=False)
        return
    found = check_output(folder)
    display.check(found, limit)
    sound = found.sound
    if again:
        from pipeline import open_results
        from pipeline.results.reproduce import recompute

        compared = recompute(open_results(out, storage.options()), again)
        display.recomputed(compared)
        sound = sound and compared.agree
    raise typer.Exit(0 if sound else 1)


@grouped
def doctor(
    cluster: ClusterOptions,
    config: Annotated[
        Path | None, typer.Argument(help="Also hold this run against the nodes.")
    ] = None,
    folder: Annotated[Path, typer.Option(help="Where results would go.")] = Path(),
) -> None:
    """Check versions, device, Ray, memory and disk; with --address, a cluster's."""
    settings = None if config is None else RunOptions().load(config)
    if cluster.address is not None:
        from jobs.submission import examine_there

        examine_there(cluster, settings)
        return
    from jobs.health import examine

    raise typer.Exit(0 if examine(folder, settings) else 1)
