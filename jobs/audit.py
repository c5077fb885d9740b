"""``legrad audit``: the ranked table, and under it what was left out and why."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import pandas as pd
import typer
from rich import box
from rich.markup import escape
from rich.table import Table

from jobs.display import console, log
from jobs.gate import GateOptions, passes
from jobs.options import AuditOptions, StorageOptions, grouped
from jobs.reliance import show_reliance

if TYPE_CHECKING:
    from pipeline.audit.overview import Overview
    from pipeline.auditor import Audit

_LEGEND = (
    "with it: share of the class's images that have the cue; others: of all others'.\n"
    "odds ratio: how much the class raises the odds of the cue (95 % interval).\n"
    "heat: the class's own heat on the cue where it is present, 1 = average.\n"
    "That they come together does not say that a model uses the cue.\n"
)
Notes = Mapping[tuple[str, str], str]


@dataclass(frozen=True)
class VerdictOptions:
    """What people decided."""

    verdicts: Annotated[
        str | None, typer.Option(help="CSV of verdicts that you keep; default inside OUT.")
    ] = None
    verdict: Annotated[
        tuple[str, str, str] | None,
        typer.Option(metavar="CLASS CUE VERDICT", help="Keep one: core, spurious or unsure."),
    ] = None
    note: Annotated[str, typer.Option(help="Goes with --verdict.")] = ""


@dataclass(frozen=True)
class BesideOptions:
    """What goes in and out beside the table."""

    predictions: Annotated[
        str | None,
        typer.Option(help="Your model's: a table with image_id and prediction."),
    ] = None
    export: Annotated[
        str | None, typer.Option(help="Write all pairs to this .csv, .parquet or .json file.")
    ] = None


@dataclass(frozen=True)
class TableOptions:
    """What is printed."""

    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what --depth reliance would cost, and stop.")
    ] = False
    every: Annotated[
        bool, typer.Option("--all", help="Also pairs that are not flagged, and why not.")
    ] = False
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="Rows of the table.")] = 20


@grouped
def audit(
    out: Annotated[str, typer.Argument(help="A run's output folder or URI.")],
    options: AuditOptions,
    beside: BesideOptions,
    gate: GateOptions,
    judged: VerdictOptions,
    storage: StorageOptions,
    view: TableOptions,
) -> None:
    """Which classes come with which cues, and how sure that is."""
    from pipeline import Audit
    from pipeline.errors import UsageError

    given = storage.options()
    config = options.config()
    found = Audit.from_results(out, given, settings=config, verdicts=judged.verdicts, tell=log)
    if view.dry_run:
        console.print(f"depth reliance: {found.reliance.costs}", soft_wrap=True, markup=False)
        return
    if judged.verdict is not None:
        try:
            found.annotate(*judged.verdict, note=judged.note)
        except KeyError as error:
            raise UsageError(f"--verdict: {error.args[0]}") from error
    show(found, limit=view.limit, every=view.every)
    if beside.predictions is not None:
        show_predictions(found.predictions(beside.predictions), view.limit)
    if beside.export is not None:
        found.export(beside.export)
        console.print(f"\nall pairs: {beside.export}", soft_wrap=True, markup=False)
    if not passes(found, gate, given):
        raise typer.Exit(1)


def show(found: "Audit", *, limit: int, every: bool = False, notes: Notes | None = None) -> None:
    """Print the ranking, the decoys, what could not be measured, and the caveats.

    Args:
        notes: a last column, by (class, cue).
    """
    ranked = found.rank()
    flagged = ranked[ranked["association__flag"]]
    told = found.summary
    console.print(_counts(told), soft_wrap=True, markup=False)
    if len(flagged):
        console.print(_table(flagged.head(limit), notes))
        _more(len(flagged), limit)
        console.print(_LEGEND, style="dim")
        show_reliance(found, flagged.head(limit))
    else:
        console.print("\nNo cue is flagged for any class.")
    if every:
        console.print(_reasons(ranked[~ranked["association__flag"]].head(limit)))
    _print_lists(told, flagged)


def _counts(told: "Overview") -> str:
    failed = sum(told.failed.values())
    parts = [f"{told.images:,} images", f"{len(told.classes):,} classes", f"{len(told.cues)} cues"]
    parts += [f"{failed:,} rows without results"] if failed else []
    return f"{told.dataset}: {', '.join(parts)}; scored by {told.model}"


def _table(rows: pd.DataFrame, notes: Notes | None) -> Table:
    shown = Table(
        title="Cues that come with a class",
        header_style="bold",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    for name in ("class", "cue"):
        shown.add_column(name, overflow="fold", min_width=min(11, _widest(rows[name])))
    for name in ("with it", "others", "odds ratio", "heat"):
        shown.add_column(name, justify="right", no_wrap=True)
    judged = "verdict" in rows and rows["verdict"].notna().any()
    if judged:
        shown.add_column("verdict")
    if notes is not None:
        shown.add_column("planted", no_wrap=True)
    for row in rows.to_dict(orient="records"):
        pair = (str(row["class"]), str(row["cue"]))
        cells = [*pair, *_numbers({str(name): value for name, value in row.items()})]
        cells += [_text(row["verdict"])] if judged else []
        cells += [notes.get(pair, "")] if notes is not None else []
        shown.add_row(*(escape(cell) for cell in cells))
    return shown


def _numbers(row: Mapping[str, object]) -> list[str]:
    from pipeline.report.words import odds

    values = {name: float(value) for name, value in row.items() if isinstance(value, float | int)}
    low, high = values["association__low"], values["association__high"]
    heat = values["heat_on_cue"]
    return [
        f"{values['share']:.0%}",
        f"{values['share_elsewhere']:.0%}",
        f"{odds(values['association__effect'])} ({odds(low)}-{odds(high)})",
        "" if pd.isna(heat) else f"{heat:.1f}",
    ]


def _widest(names: pd.Series) -> int:
    return max((len(str(name)) for name in names), default=1)


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _reasons(rows: pd.DataFrame) -> Table:
    shown = Table(title="Not flagged, and why", header_style="bold", box=box.SIMPLE_HEAD)
    for name in ("class", "cue", "reason"):
        shown.add_column(name, overflow="fold")
    for row in rows.to_dict(orient="records"):
        cells = (row["class"], row["cue"], row["association__reason"])
        shown.add_row(*(escape(str(cell)) for cell in cells))
    return shown


def _print_lists(told: "Overview", flagged: pd.DataFrame) -> None:
    check = told.check
    listed = set(flagged["class"])
    clean = [name for name in told.classes if name not in listed]
    if clean and len(flagged):
        _line("clean", f"nothing flagged in {_some(clean)}")
    if check.cues:
        _line(
            "decoys",
            f"{check.flagged_pairs} of {check.pairs} pairs of a class and one of {check.cues} cues "
            f"that the data lack were flagged; {check.cues - check.measured} of these cues could "
            "not be measured, as it should be. So few decoys cannot show an error rate below "
            f"{check.floor:.0%}",
        )
    hidden = [cue for cue in told.not_measured if cue in told.cues]
    for cue in hidden[:8]:
        _line("not measured", f"{cue}: {told.not_measured[cue]}")
    if len(hidden) > 8:
        _line("not measured", f"and {len(hidden) - 8} more cues; --all says why")
    for caveat in told.caveats:
        _line("note", caveat)


def _some(names: Sequence[str], most: int = 12) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _line(title: str, text: str) -> None:
    grid = Table.grid(padding=(0, 1, 0, 0))
    grid.add_column(width=12, style="bold")
    grid.add_column(overflow="fold")
    grid.add_row(title, escape(text))
    console.print(grid)


def _more(count: int, limit: int) -> None:
    if count > limit:
        console.print(f"... and {count - limit:,} more; --limit or --export shows them")


def show_predictions(frame: pd.DataFrame, limit: int) -> None:
    """Accuracy of the user's own model with and without each cue."""
    shown = Table(
        title="Your model",
        caption="accuracy on the class's images with and without the cue, and the difference with "
        "its 95 % interval.\ntaken: other classes' images with the cue that are taken for the "
        "class, and without it.",
        caption_justify="left",
        header_style="bold",
        box=box.SIMPLE_HEAD,
    )
    for name in ("class", "cue"):
        shown.add_column(name, overflow="fold")
    for name in ("with", "without", "gap", "taken"):
        shown.add_column(name, justify="right", no_wrap=True)
    for row in frame.head(limit).itertuples():
        shown.add_row(
            escape(str(row[1])),
            escape(str(row.cue)),
            f"{row.accuracy_with:.0%}",
            f"{row.accuracy_without:.0%}",
            f"{row.gap:+.2f} ({row.low:+.2f} to {row.high:+.2f})",
            f"{row.taken_with:.1%}, {row.taken_without:.1%}",
        )
    console.print(shown)
    _more(len(frame), limit)
