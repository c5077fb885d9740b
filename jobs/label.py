"""``legrad label``: draw images, and write the page on which people say whether a cue is there."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from jobs.options import (
    ClassLabels,
    OutputsArgument,
    SettingsOptions,
    StorageOptions,
    grouped,
    words,
)
from pipeline.errors import UsageError

if TYPE_CHECKING:
    from pipeline.labelling.labelling import Written


@dataclass(frozen=True)
class FileOptions:
    """Files that labelling reads and writes besides the run's output."""

    answers: Annotated[
        list[str] | None,
        typer.Option(
            "--labels",
            metavar="FILE",
            help="A saved labels.csv to continue with. Repeatable. A labels.csv in the folder of "
            "--out is read by default.",
        ),
    ] = None
    class_labels: ClassLabels = None
    to: Annotated[
        str,
        typer.Option("--out", "-o", metavar="FOLDER", help="Folder for the page and the table."),
    ] = "labels"


@grouped
def label(
    out: OutputsArgument,
    options: SettingsOptions,
    storage: StorageOptions,
    files: FileOptions,
    pair: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CLASS,CUE",
            help="Pair to verify. Repeatable. Default: flagged pairs that nobody has verified, and "
            "the most suspicious ones.",
        ),
    ] = None,
    cue: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CUE",
            help="Cue to verify in the three classes where it is most suspicious. Repeatable.",
        ),
    ] = None,
    labels: Annotated[
        int,
        typer.Option(
            "--number",
            "-n",
            metavar="N",
            min=1,
            help="Images to look at of each class, and about as many of other classes for each "
            "cue. A larger number later continues a smaller one.",
        ),
    ] = 50,
) -> None:
    """Draw images and write a page to label them on: is the cue present, absent, or unclear?

    Some 50 answers for a class, and 50 for other classes, turn a suspicion or an unverified finding
    into a verified one, or refute it: legrad audit OUT --labels FILE. The page opens from disk.
    """
    from jobs.display import log
    from pipeline import Audit
    from pipeline.labelling import write_labelling

    answers = files.answers or []
    audit = Audit.from_results(
        out,
        storage.options(),
        settings=options.config(),
        class_labels=files.class_labels,
        labels=tuple(answers),
        tell=log,
    )
    again = words(class_labels=files.class_labels) + options.words()
    command = ["legrad", "audit", *out, *again]
    written = write_labelling(
        audit,
        files.to,
        pairs=[parse_pair(text) for text in pair or ()],
        cues=cue or (),
        labels=labels,
        answers=answers,
        command=command,
        tell=log,
    )
    _print_next(written, out[0], files.to, command)


def _print_next(written: "Written", out: str, folder: str, command: Sequence[str]) -> None:
    """What was drawn, and what to do now: ``command`` audits the same results."""
    from jobs.display import console

    lines = [f"labels   {', '.join(f'{cls} / {name}' for cls, name in written.pairs)}"]
    lines.append(f"pictures {written.tasks:,} to look at, {written.answered:,} have an answer")
    if written.unreadable:
        lines.append(f"note     {written.unreadable:,} images could not be read from their source")
    if written.design_beside:
        lines.append(f"note     {out} cannot be written to, so the design is stored in {folder}")
    audit = shlex.join([*command, "--labels", str(written.table)])
    lines.append(
        f"\nnext     open {written.page} in a browser, press 1, 2 or 3 for each picture, and"
    )
    lines.append(f"         save the table as {written.table}; then  {audit}")
    console.print("\n".join(lines), soft_wrap=True, markup=False, highlight=False)


def parse_pair(text: str) -> tuple[str, str]:
    """A class and a cue; the class may have commas.

    Raises:
        UsageError: there is no comma.
    """
    cls, comma, name = text.rpartition(",")
    if not comma or not cls.strip() or not name.strip():
        raise UsageError(f"--pair {text}: expected CLASS,CUE such as 'frozen fish,watermark'")
    return cls.strip(), name.strip()
