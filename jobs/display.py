"""Output on the terminal: progress, log lines, tables, and the summary of a run."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, SpinnerColumn, TaskID, TextColumn
from rich.progress import Progress as Bar
from rich.table import Table

from pipeline.errors import counted

if TYPE_CHECKING:  # these import pandas, Ray or torch, which most commands do without
    import pandas as pd

    from pipeline.config import RunConfig
    from pipeline.costs import Costs
    from pipeline.dry_run import Preview
    from pipeline.progress.progress import Progress
    from pipeline.progress.watch import Watch
    from pipeline.results.reproduce import Recomputed
    from pipeline.runs.check import Check
    from pipeline.runs.compact import Compacted
    from pipeline.runs.completeness import Summary

console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)


@contextmanager
def watch(config: "RunConfig") -> Iterator["Watch"]:
    """A `Watch` that draws a progress bar; without a terminal it writes a line now and then."""
    from pipeline.progress.watch import Watch

    for warning in config.warnings:
        errors.print(f"warning: {warning}", style="yellow", soft_wrap=True, markup=False)
    if errors.is_terminal:
        with _bar() as bar:
            task = bar.add_task("starting", total=None, detail="")
            yield Watch(
                stage=lambda text: bar.update(task, description=text),
                progress=lambda progress: _advance(bar, task, progress),
                note=lambda text: _notes([text], errors),
            )
    else:
        seconds = config.runtime.report_every
        yield Watch(log, _log_progress, lambda text: log(f"note: {text}"), seconds)


@contextmanager
def counter(text: str, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar; without a terminal, one line at the start.

    Args:
        text: what is counted.
        total: the count at the end.

    Returns:
        A function that is called with the number of further items.
    """
    if not errors.is_terminal:
        log(text)
        yield lambda count: None
        return
    with _bar() as bar:
        task = bar.add_task(text, total=total, detail="")
        yield lambda count: bar.advance(task, count)


def findings_table(
    title: str, words: Iterable[str], figures: Iterable[str], caption: str | None = None
) -> Table:
    """An empty table whose columns of words fold and whose columns of figures do not.

    Args:
        title: printed above it.
        words: headings of the first columns.
        figures: headings of the other columns, aligned to the right.
        caption: printed below it.
    """
    table = Table(
        title=title,
        caption=caption,
        caption_justify="left",
        header_style="bold",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    for name in words:
        table.add_column(name, overflow="fold")
    for name in figures:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def plain_table() -> Table:
    """A table without lines."""
    return Table(box=None, pad_edge=False, header_style="dim")


def _bar() -> Bar:
    return Bar(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=28),
        TextColumn("{task.fields[detail]}"),
        console=errors,
        transient=True,
    )


def _advance(bar: Bar, task: TaskID, progress: "Progress") -> None:
    done, line = progress.resumed + progress.rows, _line(progress)
    bar.update(task, total=progress.rows_expected, completed=done, detail=line)


