"""What a run looks like from outside: live progress, log lines, tables, the summary."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pandas as pd
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, SpinnerColumn, TaskID, TextColumn
from rich.progress import Progress as Bar
from rich.table import Table

if TYPE_CHECKING:  # these bring Ray and torch, which tables do without
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
    """A `Watch` that draws a bar on a terminal, and writes a line now and then without one."""
    from pipeline.progress.watch import Watch

    for warning in config.warnings:
        errors.print(f"warning: {warning}", style="yellow", soft_wrap=True, markup=False)
    if errors.is_terminal:
        with _bar() as bar:
            task = bar.add_task("starting", total=None, detail="")
            yield Watch(
                stage=lambda text: bar.update(task, description=text),
                progress=lambda progress: _advance(bar, task, progress),
            )
    else:
        yield Watch(stage=log, progress=_log_progress, seconds=config.runtime.report_every)


@contextmanager
def counter(text: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar for something counted; without a terminal, a line at the start."""
    if not errors.is_terminal:
        log(text)
        yield lambda count: None
        return
    with _bar() as bar:
        task = bar.add_task(text, total=total, detail="")
        yield lambda count: bar.advance(task, count)


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
    done = progress.resumed + progress.rows
    bar.update(task, total=progress.rows_expected, completed=done, detail=_line(progress))


