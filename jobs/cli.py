"""The ``legrad`` command: arguments in, exit code out; every command is a few calls of `pipeline`.

Exit codes: 0 done, 1 the run failed, 2 the user can mend it (settings, files), 130 interrupted.
"""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from jobs import checks, cluster
from jobs.audit import audit
from jobs.export import export
from jobs.options import ModelOptions, RunOptions, StorageOptions, ViewOptions, grouped
from jobs.report import report
from legrad.errors import UnsupportedModelError
from pipeline.errors import RunError, UsageError

INTERRUPTED = 130
app = typer.Typer(
    name="legrad",
    help="Find the shortcuts hiding in an image dataset: LeGrad heatmaps at dataset scale.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
# typer exports only a leaf of the errors of its command line
_CommandLineError: type[typer.BadParameter] = typer.BadParameter.__mro__[2]


def _version(wanted: bool) -> None:
    if wanted:
        from legrad import __version__

        typer.echo(f"legrad-audit {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options of all commands."""


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for images and results.")] = Path("demo"),
    images: Annotated[int, typer.Option(min=1, help="Scenes to draw.")] = 2000,
    seed: Annotated[int, typer.Option(help="Decides every scene.")] = 0,
) -> None:
    """Draw a data set with planted shortcuts, explain it, and show what was found."""
    from jobs import demo as tour

    tour.demo(out, images, seed)


@app.command()
@grouped
def init(
    source: Annotated[str, typer.Argument(help="Folder of images, or tar shards: path or URI.")],
    model: ModelOptions,
    out: Annotated[Path, typer.Option("--out", "-o", help="The file to write.")] = Path("run.yaml"),
    force: Annotated[bool, typer.Option("--force", help="Overwrite what is there.")] = False,
) -> None:
    """Write a starter configuration for your data, with the labels it has."""
    from jobs import init as start

    start.init(source, model, out, force)


@app.command()
@grouped
def run(
    config: Annotated[Path, typer.Argument(help="YAML file; see configs/base.yaml.")],
    chosen: RunOptions,
    check: Annotated[bool, typer.Option("--check", help="Check the settings and stop.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Look at the source and say what a run would do.")
    ] = False,
) -> None:
    """Explain a data set; the same command again continues where it stopped."""
    settings = chosen.load(config)
    if check:
        typer.echo(f"{config}: fine, {len(settings.queries)} queries")
        return
    from jobs import display

    if dry_run:
        from pipeline.dry_run import preview

        display.preview(preview(settings, on_cluster=bool(os.environ.get("RAY_ADDRESS"))))
        return
    from pipeline.flow import run as run_flow

    with display.watch(settings) as watch:
        summary = run_flow(settings, watch)
    display.summary(summary)


@app.command()
@grouped
def scores(
    out: Annotated[str, typer.Argument(help="A run's output folder or URI.")],
    storage: StorageOptions,
    query: Annotated[
        list[str] | None, typer.Option("--query", "-q", help="Only this query; repeat for more.")
    ] = None,
    csv: Annotated[
        str | None, typer.Option(help="Write all rows as CSV to this file; - for standard output.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="Rows of the table.")] = 20,
) -> None:
    """Show scores by image, as a table or as CSV."""
    from jobs import display
    from pipeline import open_results

    results = open_results(out, storage.options())
    try:
        values = results.scores(query)
    except KeyError as error:
        raise UsageError(str(error.args[0])) from error
    frame = results.images(["label", "status"]).join(values)
    if csv is None:
        display.scores(frame, limit)
    else:
        frame.to_csv(sys.stdout if csv == "-" else csv)


@app.command()
@grouped
def explain(
    images: Annotated[list[str], typer.Argument(help="Image files: paths or URIs.")],
    query: Annotated[list[str], typer.Option("--query", "-q", help="A text; repeat for more.")],
    model: ModelOptions,
    view: ViewOptions,
    out: Annotated[
        str | None, typer.Option("--out", "-o", help="The figure: png, jpg, webp or pdf.")
    ] = None,
    save_maps: Annotated[
        str | None, typer.Option(help="Write raw maps, scores and boxes to this .npz file.")
    ] = None,
) -> None:
    """Draw the heat of a few images for a few texts."""
    from jobs import explain as single

    raise typer.Exit(0 if single.explain(images, query, out, save_maps, model, view) else 1)


@app.command()
def models(
    words: Annotated[
        list[str] | None, typer.Argument(help="Only models with these words in name or tags.")
    ] = None,
    every: Annotated[
        bool, typer.Option("--all", help="Also architectures without published weights.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """List the models that can be explained."""
    from jobs import models as shelf

    shelf.show(words or (), every, as_json)


@app.command()
@grouped
def compact(
    out: Annotated[str, typer.Argument(help="A run's output folder or URI.")],
    storage: StorageOptions,
    output: Annotated[str, typer.Option(help="The new folder; it must be empty.")],
    partial: Annotated[
        bool, typer.Option("--partial", help="Take a run that is not complete as it is.")
    ] = False,
    delete_source: Annotated[
        bool,
        typer.Option("--delete-source", help="Delete the old files once the new are verified."),
    ] = False,
) -> None:
    """Write a run's results sorted and in large parts into a new folder."""
    from jobs import display
    from pipeline.runs.compact import compact as compact_run

    keep = {"partial": partial, "delete_source": delete_source}
    done = compact_run(out, output, storage.options(), **keep, tell=display.log)
    display.compacted(done)


for command in (checks.check, checks.doctor, audit, report, export, cluster.submit):
    app.command()(command)
app.add_typer(cluster.jobs, name="jobs")


def main() -> None:
    """Entry point: turns errors into one message and an exit code."""
    sys.exit(_code())


def _code() -> int:
    try:
        code = int(app(standalone_mode=False) or 0)
    except _CommandLineError as error:
        error.show()
        return 2
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except (UsageError, UnsupportedModelError) as error:
        _say(f"error: {error}")
        return 2
    except RunError as error:
        _say(f"failed: {error}")
        return 1
    except Exception as error:
        if os.environ.get("LEGRAD_DEBUG"):
            raise
        _say(
            f"failed: {_reason(error)}\nA run keeps what was committed: the same command again "
            "continues it. LEGRAD_DEBUG=1 shows the whole traceback."
        )
        return 1
    if code == INTERRUPTED:
        _say("interrupted. What was committed is kept: run the same command again to continue.")
    return code


def _reason(error: BaseException) -> str:
    """What was raised first, on whatever worker."""
    cause = getattr(error, "cause", None)
    while cause is not None:
        error, cause = cause, getattr(cause, "cause", None)
    return f"{type(error).__name__}: {error}"


def _say(text: str) -> None:
    print(f"legrad: {text}", file=sys.stderr, flush=True)