def log(text: str) -> None:
    """Write a line with the time of day to standard error."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def _log_progress(progress: "Progress") -> None:
    if progress.rows:
        log(_line(progress))


def _line(progress: "Progress") -> str:
    return progress_line(progress.as_json()) if progress.rows else ""


def progress_line(counts: Mapping[str, Any]) -> str:
    """``1,200 of ~2,000 images  85 images/s  9 s left  1 failed``.

    Args:
        counts: see `Progress.as_json`.
    """
    done, expected = counts["resumed"] + counts["rows"], counts["expected"]
    parts = [
        f"{done:,} of ~{counted(expected, 'image')}" if expected else f"{counted(done, 'image')}"
    ]
    parts.append(f"{counts['images_per_second']:.0f} images/s")
    if counts["seconds_left"] is not None:
        parts.append(f"{duration(counts['seconds_left'])} left")
    if counts["failed"]:
        parts.append(f"{counts['failed']:,} failed")
    return "  ".join(parts)


def summary(result: "Summary") -> None:
    """Print the results of a run."""
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_row("output", escape(result.output))
    table.add_row("images", f"{counted(result.rows, 'row')}, {result.statuses['ok']:,} explained")
    for status, count in sorted(result.failures.items()):
        table.add_row("", f"[yellow]{count:,} {status}[/yellow]")
    if result.resumed:
        table.add_row("resumed", f"{counted(result.resumed, 'row')} had been committed before")
    table.add_row(
        "files",
        f"{counted(result.parts, 'Parquet part')}, {size(result.bytes)}",
    )
    if result.already_complete:
        table.add_row("", "nothing to do: the run is complete, and no input file has changed")
    else:
        progress = result.progress
        rate = f"{progress.images_per_second:.1f} images/s while explaining"
        took = (
            f"{counted(progress.maps, 'map')}; {duration(result.seconds)} in total, start included"
        )
        table.add_row("speed", f"{rate}, {took}")
        busy = [
            f"{stage} {s:.0f} s"
            for stage, s in sorted(progress.seconds.items(), key=lambda i: -i[1])
        ]
        table.add_row("busy", ", ".join(busy) + " (all workers together)")
    console.print(table, soft_wrap=True)
    _notes(result.notes)


def compacted(result: "Compacted") -> None:
    """Print the results of a compaction."""
    console.print(f"output  {result.output}", soft_wrap=True, markup=False)
    console.print(f"images  {counted(result.rows, 'row')}, sorted by image_id")
    console.print(
        f"parts   {result.parts:,}, {size(result.bytes)}; before {result.parts_before:,}, "
        f"{size(result.bytes_before)}"
    )
    console.print(
        "source  " + ("deleted" if result.deleted else "kept; --delete-source deletes it")
    )


def check(result: "Check", limit: int) -> None:
    """Print an output's counts, the shards that are incomplete, and the verdict."""
    console.print(
        f"{result.output}: {counted(result.rows, 'row')} in {counted(result.parts, 'part')}, "
        f"{size(result.bytes)}"
    )
    for status, rows in result.statuses.most_common():
        console.print(f"  {status:<16}{rows:>12,}", markup=False)
    table = plain_table()
    table.add_column("shard", overflow="fold")
    for name in ("expected", "rows", "ok"):
        table.add_column(name, justify="right")
    listed = [s for s in result.shards if s.missing or s.expected is None] or list(result.shards)
    for shard in listed[:limit]:
        expected = "unknown" if shard.expected is None else f"{shard.expected:,}"
        table.add_row(escape(shard.name), expected, f"{shard.rows:,}", f"{shard.ok:,}")
    console.print(table)
    if len(listed) > limit:
        console.print(f"... and {len(listed) - limit} more shards; --limit shows more")
    if result.holder is not None:
        console.print(f"being written by {result.holder}", markup=False)
    for problem in result.problems:
        console.print(f"not complete: {problem}", style="yellow", soft_wrap=True, markup=False)
    if result.sound:
        console.print(
            f"complete: {counted(len(result.shards), 'shard')}, every row once", style="green"
        )


def recomputed(comparison: "Recomputed") -> None:
    """Print how close stored results are to new ones."""
    console.print(
        f"explained {counted(comparison.images, 'image')} again: scores differ by at most "
        f"{comparison.score:.1e} (allowed {comparison.tolerance:.0e}), maps by "
        f"{comparison.map_steps:.2f} steps of 1/255 beyond rounding",
        style=None if comparison.agree else "yellow",
        soft_wrap=True,
    )
    for image_id, why in comparison.unreadable.items():
        console.print(f"{image_id}: {why}", style="yellow", soft_wrap=True, markup=False)


