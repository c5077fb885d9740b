"""The tables that ``legrad audit`` prints: associations, reliance, predictions, what is missing."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd
from rich.markup import escape
from rich.table import Table

from jobs.audit_model import show_model_reliance
from jobs.audit_verification import show_labels, show_worth_a_look
from jobs.display import console, findings_table
from pipeline.errors import counted
from pipeline.report.contents import records

if TYPE_CHECKING:
    from pipeline.audit.overview import Overview
    from pipeline.auditor import Audit

_MOST_NOT_MEASURED = 8
_MOST_NAMES = 12
_ASSOCIATION_LEGEND = (
    "with it: share of the class's images that show the cue; others: the same share "
    "of all other images. odds ratio: by how much the class raises the odds of the "
    "cue (95 % interval). heat: heat of the class's map on the cue where it is "
    "present, 1 = average. verified: labels, if people checked enough randomly drawn images; "
    "no, if it is from scores alone, or there are too few answers so far.\n"
    "That class and cue occur together does not say that a model uses the cue.\n"
)
_RELIANCE_LEGEND = (
    "probe: share of a linear probe's evidence for the class, against its closest rival class, "
    "that comes from the cue (95 % interval; at 100 % the label depends on nothing else).\n"
    "clip: fall of the model's own text margin, in standard deviations.\n"
    "* flagged. A model of yours may differ from both.\n"
)
Notes = Mapping[tuple[str, str], str]


def show(audit: "Audit", *, limit: int, every: bool = False, notes: Notes | None = None) -> None:
    """Print the flagged pairs, the decoys, what could not be measured, and the caveats.

    Args:
        audit: the audit.
        limit: most rows of a table.
        every: whether to list the pairs that are not flagged, too.
        notes: contents of an additional last column, by (class, cue).
    """
    ranked = audit.rank()
    flagged = ranked[ranked["association__flag"]]
    overview = audit.summary
    console.print(_counts(overview), soft_wrap=True, markup=False)
    show_labels(audit)
    if len(flagged):
        console.print(_ranking(flagged.head(limit), notes))
        _print_more(len(flagged), limit)
        console.print(_ASSOCIATION_LEGEND, style="dim")
        show_reliance(audit, flagged.head(limit))
    else:
        console.print("\nNo cue is flagged for any class.")
    show_worth_a_look(audit, every=every, limit=limit)
    _print_exact(audit, limit)
    if every:
        console.print(_reasons(ranked[~ranked["association__flag"]].head(limit)))
    _print_lists(overview, flagged)


def _print_exact(audit: "Audit", limit: int) -> None:
    """Print the flagged properties, which need no model."""
    from pipeline.report.words import exact_sentence, odds

    flagged = audit.exact[audit.exact["association__flag"].to_numpy(bool)]
    if not len(flagged):
        return
    console.print("\nProperties that come with a class (exact, no model needed)", style="bold")
    for row in records(flagged.head(limit)):
        effect, low, high = (odds(row[f"association__{n}"]) for n in ("effect", "low", "high"))
        text = f"{exact_sentence(row)} Odds {effect} ({low}-{high})."
        console.print(text, soft_wrap=True, markup=False, highlight=False)
    _print_more(len(flagged), limit)


def _counts(overview: "Overview") -> str:
    failed = sum(overview.failed.values())
    parts = [
        counted(overview.images, "image"),
        counted(len(overview.classes), "class", "classes"),
        counted(len(overview.cues), "cue"),
    ]
    parts += [f"{counted(failed, 'row')} without results"] if failed else []
    return f"{overview.dataset}: {', '.join(parts)}; scored by {overview.model}"


def _ranking(rows: pd.DataFrame, notes: Notes | None) -> Table:
    figures = ("with it", "others", "odds ratio", "heat")
    table = findings_table("Cues that come with a class", ("class", "cue"), figures)
    for column, name in zip(table.columns, ("class", "cue"), strict=False):
        longest = max((len(str(value)) for value in rows[name]), default=1)
        column.min_width = min(11, longest)
    table.add_column("verified", no_wrap=True)
    has_verdicts = "verdict" in rows and rows["verdict"].notna().any()
    if has_verdicts:
        table.add_column("verdict")
    if notes is not None:
        table.add_column("planted")
    for row in records(rows):
        pair = (str(row["class"]), str(row["cue"]))
        cells = [*pair, *_association_cells(row)]
        if has_verdicts:
            cells.append(row["verdict"] if isinstance(row["verdict"], str) else "")
        if notes is not None:
            cells.append(notes.get(pair, ""))
        table.add_row(*(escape(cell) for cell in cells))
    return table


def _association_cells(row: Mapping[str, Any]) -> list[str]:
    from pipeline.report.words import odds

    effect, low, high = (odds(float(row[f"association__{n}"])) for n in ("effect", "low", "high"))
    heat = row["heat_on_cue"]
    return [
        f"{row['share']:.0%}",
        f"{row['share_elsewhere']:.0%}",
        f"{effect} ({low}-{high})",
        "" if pd.isna(heat) else f"{heat:.1f}",
        str(row["association__basis"]) if row["association__verified"] else _unverified(row),
    ]


def _unverified(row: Mapping[str, Any]) -> str:
    """No, or how many answers there are where they are too few."""
    answers = int(row["labels"]), int(row["labels_elsewhere"])
    return f"no, {answers[0]} + {answers[1]} answers" if any(answers) else "no"


def _reasons(rows: pd.DataFrame) -> Table:
    table = findings_table("Not flagged, and why", ("class", "cue", "reason"), ())
    for row in records(rows):
        cells = (row["class"], row["cue"], row["association__reason"])
        table.add_row(*(escape(str(cell)) for cell in cells))
    return table


def _print_lists(overview: "Overview", flagged: pd.DataFrame) -> None:
    check = overview.check
    with_flags = set(flagged["class"])
    clean = [name for name in overview.classes if name not in with_flags]
    if clean and len(flagged):
        _print_line("clean", f"nothing flagged in {_shortened(clean)}")
    if check.cues:
        _print_line(
            "decoys",
            f"{check.flagged_pairs} of {check.pairs} pairs of a class and one of {check.cues} cues "
            f"that the data lack were flagged; {check.cues - check.measured} of these cues "
            "could not be measured, as it should be. With so few decoys, an error rate below "
            f"{check.floor:.0%} cannot be shown",
        )
    not_measured = [cue for cue in overview.not_measured if cue in overview.cues]
    for cue in not_measured[:_MOST_NOT_MEASURED]:
        _print_line("not measured", f"{cue}: {overview.not_measured[cue]}")
    if len(not_measured) > _MOST_NOT_MEASURED:
        rest = len(not_measured) - _MOST_NOT_MEASURED
        _print_line("not measured", f"and {rest} more cues; --all gives the reasons")
    for caveat in overview.caveats:
        _print_line("note", caveat)


def _shortened(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return ", ".join(names[:_MOST_NAMES]) + more


def _print_line(title: str, text: str) -> None:
    grid = Table.grid(padding=(0, 1, 0, 0))
    grid.add_column(width=12, style="bold")
    grid.add_column(overflow="fold")
    grid.add_row(title, escape(text))
    console.print(grid)


def _print_more(count: int, limit: int) -> None:
    if count > limit:
        console.print(f"... and {count - limit:,} more; --limit or --export shows them")


def show_predictions(frame: pd.DataFrame, limit: int) -> None:
    """Print the accuracy of the user's own model with and without each cue."""
    table = findings_table(
        "Your model",
        ("class", "cue"),
        ("with", "without", "gap", "taken"),
        caption="accuracy on the class's images with and without the cue, and the difference with "
        "its 95 % interval.\ntaken: share of other classes' images that the model takes for the "
        "class, with and without the cue.",
    )
    for row in records(frame.head(limit)):
        table.add_row(
            escape(str(row["class"])),
            escape(str(row["cue"])),
            f"{row['accuracy_with']:.0%}",
            f"{row['accuracy_without']:.0%}",
            f"{row['gap']:+.2f} ({row['low']:+.2f} to {row['high']:+.2f})",
            f"{row['taken_with']:.1%}, {row['taken_without']:.1%}",
        )
    console.print(table)
    _print_more(len(frame), limit)


