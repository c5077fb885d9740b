"""``legrad report``: findings as pages that open from disk."""

from typing import Annotated

import typer

from jobs.display import console, log


def report(
    out: Annotated[str, typer.Argument(help="A run's output folder or URI.")],
    to: Annotated[str, typer.Option("--out", "-o", help="The folder to write.")] = "report",
    settings: Annotated[
        str | None, typer.Option(help="YAML file of the audit's settings; see configs/audit.yaml.")
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override one: gates.odds_ratio=2."),
    ] = None,
    verdicts: Annotated[
        str | None, typer.Option(help="CSV of verdicts that you keep; default inside OUT.")
    ] = None,
    images: Annotated[
        bool,
        typer.Option(
            "--images/--no-images",
            help="Whether images are shown. Without: aggregates only, no picture, no map of one "
            "image, no image's name.",
        ),
    ] = True,
    pages: Annotated[
        int, typer.Option(min=0, help="Strongest pairs with a page; flagged ones always have one.")
    ] = 200,
    each: Annotated[
        int, typer.Option(min=1, help="Pictures of a pair with the cue, and as many without.")
    ] = 12,
    megabytes: Annotated[
        float, typer.Option(min=1, help="Of the folder, about; pictures take what pages leave.")
    ] = 20,
    side: Annotated[int, typer.Option(min=32, help="Of a picture, in pixels.")] = 192,
) -> None:
    """Write the findings as pages: a table, their pictures, every class."""
    from pipeline import Audit
    from pipeline.loading import load_audit
    from pipeline.report.model import Limits
    from pipeline.report.site import build_report

    audit = Audit.from_results(
        out, settings=load_audit(settings, overrides or ()), verdicts=verdicts
    )
    limits = Limits(images=images, pages=pages, each=each, megabytes=megabytes, side=side)
    first = build_report(audit, to, limits, tell=log)
    console.print(f"report: {first}", soft_wrap=True, markup=False)
