"""``legrad demo``: the whole way on a drawn data set, from shards to a table and a sheet."""

from pathlib import Path

import pandas as pd
from rich import box
from rich.table import Table

from jobs import display
from jobs.display import console
from pipeline import demo as world
from pipeline.flow import run
from pipeline.loading import load_config, packaged_config
from pipeline.report import draw_sheet
from pipeline.report.planted import planted_rows
from pipeline.results import open_results
from pipeline.results.tables import class_cue_table

_TABLE_ROWS = 12
_COLUMNS = ("class", "cue", "baseline")


def demo(out: Path, images: int, seed: int) -> None:
    """Draw, explain, tabulate, show.

    Raises:
        UsageError: ``out`` holds another demo.
    """
    data, output = (out / "data").resolve(), (out / "heatmaps").resolve()
    sheet, csv = (out / "sheet.png").resolve(), (out / "cues.csv").resolve()
    with display.counter(f"drawing {images:,} scenes", images) as count:
        shards = world.write_demo(str(data), images, seed=seed, done=count)
    where = [f"source.uri=[{', '.join(map(repr, shards))}]", f"output={str(output)!r}"]
    config = load_config(packaged_config("demo.yaml"), where)
    with display.watch(config) as watch:
        summary = run(config, watch)
    results = open_results(str(output))
    table = class_cue_table(results)
    table.to_csv(csv, index=False)
    rows = planted_rows(config, results.images(), seed)
    title = "LeGrad on the demo: where the similarity to each text comes from"
    draw_sheet(results, rows, _COLUMNS, sheet, title)
    show_table(table)
    display.summary(summary)
    console.print(
        f"\n[bold]sheet[/bold]   {sheet}\n[bold]table[/bold]   {csv}\n"
        f"[bold]images[/bold]  {data}  (what was planted: {world.MANIFEST})\n"
        f"[bold]maps[/bold]    {output}\n\n"
        f"In Python:  from pipeline import open_results; open_results({str(output)!r}).scores()",
        soft_wrap=True,
    )


def show_table(table: pd.DataFrame) -> None:
    """Print the (class, cue) pairs whose scores stand out most, beside what was planted."""
    planted = {(p.label, p.cue.replace(" ", "_")): p for p in world.PLANTED}
    shown = Table(
        title="Cues that stand out by class",
        caption="score: mean cosine.  lift: against all images, in standard deviations.\n"
        "heat: the class's own heat on the cue's region, 1 = average.\n"
        "A first look: what stands out is described here, not tested.",
        caption_justify="left",
        header_style="bold",
        box=box.SIMPLE_HEAD,
    )
    for name in ("class", "cue"):
        shown.add_column(name, no_wrap=True)
    for name in ("images", "score", "lift", "heat"):
        shown.add_column(name, justify="right")
    shown.add_column("planted", no_wrap=True)
    for row in table.head(_TABLE_ROWS).itertuples():
        truth = planted.get((str(row.label), str(row.cue)))
        shown.add_row(
            str(row.label),
            str(row.cue),
            f"{row.images:,}",
            f"{row.mean_score:+.3f}",
            f"{row.score_lift:+.2f}",
            f"{row.heat_enrichment:.2f}",
            f"{truth.strength:.0%}, {truth.kind}" if truth else "",
        )
    console.print(shown)
