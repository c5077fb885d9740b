"""``legrad report``: the findings as HTML pages that open from disk."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from jobs.options import (
    AuditOptions,
    ClassLabels,
    LabelFiles,
    OutputsArgument,
    StorageOptions,
    VerdictsFile,
    grouped,
    words,
)

if TYPE_CHECKING:
    from pipeline.report.contents import Limits


@dataclass(frozen=True)
class LimitOptions:
    """What a report may show, and how large it may become."""

    images: Annotated[
        bool,
        typer.Option(
            "--images/--no-images",
            help="Whether to show images. Without them the report has aggregates only: no picture, "
            "no map of a single image, no image's name.",
        ),
    ] = True
    pages: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=0,
            help="Pages for the N strongest pairs; flagged pairs always have one.",
        ),
    ] = 200
    each: Annotated[
        int,
        typer.Option(
            metavar="N", min=1, help="Pictures of a pair with the cue, and as many without it."
        ),
    ] = 12
    megabytes: Annotated[
        float,
        typer.Option(metavar="MB", min=1, help="Approximate size limit of the report folder."),
    ] = 20
    side: Annotated[
        int, typer.Option(metavar="PIXELS", min=32, help="Longer side of a picture.")
    ] = 192

    def limits(self) -> "Limits":
        """The options as the report takes them."""
        from pipeline.report.contents import Limits

        return Limits(self.images, self.pages, self.each, self.megabytes, self.side)


@grouped
def report(
    out: OutputsArgument,
    options: AuditOptions,
    limits: LimitOptions,
    storage: StorageOptions,
    to: Annotated[
        str, typer.Option("--out", "-o", metavar="FOLDER", help="Folder to write the report to.")
    ] = "report",
    verdicts: VerdictsFile = None,
    labels: LabelFiles = None,
    class_labels: ClassLabels = None,
) -> None:
    """Write the audit as web pages: a table of pairs, a page per pair and per class."""
    from jobs.display import console, log
    from pipeline import Audit
    from pipeline.report.site import build_report

    audit = Audit.from_results(
        out,
        storage.options(),
        settings=options.config(),
        verdicts=verdicts,
        labels=labels,
        class_labels=class_labels,
        tell=log,
    )
    again = words(verdicts=verdicts, class_labels=class_labels) + options.words()
    command = ["legrad", "audit", *out, *again]
    first_page = build_report(audit, to, limits.limits(), command=command, tell=log)
    console.print(f"report: {first_page}", soft_wrap=True, markup=False)
