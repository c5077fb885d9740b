"""The claims of reliance as a table: what the model and a probe lose when the cue is deleted."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd
from rich import box
from rich.markup import escape
from rich.table import Table

from jobs.display import console

if TYPE_CHECKING:
    from pipeline.auditor import Audit

_LEGEND = (
    "probe: share of a linear probe's evidence for the class, against the one that it\n"
    "is hardest to tell from, that is the cue (95 % interval; 100 %: the label is).\n"
    "clip: fall of the model's own text margin, in standard deviations.\n"
    "* flagged. A model of yours may differ from both.\n"
)


def show_reliance(found: "Audit", rows: pd.DataFrame) -> None:
    """Print both claims for some rows of the ranking, and why what is not flagged is not.

    Nothing where the audit was not asked for them.
    """
    if found.settings.depth != "reliance" or not len(rows):
        return
    shown = Table(
        title="Does it matter? The cue deleted, against a patch of its shape deleted elsewhere",
        header_style="bold",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    for name in ("class", "cue", "against"):
        shown.add_column(name, overflow="fold")
    for name in ("probe", "clip"):
        shown.add_column(name, justify="right", no_wrap=True)
    records = [{str(k): v for k, v in row.items()} for row in rows.to_dict(orient="records")]
    for row in records:
        rival = row.get("probe_reliance__rival")
        cells = [row["class"], row["cue"], rival if isinstance(rival, str) else ""]
        cells += [_claim(row, "probe_reliance", percent=True), _claim(row, "clip_reliance")]
        shown.add_row(*(escape(str(cell)) for cell in cells))
    console.print(shown)
    for row in records:
        for line in _why(row):
            console.print(line, style="dim", markup=False)
    console.print(_recognised(found), style="dim", markup=False, soft_wrap=True)
    console.print(f"\n{_LEGEND}", style="dim", markup=False)


def _why(row: Mapping[str, Any]) -> list[str]:
    """Why a pair is not flagged, once where both claims say the same."""
    names = {"probe_reliance": "probe", "clip_reliance": "clip"}
    said = {name: row[f"{claim}__reason"] for claim, name in names.items()}
    said = {name: reason for name, reason in said.items() if reason}
    pair = f"{row['class']} / {row['cue']}"
    if len(said) == len(names) and len(set(said.values())) == 1:
        return [f"{pair}: {said['probe']}"]
    return [f"{pair}, {name}: {reason}" for name, reason in said.items()]


def _recognised(found: "Audit") -> str:
    """How well the probe knows the classes, and which ones it does not."""
    quality = found.reliance.probe_quality
    lost = quality.loc[~(quality["accuracy_low"] > quality["chance"]), "class"].tolist()
    text = (
        f"the probe recognises {quality['accuracy'].mean():.0%} of held-out images, mean of classes"
    )
    return text + (f"; no better than chance: {', '.join(map(str, lost[:8]))}" if lost else "")


def _claim(row: Mapping[str, Any], claim: str, *, percent: bool = False) -> str:
    values = [float(row[f"{claim}__{field}"]) for field in ("effect", "low", "high")]
    if math.isnan(values[0]):
        return "not testable"
    plain = [round(value, 2 if percent else 1) + 0.0 for value in values]  # no minus zero
    one, low, high = (f"{v:.0%}" if percent else f"{v:+.1f}" for v in plain)
    return f"{one} ({low} to {high}){' *' if row[f'{claim}__flag'] else ''}"
