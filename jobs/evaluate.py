"""``legrad evaluate``: which layers, texts and resizing give faithful maps; it never starts Ray."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from jobs.options import ConfigArgument, ConfigOverrides, say
from pipeline.errors import UsageError, counted

if TYPE_CHECKING:
    from rich.table import Table

    from legrad.preprocess import ResizeMode
    from pipeline.fidelity.estimates import Estimate
    from pipeline.fidelity.evaluate import Evaluation

Value = TypeVar("Value")


def evaluate(
    config: ConfigArgument,
    images: Annotated[
        int, typer.Option(metavar="N", min=2, help="Number of images, drawn at random.")
    ] = 200,
    layers: Annotated[
        str,
        typer.Option(
            metavar="LIST",
            help="Numbers of last blocks to compare; all means every block. Numbers above the "
            "model's number of blocks are left out.",
        ),
    ] = "1,2,4,all",
    resize: Annotated[
        str,
        typer.Option(
            metavar="LIST",
            help="Ways of resizing to compare: squash, center_crop, pad. Default: that of CONFIG.",
        ),
    ] = "",
    masks: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER",
            help="Masks as FOLDER/QUERY/STEM.png, each of the size of the image with that file "
            "name, and white where the image shows what the query names. Adds mIoU, mAP and "
            "pointing.",
        ),
    ] = None,
    overrides: ConfigOverrides = None,
) -> None:
    """Measure how faithful the maps are on your images, and recommend layers and texts."""
    from pipeline.config.loading import load_config

    settings = load_config(config, overrides or ())
    for warning in settings.warnings:
        say(f"warning: {warning}")
    counts, modes = _each(layers, _layers, "layers"), _each(resize, _mode, "resize")
    from pipeline.fidelity import evaluate as bench  # imports torch

    result = bench.evaluate(settings, bench.Wanted(images, counts, modes, masks), say)
    for note in result.notes:
        say(f"note: {note}")
    _print(result)


def _each(text: str, parse: Callable[[str], Value], option: str) -> tuple[Value, ...]:
    try:
        return tuple(parse(part.strip()) for part in text.split(",") if part.strip())
    except ValueError as error:
        raise UsageError(f"--{option} {text}: {error}") from error


def _layers(text: str) -> int | None:
    if text == "all":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"expected numbers from 1, or all, found {text!r}")
    return int(text)


def _mode(text: str) -> "ResizeMode":
    from legrad.preprocess import RESIZE_MODES

    if text not in RESIZE_MODES:
        raise ValueError(f"expected {', '.join(RESIZE_MODES)}, found {text!r}")
    return text  # type: ignore[return-value]


def _print(result: "Evaluation") -> None:
    from jobs.display import console
    from pipeline.fidelity.estimates import estimate
    from pipeline.fidelity.segmentation import HALF, summary

    rows = []
    for figures in result.measured:
        areas = [_short(estimate(values)) for values in (*figures.areas.T, figures.gap)]
        rows.append([f"{figures.accuracy:.0f}%", *areas, f"{figures.seconds * 1e3:.3g}"])
    table = _table(result, ("right", "negative", "positive", "gap", "ms a map"), rows)
    console.print("Fidelity of the maps: areas in percent, with 95 % intervals over images")
    console.print(table)
    masks = len(result.measured[0].masked)
    if masks:
        names = (f"mIoU {HALF}", "mAP", "pointing")
        summaries = [summary(figures.masked) for figures in result.measured]
        rows = [[_short(values[name]) for name in names] for values in summaries]
        console.print(f"Agreement with {counted(masks, 'mask')}, in percent")
        console.print(_table(result, names, rows))
    failed = f"; {counted(result.failed, 'row')} not decoded" if result.failed else ""
    images = counted(result.images, "image")
    print(f"{images}, {result.labelled:,} with the label of a class{failed}")
    print(_recommendation(result))


def _table(result: "Evaluation", names: Sequence[str], rows: Sequence[Sequence[str]]) -> "Table":
    """A row for each variant; its texts are named if it has some, its resizing if it differs."""
    from jobs.display import plain_table

    table = plain_table()
    variants = [figures.variant for figures in result.measured]
    texts = any(variant.distinct is not None for variant in variants)
    resized = len({variant.resize for variant in variants}) > 1
    for name, shown in (("layers", True), ("texts", texts), ("resize", resized)):
        if shown:
            table.add_column(name)
    for name in names:
        table.add_column(name, justify="right")
    for figures, row in zip(result.measured, rows, strict=True):
        variant = figures.variant
        own = ("distinct" if variant.distinct else "plain",) if texts else ()
        table.add_row(str(variant.layers), *own, *((variant.resize,) if resized else ()), *row)
    return table


def _short(value: "Estimate") -> str:
    return f"{value.value:.0f} ({value.low:.0f} to {value.high:.0f})"


def _recommendation(result: "Evaluation") -> str:
    """What to set, if its gain over the settings is beyond chance."""
    best, own = result.best, result.measured[0]
    if best is own:
        return f"recommended: keep the settings ({own.variant}), which have the largest gap"
    gain = result.gain()
    if gain.low <= 0:
        return (
            f"recommended: keep the settings ({own.variant}); {best.variant} "
            f"gains {gain}, which may be chance"
        )
    changes = [f"model.layers: {best.variant.layers}"]
    if best.variant.resize != own.variant.resize:
        changes.append(f"model.resize: {best.variant.resize}")
    if best.variant.distinct != own.variant.distinct:
        changes.append(f"distinct: {str(best.variant.distinct).lower()} for the queries")
    return f"recommended: {', '.join(changes)}; the gap gains {gain}"
