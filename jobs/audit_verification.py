"""What ``legrad audit`` prints of verification: agreement, what is worth a look, what is next."""

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd
from rich.markup import escape

from jobs.display import console, findings_table
from jobs.options import words
from pipeline.errors import counted

if TYPE_CHECKING:
    from pipeline.auditor import Audit

_MOST_SUSPICIOUS = 8
_LEGEND = (
    "unusual: how far the class's mean score for the cue exceeds what the similarity of "
    "cue and class explains, in standard deviations over ordinary words.\n"
)


def show_labels(audit: "Audit") -> None:
    """Print how much was labelled, and how well people agree; nothing without labels."""
    labelled = audit.findings.labelled
    if labelled is None or audit.labels is None:
        return
    people = sorted(audit.labels.answers["who"].unique())
    text = (
        f"labels: {counted(len(audit.labels.answers), 'answer')} of {', '.join(people)} on "
        f"{counted(len(labelled.frame), 'pair')}, from {', '.join(audit.label_files)}"
    )
    not_counted = []
    if labelled.unused:
        not_counted.append(f"{counted(labelled.unused, 'answer')} after an unanswered picture")
    if labelled.picked > labelled.unused:
        number = labelled.picked - labelled.unused
        not_counted.append(f"{counted(number, 'answer')} on pictures that were not drawn")
    if not_counted:
        text += f"; not counted: {', '.join(not_counted)}"
    console.print(text, soft_wrap=True, markup=False)
    least = audit.settings.gates.labels
    answers = labelled.frame[["labels", "labels_elsewhere"]].min(axis=1)
    for row in labelled.frame[answers < least].to_dict(orient="records"):
        console.print(
            f"not enough: {row['class']} / {row['cue']} has {row['labels']} answers in the class "
            f"and {row['labels_elsewhere']} elsewhere; {least} of each are needed",
            soft_wrap=True,
            markup=False,
        )
    for row in audit.agreement.to_dict(orient="records"):
        same = pd.isna(row["kappa"])
        kappa = "all answers are the same" if same else f"Cohen's kappa {row['kappa']:.2f}"
        console.print(
            f"agreement: {row['cue']}, {row['who']} and {row['other']}: {row['agree']:.0%} of "
            f"{counted(row['images'], 'image')}, {kappa}",
            soft_wrap=True,
            markup=False,
        )


def show_worth_a_look(audit: "Audit", *, every: bool, limit: int) -> None:
    """Print suspicious pairs that nothing else is said of, or why there are none.

    Args:
        every: whether to list the pairs of all classes, the most unusual first.
    """
    from pipeline.audit.suspicion_scan import worth_a_look

    if audit.no_suspicions:
        if audit.settings.suspicions:
            console.print(f"no suspicions: {audit.no_suspicions}", soft_wrap=True, markup=False)
        return
    ranked = audit.rank(decoys=True)
    rows = worth_a_look(ranked).head(_MOST_SUSPICIOUS)
    if every:
        real = ranked[~ranked["decoy"] & ranked["suspicion__effect"].notna()]
        rows = real.sort_values("suspicion__effect", ascending=False).head(limit)
    if not len(rows):
        return
    title = "All pairs by suspicion" if every else "Worth a look, not a claim"
    table = findings_table(title, ("class", "cue"), ("unusual", "place in class"))
    for row in rows.to_dict(orient="records"):
        cells = [str(row["class"]), str(row["cue"])]
        cells += [f"{row['suspicion__effect']:.1f}", str(row["suspicion__rank"])]
        table.add_row(*(escape(cell) for cell in cells))
    console.print(table)
    console.print(_LEGEND, style="dim", markup=False)


def show_next(audit: "Audit", out: Sequence[str], options: Sequence[str]) -> None:
    """Print the command that verifies what is unverified.

    Args:
        audit: the audit.
        out: outputs of its runs.
        options: words of its options that say what is audited.
    """
    from pipeline.audit.suspicion_scan import worth_a_look

    ranked = audit.rank(decoys=True)
    real = ranked[~ranked["decoy"]]
    unverified = int((real["association__flag"] & ~real["association__verified"]).sum())
    suspicious = len(worth_a_look(ranked))
    if unverified or suspicious:
        parts = [f"{unverified} unverified findings"] if unverified else []
        parts += [f"{suspicious} suspicions"] if suspicious else []
        text = f"{' and '.join(parts)}; some minutes of looking at images verify or refute them"
    elif len(audit.classes) > 1:
        text = "nothing is left to verify; a cue that you suspect can be labelled with --cue CUE"
    else:
        return
    known = words(labels=audit.label_files)
    command = shlex.join(["legrad", "label", *out, *options, *known])
    console.print(f"\nnext: {text}:\n      {command}", soft_wrap=True, markup=False)
