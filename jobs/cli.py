"""The ``legrad`` command: it parses arguments and returns exit codes; `pipeline` does the work.

Exit codes: 0 success, 1 the run failed, 2 something the user can fix (settings, files),
130 interrupted. Modules that take long to import are imported inside the commands, so that
``legrad --help`` is quick.
"""

import atexit
import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from jobs import cluster
from jobs.audit import audit
from jobs.check import check
from jobs.discover import discover
from jobs.doctor import doctor
from jobs.evaluate import evaluate
from jobs.explain import explain
from jobs.export import export
from jobs.label import label
from jobs.models import models
from jobs.options import (
    ClassLabels,
    ConfigArgument,
    Limit,
    ModelOptions,
    OutArgument,
    RunOptions,
    StorageOptions,
    grouped,
    say,
)
from jobs.report import report
from jobs.view import view
from legrad.errors import UnsupportedModelError
from pipeline.errors import KEPT, RunError, UsageError, counted

INTERRUPTED = 130
_NEW_OBJECTS_PER_COLLECTION = 100_000  # Python's default is 700
_STARTER_MODEL = ("ViT-B-16", "laion2b_s34b_b88k")
app = typer.Typer(
    name="legrad",
    help="Find the shortcuts in an image dataset, with LeGrad heatmaps of every image.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
# typer does not export the base class of the errors of its command line
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
    out: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Folder for images and results.")
    ] = Path("demo"),
    images: Annotated[int, typer.Option(metavar="N", min=1, help="Number of scenes.")] = 2000,
    seed: Annotated[int, typer.Option(metavar="N", help="Seed of the random scenes.")] = 0,
) -> None:
    """Draw a dataset with planted shortcuts, explain and audit it, and write the report."""
    from jobs.demo import run_demo

    run_demo(out, images, seed)


@app.command()
@grouped
def init(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="Your data: a folder of images, tar shards, Parquet files, or a list of images "
            "(.csv, .tsv, .jsonl); path or URI.",
        ),
    ],
    model: ModelOptions,
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="FILE", help="Configuration to write.")
    ] = Path("run.yaml"),
    image_field: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Column, or member of a sample, that holds the image."),
    ] = None,
    label_field: Annotated[
        str | None, typer.Option(metavar="NAME", help="Column or json field that holds the label.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite files that exist.")] = False,
) -> None:
    """Write a configuration for your data, with a query for each of its labels."""
    from pipeline.starter.files import write_starter

    if model.model is None and model.pretrained is None:
        model = replace(model, model=_STARTER_MODEL[0], pretrained=_STARTER_MODEL[1])
    chosen = {"image_field": image_field, "label_field": label_field}
    fields = {key: value for key, value in chosen.items() if value is not None}
    starter = write_starter(source, model.config(), out, fields, force=force)
    found = starter.survey
    print(f"{source}: format {found.format}, {found.summary}")
    if found.columns:
        print("columns: " + ", ".join(f"{what}: {name}" for what, name in found.columns.items()))
    most = ", ".join(f"{label} ({count:,})" for label, count in found.labels.most_common(5))
    more = f" and {len(found.labels) - 5:,} more" if len(found.labels) > 5 else ""
    without = f"{counted(found.unlabelled, 'image')} without a label"
    empty = f", {found.empty:,} with an empty set of labels" if found.empty else ""
    print(f"labels: {most or 'none'}{more}; {without}{empty}")
    for note in starter.notes:
        print(f"note: {note}")
    print(f"{starter.config}: model {model.model}, source, output")
    classes = counted(starter.classes, "class", "classes")
    cues, decoys = counted(starter.cues, "cue"), counted(starter.decoys, "decoy")
    print(f"{starter.queries}: {classes}, {cues}, {decoys}, 2 baselines")
    print(
        f"next: review both files, then  legrad run {starter.config} --check  and  "
        f"legrad run {starter.config}"
    )


@app.command()
@grouped
def run(
    config: ConfigArgument,
    chosen: RunOptions,
    check: Annotated[
        bool, typer.Option("--check", help="Only check the settings; read no data.")
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Only look at the source, and print what a run would do."),
    ] = False,
) -> None:
    """Explain a dataset: scores and heatmaps of every image for every query.

    The same command again continues a run that was interrupted.
    """
    settings = chosen.load(config)
    if check:
        typer.echo(f"{config}: fine, {counted(len(settings.queries), 'query', 'queries')}")
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
    out: OutArgument,
    storage: StorageOptions,
    query: Annotated[
        list[str] | None,
        typer.Option("--query", "-q", metavar="NAME", help="Only this query. Repeatable."),
    ] = None,
    csv: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="Write all rows to this CSV file; - for standard output."
        ),
    ] = None,
    class_labels: ClassLabels = None,
    limit: Limit = 20,
) -> None:
    """Print the scores of the images, as a table or as CSV."""
    from jobs import display
    from pipeline import open_results

    results = open_results(out, storage.options(), class_labels=class_labels)
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
def compact(
    out: OutArgument,
    storage: StorageOptions,
    output: Annotated[
        str, typer.Option(metavar="FOLDER", help="New folder or URI; it must be empty.")
    ],
    partial: Annotated[
        bool, typer.Option("--partial", help="Accept a run that is not complete.")
    ] = False,
    delete_source: Annotated[
        bool,
        typer.Option("--delete-source", help="Delete OUT once the new files are verified."),
    ] = False,
) -> None:
    """Copy a run's results into a new folder, sorted and in few large files."""
    from jobs import display
    from pipeline.runs.compact import compact as compact_run

    result = compact_run(
        out,
        output,
        storage.options(),
        partial=partial,
        delete_source=delete_source,
        report_message=display.log,
    )
    display.compacted(result)


for command in (
    check,
    explain,
    evaluate,
    models,
    doctor,
    audit,
    discover,
    label,
    view,
    report,
    export,
    cluster.submit,
):
    app.command()(command)
app.add_typer(cluster.jobs, name="jobs")


def main() -> None:
    """Entry point: turn errors into one message and an exit code."""
    with _rare_collections():
        sys.exit(_code())


@contextmanager
def _rare_collections() -> Iterator[None]:
    """Look for garbage less often, and not once more when the process ends.

    Torch's modules are a million objects that are no garbage. Looking through them took a quarter
    of the time of their import, and a second at the end of the process.
    """
    before = gc.get_threshold()
    gc.set_threshold(_NEW_OBJECTS_PER_COLLECTION, *before[1:])
    atexit.register(gc.freeze)
    try:
        yield
    finally:
        gc.set_threshold(*before)


def _code() -> int:
    try:
        code = int(app(standalone_mode=False) or 0)
    except _CommandLineError as error:
        error.show()
        return 2
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except (UsageError, UnsupportedModelError) as error:
        say(f"error: {error}")
        return 2
    except RunError as error:
        say(f"failed: {error}")
        return 1
    except Exception as error:
        if os.environ.get("LEGRAD_DEBUG"):
            raise
        kept = f" {KEPT}" if KEPT in getattr(error, "__notes__", ()) else ""
        say(f"failed: {_reason(error)}{kept}")
        say("LEGRAD_DEBUG=1 shows the whole traceback.")
        return 1
    if code == INTERRUPTED:
        say("interrupted.")
    return code


def _reason(error: BaseException) -> str:
    """The text of the error that a worker raised, without the errors that Ray wraps around it."""
    cause = getattr(error, "cause", None)
    while cause is not None:
        error, cause = cause, getattr(cause, "cause", None)
    return f"{type(error).__name__}: {error}"
