"""``legrad export``: findings in the formats of other tools."""

from dataclasses import dataclass
from typing import Annotated

import typer

from jobs.label import parse_pair
from jobs.options import ClassLabels, OutArgument, SettingsOptions, StorageOptions, grouped


@dataclass(frozen=True)
class ChosenOptions:
    """The images that are written."""

    pair: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CLASS,CUE", help="Only this pair. Repeatable. Default: all flagged pairs."
        ),
    ] = None
    cue: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="For groups: a cue that divides the classes. Repeatable. Default: flagged cues.",
        ),
    ] = None
    limit: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="For ids, coco and fiftyone: largest number of images of a pair, those with the "
            "highest scores.",
        ),
    ] = None
    threshold: Annotated[
        float,
        typer.Option(
            metavar="SHARE",
            min=0.01,
            max=1,
            help="For coco: mask the cells above this share of a map's maximum.",
        ),
    ] = 0.5
    pictures: Annotated[
        bool,
        typer.Option("--pictures", help="For coco: write the images, too, beside the file."),
    ] = False


@grouped
def export(
    out: OutArgument,
    kind: Annotated[
        str,
        typer.Option(
            "--format",
            "-f",
            metavar="FORMAT",
            help="ids: names of the flagged images; groups: class x cue, for GroupDRO or DFR; "
            "issues: the columns of cleanlab; coco: heat as masks; fiftyone: a dataset.",
        ),
    ],
    to: Annotated[
        str,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE",
            help="File to write: .csv or .parquet; for coco .json; for fiftyone a folder.",
        ),
    ],
    options: SettingsOptions,
    storage: StorageOptions,
    chosen: ChosenOptions,
    class_labels: ClassLabels = None,
) -> None:
    """Write the images of flagged pairs for other tools."""
    from jobs.display import console
    from pipeline import Audit
    from pipeline.export import export as write

    audit = Audit.from_results(
        out, storage.options(), settings=options.config(), class_labels=class_labels
    )
    count = write(
        audit,
        kind,
        to,
        None if chosen.pair is None else [parse_pair(text) for text in chosen.pair],
        cues=chosen.cue,
        limit=chosen.limit,
        threshold=chosen.threshold,
        pictures=chosen.pictures,
    )
    console.print(f"{count:,} {kind}: {to}", soft_wrap=True, markup=False)