def log(text: str) -> None:
    """A line with the time of day on standard error."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def _log_progress(progress: "Progress") -> None:
    if progress.rows:
        log(_line(progress))


def _line(progress: "Progress") -> str:
    """``1,200 of ~2,000 images  85 images/s  9 s left  1 failed``."""
    if not progress.rows:
        return ""
    done = progress.resumed + progress.rows
    expected = progress.rows_expected
    parts = [f"{done:,} of ~{expected:,} images" if expected else f"{done:,} images"]
    parts.append(f"{progress.images_per_second:.0f} images/s")
    if progress.seconds_left is not None:
        parts.append(f"{duration(progress.seconds_left)} left")
    failed = progress.rows - progress.statuses["ok"]
    if failed:
        parts.append(f"{failed:,} failed")
    return "  ".join(parts)


def summary(done: "Summary") -> None:
    """Print what a run came to."""
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_row("output", escape(done.output))
    table.add_row("images", f"{done.rows:,} rows, {done.statuses['ok']:,} explained")
    for status, count in sorted(done.failures.items()):
        table.add_row("", f"[yellow]{count:,} {status}[/yellow]")
    if done.resumed:
        table.add_row("resumed", f"{done.resumed:,} rows were there already")
    table.add_row(
        "files",
        f"{done.parts} Parquet {'part' if done.parts == 1 else 'parts'}, {size(done.bytes)}",
    )
    if done.already_complete:
        table.add_row("", "nothing to do: the run was complete, and no input file has changed")
    else:
        progress = done.progress
        rate = f"{progress.images_per_second:.1f} images/s while explaining"
        took = f"{progress.maps:,} maps; {duration(done.seconds)} in all, start included"
        table.add_row("speed", f"{rate}, {took}")
        busy = [
            f"{stage} {s:.0f} s"
            for stage, s in sorted(progress.seconds.items(), key=lambda i: -i[1])
        ]
        table.add_row("busy", ", ".join(busy) + " (all workers together)")
    console.print(table, soft_wrap=True)
    for note in done.notes:
        console.print(f"note: {note}", style="yellow", soft_wrap=True, markup=False)


def compacted(done: "Compacted") -> None:
    """Print what a compaction came to."""
    console.print(f"output  {done.output}", soft_wrap=True, markup=False)
    console.print(f"images  {done.rows:,} rows, sorted by image_id")
    console.print(
        f"parts   {done.parts:,}, {size(done.bytes)}; before {done.parts_before:,}, "
        f"{size(done.bytes_before)}"
    )
    console.print("source  " + ("deleted" if done.deleted else "kept; --delete-source deletes it"))


def check(found: "Check", limit: int) -> None:
    """The counts of an output, the shards that need a look, and the verdict."""
    console.print(
        f"{found.output}: {found.rows:,} rows in {found.parts} parts, {size(found.bytes)}"
    )
    for status, rows in found.statuses.most_common():
        console.print(f"  {status:<16}{rows:>12,}", markup=False)
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("shard", overflow="fold")
    for name in ("expected", "rows", "ok"):
        table.add_column(name, justify="right")
    odd = [s for s in found.shards if s.missing or s.expected is None] or list(found.shards)
    for shard in odd[:limit]:
        expected = "unknown" if shard.expected is None else f"{shard.expected:,}"
        table.add_row(escape(shard.name), expected, f"{shard.rows:,}", f"{shard.ok:,}")
    console.print(table)
    if len(odd) > limit:
        console.print(f"... and {len(odd) - limit} more shards; --limit shows more")
    if found.holder is not None:
        console.print(f"being written by {found.holder}", markup=False)
    for problem in found.problems:
        console.print(f"not complete: {problem}", style="yellow", soft_wrap=True, markup=False)
    if found.sound:
        console.print(f"complete: {len(found.shards)} shards, every row once", style="green")


def recomputed(found: "Recomputed") -> None:
    """How near stored results are to new ones."""
    console.print(
        f"explained {found.images} images again: scores differ by at most {found.score:.1e} "
        f"(allowed {found.tolerance:.0e}), maps by {found.map_steps:.2f} steps of 1/255 beyond "
        "rounding",
        style=None if found.agree else "yellow",
        soft_wrap=True,
    )
    for image_id, why in found.unreadable.items():
        console.print(f"{image_id}: {why}", style="yellow", soft_wrap=True, markup=False)


def preview(found: "Preview") -> None:
    """What a run would do."""
    about = "" if found.exact else "about "
    console.print(f"read     {found.shards:,} shards, {size(found.bytes_read)}, ", end="")
    console.print(f"{about}{found.rows:,} images, {found.maps} maps each")
    console.print(f"write    about {size(found.bytes_written)}")
    plan = found.resources
    told = (
        "as the cluster decides"
        if plan is None
        else (
            f"{plan.actors} replicas x {plan.gpus:g} GPUs"
            if plan.gpus
            else f"{plan.actors} replicas x {plan.threads} CPU threads"
        )
    )
    console.print(f"explain  {told}")
    _costs(found.costs)
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("image_id", "label", "size", "bytes", "status"):
        table.add_column(name, overflow="fold")
    for row in found.first:
        shape = "" if row.size is None else f"{row.size[0]} x {row.size[1]}"
        status = row.status if row.error is None else f"{row.status}: {row.error}"
        cells = (row.image_id, row.label or "", shape, f"{row.bytes:,}", status)
        table.add_row(*(escape(cell) for cell in cells))
    console.print(table)


def _costs(costs: "Costs") -> None:
    hours = f"{costs.flops / 1e15:,.3g} PFLOP, {costs.gpu_hours:,.2g} hours of a GPU that sustains "
    console.print(f"cost     {hours}20 TFLOP/s (assumed)", soft_wrap=True)
    if costs.decode_hours is not None:
        text = (
            f"         {costs.decode_hours:,.2g} core-hours of decoding, timed here on the first "
        )
        text += f"images: {costs.cores_per_gpu:,.1f} cores for such a GPU"
        console.print(text, soft_wrap=True)
    console.print(f"         about {costs.gets:,} reads and {costs.puts:,} writes of the stores")


def failures(frame: pd.DataFrame, limit: int) -> None:
    """Images without results and why."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("image_id", "status", "error"):
        table.add_column(name, overflow="fold")
    for row in frame[:limit].itertuples():
        table.add_row(*(_cell(value) for value in (row.image_id, row.status, row.error)))
    console.print(table)
    if len(frame) > limit:
        console.print(f"... and {len(frame) - limit} more; --csv FILE writes all")
    if frame.empty:
        console.print("every image has results")


def scores(frame: pd.DataFrame, limit: int) -> None:
    """Print the first rows of a frame of scores."""
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
