"""The table of ``legrad audit --classifier``: what your own classifier does with the cues."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd
from rich.markup import escape

from jobs.display import console, findings_table
from pipeline.report.contents import records

if TYPE_CHECKING:
    from pipeline.auditor import Audit

_CLAIM = "model_reliance"
_LEGEND = (
    "logits: the cue's share of the difference between the logits of the class and of its rival; "
    "the rival is the one of the probe.\n"
    "flips: share of the class's images that the classifier stops assigning to the class when the "
    "cue is deleted, minus the share when a patch of the same shape is deleted elsewhere.\n"
    "taken: share of the rival's images that it assigns to the class when the cue is pasted in, "
    "minus the share for the control.\n"
    "Parentheses hold 95 % intervals.\n"
    "accuracy: on the class's images with and without the cue. heat: the class's mean heat on the "
    "cue, 1 = average.\n"
    "* flagged.\n"
)


def show_model_reliance(audit: "Audit", rows: pd.DataFrame) -> None:
    """Print the claim about the user's classifier for rows of the ranking, and why not flagged.

    It prints nothing if the audit was made without a classifier.
    """
    if audit.settings.classifier is None:
        return
    title = "Your classifier when the cue is deleted, or pasted into images of the rival"
    table = findings_table(title, ("class", "cue"), ("logits", "flips", "taken"))
    found = records(rows)
    for row in found:
        cells = [row["class"], row["cue"], *_cells(row)]
        table.add_row(*(escape(str(cell)) for cell in cells))
    console.print(table)
    for row in found:
        more = _more(row)
        if more:
            console.print(f"{row['class']} / {row['cue']}: {more}", style="dim", markup=False)
        reason = row[f"{_CLAIM}__reason"]
        if reason and reason != row["probe_reliance__reason"]:  # which is printed already
            line = f"{row['class']} / {row['cue']}: {reason}"
            console.print(line, style="dim", markup=False)
    console.print(f"\n{_LEGEND}", style="dim", markup=False)


def _cells(row: Mapping[str, Any]) -> list[str]:
    def interval(name: str, low: str, high: str) -> str:
        numbers = [_value(row, part) for part in (name, low, high)]
        if math.isnan(numbers[0]):
            return "not testable"
        effect, lowest, highest = (f"{round(n, 2) + 0.0:.0%}" for n in numbers)
        return f"{effect} ({lowest} to {highest})"

    return [
        interval("effect", "low", "high") + (" *" if row[f"{_CLAIM}__flag"] else ""),
        interval("flips", "flips_low", "flips_high"),
        interval("taken", "taken_low", "taken_high"),
    ]


def _more(row: Mapping[str, Any]) -> str:
    """Accuracy with and without the cue, and heat on it, as far as they are known."""
    accuracies = [_value(row, f"accuracy_{when}") for when in ("with", "without")]
    heat, parts = _value(row, "heat"), []
    if not any(map(math.isnan, accuracies)):
        parts.append(f"accuracy {accuracies[0]:.0%} with, {accuracies[1]:.0%} without")
    if not math.isnan(heat):
        parts.append(f"heat {heat:.1f}")
    return ", ".join(parts)


def _value(row: Mapping[str, Any], name: str) -> float:
    return float(row.get(f"{_CLAIM}__{name}", math.nan))
