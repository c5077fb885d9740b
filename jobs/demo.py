"""``legrad demo``: every step on a drawn dataset, from shards to the audit and its report."""

from pathlib import Path

from jobs import display
from jobs.audit_tables import show
from jobs.discover import show as show_discovery
from jobs.display import console
from pipeline import Audit
from pipeline.config.loading import load_config, packaged_config
from pipeline.demo import dataset as world
from pipeline.demo.planted_rows import planted_rows
from pipeline.discovery import Discovery, discover, store, with_heat, words
from pipeline.flow import run
from pipeline.report import draw_sheet
from pipeline.report.site import build_report
from pipeline.results import open_results

_TABLE_ROWS = 12
_COLUMNS = ("class", "cue", "baseline")


def run_demo(out: Path, images: int, seed: int) -> None:
    """Draw a dataset, explain and audit it, write the report and print the results.

    Args:
        out: folder for all of it.
        images: number of scenes.
        seed: seed of the scenes.

    Raises:
        UsageError: ``out`` holds another demo dataset.
    """
    data, output = (out / "data").resolve(), (out / "heatmaps").resolve()
    sheet, csv = (out / "sheet.png").resolve(), (out / "pairs.csv").resolve()
    with display.counter(f"drawing {images:,} scenes", images) as count:
        shards = world.write_demo(str(data), images, seed=seed, done=count)
    overrides = [f"source.uri=[{', '.join(map(repr, shards))}]", f"output={str(output)!r}"]
    config = load_config(packaged_config("demo.yaml"), overrides)
    with display.watch(config) as watch:
        summary = run(config, watch)
    results = open_results(str(output))
    audit = Audit.from_results(str(output), settings={"depth": "reliance"}, tell=display.log)
    audit.export(str(csv))
    rows = planted_rows(config, results.images(), seed)
    title = "LeGrad on the demo: where the similarity to each text comes from"
    draw_sheet(results, rows, _COLUMNS, sheet, title)
    discovery = discovered(audit)
    report = build_report(audit, str((out / "report").resolve()), tell=display.log)
    display.summary(summary)
    console.print()
    show(audit, limit=_TABLE_ROWS, notes=_planted_shortcuts())
    console.print(f"\nTwo more cues were planted that no query names: {_hidden()}.\n")
    show_discovery(discovery, _TABLE_ROWS)
    console.print(
        f"\n[bold]report[/bold]  {report}\n"
        f"[bold]sheet[/bold]   {sheet}\n[bold]pairs[/bold]   {csv}\n"
        f"[bold]images[/bold]  {data}  (planted shortcuts: {world.MANIFEST})\n"
        f"[bold]maps[/bold]    {output}\n\n"
        f"All pairs, with reasons:  legrad audit {output} --depth reliance --all\n"
        f"Cues that no query names:  legrad discover {output}\n"
        f"Search, look and verify in a browser:  legrad view {output}\n"
        f"In Python:  from pipeline import Audit; Audit.from_results({str(output)!r}).rank()",
        soft_wrap=True,
    )


def discovered(audit: Audit) -> Discovery:
    """Candidates that no query of the run names, with heat, stored for the report."""
    discovery = discover(audit.results, audit.settings, words(), tell=audit.tell)
    discovery = with_heat(audit.results, audit.settings, discovery, audit.tell)
    store(audit.results, discovery)
    return discovery


def _hidden() -> str:
    """The planted cues that no query names."""
    shares = [f"a {p.cue} on {p.strength:.0%} of the class {p.label}" for p in world.HIDDEN]
    return " and ".join(shares)


def _planted_shortcuts() -> dict[tuple[str, str], str]:
    """Share of the class's images in which a shortcut was planted, by (class, cue)."""
    return {(p.label, p.cue.replace(" ", "_")): f"{p.strength:.0%}" for p in world.PLANTED}
