"""``legrad check``: whether a run's output is complete, and what the run is doing."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from jobs.options import Limit, OutArgument, StorageOptions, grouped
from pipeline.errors import UsageError, counted

if TYPE_CHECKING:
    from pipeline.runs.manifest import RunFolder
    from pipeline.runs.observe import RunState

_POLL_SECONDS = 5.0


@grouped
def check(
    out: OutArgument,
    storage: StorageOptions,
    failures: Annotated[
        bool,
        typer.Option(
            "--failures", help="List the images without results and why, instead of checking."
        ),
    ] = False,
    csv: Annotated[
        str | None, typer.Option(help="Write that list to this CSV file; - for standard output.")
    ] = None,
    again: Annotated[
        int,
        typer.Option(
            "--recompute",
            metavar="N",
            min=0,
            help="Explain N images again and compare the results.",
        ),
    ] = 0,
    limit: Limit = 20,
    watch: Annotated[
        bool,
        typer.Option("--watch", help="First follow the run until it ends, wherever it runs."),
    ] = False,
) -> None:
    """Check that a run's output is complete and holds every image once.

    Exit code 0: it is; 1: it is not, or not yet. With --failures or --csv nothing is checked.
    """
    from jobs import display
    from pipeline.runs.check import check as check_output
    from pipeline.runs.check import failures as failed_rows
    from pipeline.runs.manifest import run_folder

    if again and (failures or csv is not None):
        raise UsageError(
            "--recompute explains images again, and --failures and --csv only list the images "
            "without results; give one of them"
        )
    folder = run_folder(out, storage.options())
    if watch:
        watch_run(folder)
    if failures or csv is not None:
        frame = failed_rows(folder)
        if csv is None:
            display.failures(frame, limit)
        else:
            frame.to_csv(sys.stdout if csv == "-" else csv, index=False)
        return
    result = check_output(folder)
    display.check(result, limit)
    sound = result.sound
    if again:
        from pipeline import open_results
        from pipeline.results.reproduce import recompute

        comparison = recompute(open_results(out, storage.options()), again)
        display.recomputed(comparison)
        sound = sound and comparison.agree
    raise typer.Exit(0 if sound else 1)


def watch_run(folder: "RunFolder") -> None:
    """Print a line whenever the state of a run changes, until nobody writes to its output."""
    from jobs.display import log
    from pipeline.runs.observe import observe

    previous = ""
    for state in observe(folder, _POLL_SECONDS):
        text = state_line(state)
        if text != previous:
            log(text)
            previous = text


def state_line(state: "RunState") -> str:
    """``1,200 of ~2,000 images  85 images/s; committed 1,000 rows in 3 parts, 9.1 MiB``."""
    from jobs.display import duration, progress_line, size

    before, after = "", ""
    if not state.is_over:
        before = progress_line(state.progress) if state.progress else state.stage
    elif state.holder is not None:
        after = f"no sign of {state.holder} for {duration(state.seconds_silent)}"
    elif state.outcome not in (None, "complete"):
        after = f"the last attempt {state.outcome}: {state.error}"
    else:
        after = "complete" if state.complete else "no run is writing to this output"
    parts = f"{counted(state.parts, 'part')}, {size(state.bytes)}"
    committed = f"committed {counted(state.rows, 'row')} in {parts}"
    return "; ".join(text for text in (before, committed, after) if text)