def preview(plan: "Preview") -> None:
    """Print what a run would do."""
    about = "" if plan.exact else "about "
    console.print(f"read     {counted(plan.shards, 'shard')}, {size(plan.bytes_read)}, ", end="")
    console.print(f"{about}{counted(plan.rows, 'image')}, {counted(plan.maps, 'map')} each")
    if plan.columns:
        taken = ", ".join(f"{meaning}: {name}" for meaning, name in plan.columns.items())
        console.print(f"columns  {taken}", soft_wrap=True, markup=False)
    console.print(f"write    about {size(plan.bytes_written)}")
    replicas, resources = "as many replicas as fit the cluster", plan.resources
    if resources is not None:
        each = f"{resources.gpus:g} GPUs" if resources.gpus else f"{resources.threads} CPU threads"
        replicas = f"{resources.actors} replicas x {each}"
    console.print(f"explain  {replicas}")
    _costs(plan.costs)
    table = plain_table()
    for name in ("image_id", "label", "size", "bytes", "status"):
        table.add_column(name, overflow="fold")
    for row in plan.first:
        shape = "" if row.size is None else f"{row.size[0]} x {row.size[1]}"
        status = row.status if row.error is None else f"{row.status}: {row.error}"
        cells = (row.image_id, row.label or "", shape, f"{row.bytes:,}", status)
        table.add_row(*(escape(cell) for cell in cells))
    console.print(table)
    _notes(plan.notes)


def _notes(notes: Iterable[str], to: Console = console) -> None:
    for note in notes:
        to.print(f"note: {note}", style="yellow", soft_wrap=True, markup=False)


def _costs(costs: "Costs") -> None:
    console.print(
        f"cost     {costs.flops / 1e15:,.3g} PFLOP: {costs.gpu_hours:,.2g} hours on a GPU, if it "
        "sustains 20 TFLOP/s",
        soft_wrap=True,
    )
    if costs.decode_hours is not None:
        console.print(
            f"         {costs.decode_hours:,.2g} core-hours of decoding, measured here on the "
            f"first images: {costs.cores_per_gpu:,.1f} cores to keep such a GPU busy",
            soft_wrap=True,
        )
    console.print(
        f"         about {costs.gets:,} requests to read and {costs.puts:,} to write",
        soft_wrap=True,
    )


def failures(frame: "pd.DataFrame", limit: int) -> None:
    """Print the images without results, and why."""
    table = plain_table()
    for name in ("image_id", "status", "error"):
        table.add_column(name, overflow="fold")
    for row in frame[:limit].itertuples():
        table.add_row(*(_cell(value) for value in (row.image_id, row.status, row.error)))
    console.print(table)
    if len(frame) > limit:
        console.print(f"... and {len(frame) - limit} more; --csv FILE writes all")
    if frame.empty:
        console.print("every image has results")


def scores(frame: "pd.DataFrame", limit: int) -> None:
    """Print the first rows of a frame of scores."""
    import pandas as pd

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name in ["image_id", *frame.columns]:
        numeric = name in frame and pd.api.types.is_float_dtype(frame[name])
        table.add_column(str(name), justify="right" if numeric else "left", no_wrap=True)
    for image_id, row in frame.head(limit).iterrows():
        table.add_row(escape(str(image_id)), *[escape(_cell(value)) for value in row])
    wide = Console(highlight=False, width=max(console.width, 24 + 14 * len(frame.columns)))
    (console if console.is_terminal else wide).print(table)
    if len(frame) > limit:
        console.print(f"{len(frame) - limit:,} more; --limit N or --csv FILE shows them.")


def _cell(value: object) -> str:
    import pandas as pd

    if isinstance(value, float):
        return "" if pd.isna(value) else f"{value:+.3f}"
    return "" if pd.isna(value) else str(value)  # type: ignore[call-overload]


def duration(seconds: float) -> str:
    """``45 s``, ``3 min 20 s``, ``2 h 05 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def size(count: int) -> str:
    """Bytes in the unit that fits: ``12.3 MiB``."""
    value = float(count)
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"
