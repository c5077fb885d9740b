"""``legrad export``: findings for other tools."""

from dataclasses import dataclass
from typing import Annotated

import typer

from jobs.display import console
from jobs.options import AuditOptions, StorageOptions, grouped


@dataclass(frozen=True)
class ChosenOptions:
    """Which images."""

    pair: Annotated[
        list[str] | None,
        typer.Option(metavar="CLASS,CUE", help="Only this pair; repeat. Default: flagged ones."),
    ] = None
    cue: Annotated[
        list[str] | None, typer.Option(help="Cues that make groups; default: flagged ones.")
    ] = None
    limit: Annotated[int | None, typer.Option(min=1, help="Images of a pair.")] = None
    threshold: Annotated[
        float, typer.Option(min=0.01, max=1, help="coco: share of a map's maximum.")
    ] = 0.5

    def pairs(self) -> list[tuple[str, str]] | None:
        """As (class, cue); None for the flagged ones.

        Raises:
            UsageError: a pair without a comma.
        """
        from pipeline.errors import UsageError

        if self.pair is None:
            return None
        split = [text.rpartition(",") for text in self.pair]
        for text, (cls, _, cue) in zip(self.pair, split, strict=True):
            if not cls or not cue:
                raise UsageError(f"--pair {text}: expected CLASS,CUE")
        return [(cls, cue.strip()) for cls, _, cue in split]


@grouped
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
    options: AuditOptions,
    storage: StorageOptions,
    chosen: ChosenOptions,
) -> None:
    """Write flagged images for other tools."""
    from pipeline import Audit
    from pipeline.export import export as write

    audit = Audit.from_results(out, storage.options(), settings=options.config())
    count = write(
        audit,
        kind,
        to,
        chosen.pairs(),
        cues=chosen.cue,
        limit=chosen.limit,
        threshold=chosen.threshold,
    )
    console.print(f"{count:,} {kind}: {to}", soft_wrap=True, markup=False)
