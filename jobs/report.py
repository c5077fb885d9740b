"""``legrad report``: findings as pages that open from disk."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from jobs.display import console, log
from jobs.options import AuditOptions, StorageOptions, grouped

if TYPE_CHECKING:
    from pipeline.report.contents import Limits


@dataclass(frozen=True)
class LimitOptions:
    """What a report may show and cost."""

    images: Annotated[
        bool,
        typer.Option(
            "--images/--no-images",
            help="Whether images are shown. Without: aggregates only, no picture, no map of one "
            "image, no image's name.",
        ),
    ] = True
    pages: Annotated[
        int, typer.Option(min=0, help="Strongest pairs with a page; flagged ones always have one.")
    ] = 200
    each: Annotated[
        int, typer.Option(min=1, help="Pictures of a pair with the cue, and as many without.")
    ] = 12
    megabytes: Annotated[
        float, typer.Option(min=1, help="Of the folder, about; pictures take what pages leave.")
    ] = 20
    side: Annotated[int, typer.Option(min=32, help="Of a picture, in pixels.")] = 192

    def limits(self) -> "Limits":
        """As the report wants them."""
        from pipeline.report.contents import Limits

        return Limits(self.images, self.pages, self.each, self.megabytes, self.side)


@grouped
def report(
    out: Annotated[str, typer.Argument(help="A run's output folder or URI.")],
    options: AuditOptions,
    limits: LimitOptions,
    storage: StorageOptions,
    to: Annotated[str, typer.Option("--out", "-o", help="The folder to write.")] = "report",
    verdicts: Annotated[
        str | None, typer.Option(help="CSV of verdicts that you keep; default inside OUT.")
    ] = None,
) -> None:
    """Write the findings as pages: a table, their pictures, every class."""
    from pipeline import Audit
    from pipeline.report.site import build_report

    audit = Audit.from_results(
        out, storage.options(), settings=options.config(), verdicts=verdicts, tell=log
    )
    first = build_report(audit, to, limits.limits(), tell=log)
    console.print(f"report: {first}", soft_wrap=True, markup=False)
