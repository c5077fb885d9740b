"""``legrad discover``: find cues that no query names."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from jobs.options import (
    Limit,
    OutputsArgument,
    SettingsOptions,
    StorageOptions,
    grouped,
    words,
)
from pipeline.errors import UsageError, counted

if TYPE_CHECKING:
    import pandas as pd

    from pipeline.discovery import Discovery
    from pipeline.results import Results

_APART = "Beside the object of the class, or without heat to compare"
_ON_CLASS = "On the object: a part of it, another name, or something behind it"
_TOP = 5
_LEGEND = (
    "unusual: how far the class's mean score for the word exceeds what the similarity of word and "
    "class explains, in standard deviations over the vocabulary; first on the half of the images "
    "where the word was found, then on the other half. For a place: how far the class's heat there "
    "exceeds the usual heat, in units of the variation between classes.\n"
    "probe: the same for the weights of a linear model that is trained on the labels.\n"
    "with it, others, odds ratio: shares of images that show the word, and their odds ratio with "
    "its 95 % interval, on the other half; empty if the word is not confirmed. Only a word whose "
    "scores separate into two groups can be confirmed. What has no word may be a kind of the "
    "object, so it is confirmed only if images of other classes show it, too.\n"
    "heat: the class's heat in the hottest tenth of the word's map, as a share of its heat in the "
    "hottest tenth of its own map, in the clearest images.\n"
)


@dataclass(frozen=True)
class DiscoveryFiles:
    """Files that a discovery reads and writes."""

    vocabulary: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Your own vocabulary, one phrase per line. Default: about 9,400 words for visible "
            "things, from WordNet, and for artefacts of data sets.",
        ),
    ] = None
    export: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="Write all candidates to this .csv, .parquet or .json file."
        ),
    ] = None
    queries: Annotated[
        Path | None,
        typer.Option(
            "--write-queries",
            metavar="FILE",
            help="Write a configuration for `legrad run` whose cues are the candidates that are "
            "confirmed or worth a look.",
        ),
    ] = None
    word: Annotated[
        list[str] | None,
        typer.Option(
            metavar="WORD",
            help="Candidate that --write-queries takes instead of these. Repeatable.",
        ),
    ] = None
    force: Annotated[
        bool, typer.Option("--force", help="Overwrite the file of --write-queries.")
    ] = False


@grouped
def discover(
    out: OutputsArgument,
    options: SettingsOptions,
    files: DiscoveryFiles,
    storage: StorageOptions,
    top: Annotated[
        int,
        typer.Option(
            metavar="N", min=1, help="Words that are tested for each class, from each scan."
        ),
    ] = _TOP,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what it would cost, and stop.")
    ] = False,
    heat: Annotated[
        bool,
        typer.Option(
            "--heat/--no-heat",
            help="Whether to compute maps of the candidates, which reads images again.",
        ),
    ] = True,
    limit: Limit = 20,
) -> None:
    """Find cues that no query names: words of a vocabulary, things and places without a word.

    They are found on one half of the images and tested on the other. A result is a candidate for a
    query. It is no claim about your data until somebody has looked at the images.
    """
    from jobs.display import console, log
    from pipeline import open_results
    from pipeline.discovery import discover as find
    from pipeline.discovery import discovery_costs, store, with_heat
    from pipeline.discovery import words as read_words
    from pipeline.results.joined_run import as_one
    from pipeline.storage.tables import require_table_name, write_table

    if files.word and files.queries is None:
        raise UsageError("--word chooses what --write-queries FILE writes; add that option")
    if files.export is not None:
        require_table_name(files.export)
    storage_options = storage.options()
    settings = options.config()
    vocabulary = read_words(files.vocabulary, storage_options)
    results = as_one(open_results(out, storage_options))
    if dry_run:
        costs = discovery_costs(results, settings, vocabulary, top)
        console.print(f"discover: {costs}", soft_wrap=True, markup=False)
        return
    discovery = find(results, settings, vocabulary, top, log)
    if heat:
        discovery = with_heat(results, settings, discovery, log, storage_options)
    store(results, discovery)
    show(discovery, limit)
    if files.export is not None:
        write_table(discovery.candidates, files.export, storage_options)
        console.print(f"\nall candidates: {files.export}", soft_wrap=True, markup=False)
    _promote(results, [*out, *options.words()], discovery, files, top, settings.discovered)


def show(discovery: "Discovery", limit: int) -> None:
    """Print what was found, in two lists by where its heat lies."""
    from jobs.display import console
    from pipeline.discovery import apart, listed

    console.print(
        f"{counted(discovery.words, 'word')} that the model tells apart, "
        f"{counted(discovery.classes, 'class', 'classes')}; "
        f"{counted(len(discovery.candidates), 'candidate')}",
        soft_wrap=True,
        markup=False,
    )
    rows = listed(discovery.candidates)
    confirmed = int(rows["confirmed"].sum())
    if len(rows):
        look = "" if confirmed == len(rows) else f", {len(rows) - confirmed} worth a look"
        console.print(f"{confirmed} confirmed on the other half{look}\n", markup=False)
    else:
        console.print(
            "\nNothing is confirmed for any class, and nothing is unusual on both halves."
        )
    for title, part in zip((_APART, _ON_CLASS), apart(rows), strict=True):
        if len(part):
            _table(title, part, limit)
    console.print(_LEGEND, style="dim", markup=False)
    confirmed_decoys = int(discovery.decoys["confirmed"].sum())
    console.print(
        f"decoys: {confirmed_decoys} of {len(discovery.decoys)} words drawn at random from the "
        "vocabulary were confirmed by the same test",
        soft_wrap=True,
        markup=False,
    )


def _table(title: str, rows: "pd.DataFrame", limit: int) -> None:
    from rich.markup import escape

    from jobs.display import console, findings_table
    from pipeline.report.words import odds, word_of

    figures = ("unusual", "probe", "with it", "others", "odds ratio", "heat")
    table = findings_table(title, ("class", "word"), figures)
    for row in rows.head(limit).to_dict(orient="records"):
        cells = [str(row["class"]), word_of({str(name): row[name] for name in row})]
        both = (row["effect"], row["effect_again"])
        cells.append("" if isnan(both[0]) else f"{both[0]:.1f}, {both[1]:.1f}")
        cells.append("" if isnan(row["probe_effect"]) else f"{row['probe_effect']:.1f}")
        if row["confirmed"]:
            effect, low, high = (odds(float(row[f"odds_{n}"])) for n in ("ratio", "low", "high"))
            cells += [f"{row['share']:.0%}", f"{row['share_elsewhere']:.0%}"]
            cells.append(f"{effect} ({low}-{high})")
        else:
            cells += ["", "", ""]
        heat = float(row["heat_on_class"])
        cells.append("" if isnan(heat) else f"{heat:.0%}")
        table.add_row(*(escape(cell) for cell in cells))
    console.print(table)
    if len(rows) > limit:
        console.print(f"... and {len(rows) - limit:,} more; --limit or --export shows them")


def _promote(
    results: "Results",
    opened: Sequence[str],
    discovery: "Discovery",
    files: DiscoveryFiles,
    top: int,
    discovered: Sequence[str],
) -> None:
    """Write the configuration if it is asked for, and say what comes next.

    Args:
        results: results of the run.
        opened: the words of this command that an audit of the same results needs, too.
        discovery: what was found.
        files: options of this command.
        top: words that were tested for each class.
        discovered: cues of an earlier discovery.
    """
    from jobs.display import console
    from pipeline.discovery import listed
    from pipeline.starter.promotion import chosen, write_queries

    candidates = listed(discovery.candidates)
    if files.word:
        candidates = chosen(discovery.candidates, files.word)
    if files.queries is None:
        if len(candidates):
            again = words(vocabulary=files.vocabulary, top="" if top == _TOP else str(top))
            again += ["--write-queries", "discovered.yaml"]
            command = shlex.join(["legrad", "discover", *opened, *again])
            console.print(f"next: make queries of them:  {command}", soft_wrap=True, markup=False)
        return
    written = write_queries(
        results, candidates, files.queries, discovery.directions, force=files.force
    )
    for note in written.notes:
        console.print(f"note: {note}", soft_wrap=True, markup=False)
    run = shlex.join(["legrad", "run", str(written.config)])
    names = f"discovered=[{', '.join((*discovered, *written.cues))}]"
    audit = shlex.join(["legrad", "audit", *opened, written.output, "--set", names])
    console.print(
        f"{written.config}: {counted(len(written.cues), 'cue')}\nnext: {run}\n      {audit}",
        soft_wrap=True,
        markup=False,
    )
