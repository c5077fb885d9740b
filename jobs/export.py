"""``legrad export``: findings for other tools."""

from typing import Annotated

import typer

from jobs.display import console


def export(
    out: Annotated[str, typer.Argument(help="A run's output folder or URI.")],
    kind: Annotated[
        str,
        typer.Option(
            "--format",
            "-f",
            help="ids of flagged images; groups (class x cue, for GroupDRO or DFR); issues (as "
            "cleanlab has them); coco; fiftyone.",
        ),
    ],
    to: Annotated[
        str, typer.Option("--out", "-o", help=".csv or .parquet; coco: .json; fiftyone: a folder.")
    ],
    pair: Annotated[
        list[str] | None,
        typer.Option(metavar="CLASS,CUE", help="Only this pair; repeat. Default: flagged ones."),
    ] = None,
    cue: Annotated[
        list[str] | None, typer.Option(help="Cues that make groups; default: flagged ones.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Images of a pair.")] = None,
    threshold: Annotated[
        float, typer.Option(min=0.01, max=1, help="coco: share of a map's maximum.")
    ] = 0.5,
    settings: Annotated[
        str | None, typer.Option(help="YAML file of the audit's settings; see configs/audit.yaml.")
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override one: gates.odds_ratio=2."),
    ] = None,
) -> None:
    """Write flagged images for other tools."""
    from pipeline import Audit
    from pipeline.errors import UsageError
    from pipeline.export import export as write
    from pipeline.loading import load_audit

    pairs = None
    if pair is not None:
        split = [text.rpartition(",") for text in pair]
        wrong = [
            text for text, (cls, _, name) in zip(pair, split, strict=True) if not cls or not name
        ]
        if wrong:
            raise UsageError(f"--pair {wrong[0]}: expected CLASS,CUE")
        pairs = [(cls, name.strip()) for cls, _, name in split]
    audit = Audit.from_results(out, settings=load_audit(settings, overrides or ()))
    count = write(audit, kind, to, pairs, cues=cue, limit=limit, threshold=threshold)
    console.print(f"{count:,} {kind}: {to}", soft_wrap=True, markup=False)
