"""``legrad models``: the models that can be explained, as a table or as JSON."""

import json
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from legrad.errors import SUPPORTED_TOWERS
from pipeline.errors import UsageError

if TYPE_CHECKING:
    from legrad.models.catalog import ListedModel

_HEADINGS = ("name", "family", "input", "patch", "grid", "layers", "width", "parameters")
_NARROWEST = 60


def models(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[WORD]...", help="Only models with these words in name or tags."),
    ] = None,
    every: Annotated[
        bool, typer.Option("--all", help="Also list architectures without published weights.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the models that can be explained."""
    from legrad.models.catalog import list_models, needing_transformers, refused

    words = words or []
    listed = list_models(untagged=every)
    matching = [model for model in listed if all(_matches(model, word.lower()) for word in words)]
    absent = _named(words, needing_transformers())
    if not matching:
        raise UsageError(
            f"no model with {' and '.join(map(repr, words))}"
            f"{_hint(words, absent, refused(), every)}"
        )
    if as_json:
        print(json.dumps([asdict(model) for model in matching], indent=1))
        return
    _print(matching)
    print(f"\n{len(matching)} of {len(listed)} models.", end=" ")
    print("Give --pretrained one of the tags, or a weights file.")
    if absent:
        print(f"{len(absent)} more after `pip install transformers`: {', '.join(absent)}")


def _named(words: Sequence[str], names: Iterable[str]) -> list[str]:
    return [name for name in names if all(word.lower() in name.lower() for word in words)]


def _hint(
    words: Sequence[str], absent: Sequence[str], refused: Mapping[str, str], every: bool
) -> str:
    """Models that match the words and are not listed, and the reason; empty if there are none."""
    if absent:
        return f"; after `pip install transformers` {len(absent)}: {', '.join(absent)}"
    reasons = {f"{name} {why}": (name, why) for name, why in refused.items()}
    uncovered = [reasons[text] for text in _named(words, reasons)]
    if uncovered:
        (first, why), more = uncovered[0], len(uncovered) - 1
        others = f" ({more} more are not covered either)" if more else ""
        return f"; {first} has {why}{others}; {SUPPORTED_TOWERS}"
    return "" if every else "; --all also shows architectures without published weights"


def _matches(model: "ListedModel", word: str) -> bool:
    return any(word in text.lower() for text in (model.name, model.family, *model.tags))


def _print(listed: Sequence["ListedModel"]) -> None:
    """Print one line per model, in columns, and its tags below; wrapped only on a terminal."""
    from rich.console import Console

    console = Console(highlight=False)
    rows = [_HEADINGS, *map(_cells, listed)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(_HEADINGS))]
    tags: list[str] = ["", *(", ".join(model.tags) for model in listed)]
    for row, below in zip(rows, tags, strict=True):
        first = [row[0].ljust(widths[0]), row[1].ljust(widths[1])]
        rest = [cell.rjust(width) for cell, width in zip(row[2:], widths[2:], strict=True)]
        console.print("  ".join(first + rest), style="bold", soft_wrap=True, markup=False)
        if below:
            width = max(console.width, _NARROWEST) if console.is_terminal else len(below) + 4
            text = textwrap.fill(below, width, initial_indent="    ", subsequent_indent="    ")
            console.print(text, soft_wrap=True, markup=False)


def _cells(model: "ListedModel") -> tuple[str, ...]:
    (height, width), (down, across) = model.image_size, model.patch_size
    return (
        model.name,
        model.family,
        _pair(height, width),
        _pair(down, across),
        f"{height // down}x{width // across}",
        str(model.layers),
        str(model.width),
        "" if model.parameters is None else f"{model.parameters / 1e6:,.0f} M",
    )


def _pair(height: int, width: int) -> str:
    return str(height) if height == width else f"{height}x{width}"