def show_reliance(audit: "Audit", rows: pd.DataFrame) -> None:
    """Print both claims of reliance for rows of the ranking, and why pairs are not flagged.

    It prints nothing if the audit was made without them.
    """
    if audit.settings.depth != "reliance" or not len(rows):
        return
    title = "Does it matter? The cue deleted, compared with a patch of its shape elsewhere"
    table = findings_table(title, ("class", "cue", "against"), ("probe", "clip"))
    found = records(rows)
    for row in found:
        rival = row.get("probe_reliance__rival")
        cells = [row["class"], row["cue"], rival if isinstance(rival, str) else ""]
        cells += [
            _claim_cell(row, "probe_reliance", percent=True),
            _claim_cell(row, "clip_reliance"),
        ]
        table.add_row(*(escape(str(cell)) for cell in cells))
    console.print(table)
    for row in found:
        for line in _reliance_reasons(row):
            console.print(line, style="dim", markup=False)
    console.print(_probe_quality(audit), style="dim", markup=False, soft_wrap=True)
    console.print(f"\n{_RELIANCE_LEGEND}", style="dim", markup=False)
    show_model_reliance(audit, rows)


def _claim_cell(row: Mapping[str, Any], claim: str, *, percent: bool = False) -> str:
    values = [float(row[f"{claim}__{field}"]) for field in ("effect", "low", "high")]
    if math.isnan(values[0]):
        return "not testable"
    rounded = [round(value, 2 if percent else 1) + 0.0 for value in values]  # no minus zero
    effect, low, high = (f"{v:.0%}" if percent else f"{v:+.1f}" for v in rounded)
    return f"{effect} ({low} to {high}){' *' if row[f'{claim}__flag'] else ''}"


def _reliance_reasons(row: Mapping[str, Any]) -> list[str]:
    """Why a pair is not flagged; one line where both claims have the same reason."""
    claims = {"probe_reliance": "probe", "clip_reliance": "clip"}
    reasons = {name: row[f"{claim}__reason"] for claim, name in claims.items()}
    reasons = {name: reason for name, reason in reasons.items() if reason}
    pair = f"{row['class']} / {row['cue']}"
    if len(reasons) == len(claims) and len(set(reasons.values())) == 1:
        return [f"{pair}: {reasons['probe']}"]
    return [f"{pair}, {name}: {reason}" for name, reason in reasons.items()]


def _probe_quality(audit: "Audit") -> str:
    """How well the probe recognises the classes, and which ones it does not."""
    quality = audit.reliance.probe_quality
    at_chance = ~(quality["accuracy_low"] > quality["chance"])
    names = [str(name) for name in quality.loc[at_chance, "class"]]
    text = (
        f"the probe recognises {quality['accuracy'].mean():.0%} of held-out images, mean of classes"
    )
    return text + (f"; no better than chance: {_shortened(names)}" if names else "")
