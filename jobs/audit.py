"""``legrad audit``: rank the pairs of a class and a cue, and fail if a gate says so."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jobs.options import (
    AuditOptions,
    ClassLabels,
    LabelFiles,
    Limit,
    OutputsArgument,
    StorageOptions,
    VerdictsFile,
    grouped,
    words,
)
from pipeline.errors import UsageError

if TYPE_CHECKING:
    from pipeline.audit.decisions import Waiver
    from pipeline.auditor import Audit
    from pipeline.config import AuditConfig


@dataclass(frozen=True)
class VerdictOptions:
    """Verdicts of people on pairs."""

    verdicts: VerdictsFile = None
    verdict: Annotated[
        tuple[str, str, str] | None,
        typer.Option(
            metavar="CLASS CUE VERDICT",
            help="Record a verdict on a pair: core, spurious or unsure.",
        ),
    ] = None
    note: Annotated[
        str, typer.Option(metavar="TEXT", help="Note that is stored with --verdict.")
    ] = ""


@dataclass(frozen=True)
class FileOptions:
    """Files that an audit reads and writes besides the run's output."""

    labels: LabelFiles = None
    class_labels: ClassLabels = None
    predictions: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Predictions of your own model, a table with the columns image_id and "
            "prediction: adds its accuracy with and without each flagged cue.",
        ),
    ] = None
    export: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Write all pairs to this .csv, .parquet or .json file."),
    ] = None


@dataclass(frozen=True)
class GateOptions:
    """When the command fails, for use in continuous integration."""

    fail_on: Annotated[
        str | None,
        typer.Option(
            metavar="CLAIM",
            help="Exit with code 1 if a pair is flagged: for any claim (flagged), or for one "
            "(association, clip_reliance, probe_reliance, model_reliance). With :verified, as in "
            "association:verified, only pairs whose association people's labels verify.",
        ),
    ] = None
    waivers: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Pairs that --fail-on accepts: a table with the columns class, cue, reason and "
            "expires.",
        ),
    ] = None


@dataclass(frozen=True)
class TableOptions:
    """What is printed."""

    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what --depth reliance would cost, and stop.")
    ] = False
    every: Annotated[
        bool, typer.Option("--all", help="Also list pairs that are not flagged, and why not.")
    ] = False
    limit: Limit = 20


@grouped
def audit(
    out: OutputsArgument,
    options: AuditOptions,
    files: FileOptions,
    gate: GateOptions,
    verdicts: VerdictOptions,
    storage: StorageOptions,
    view: TableOptions,
) -> None:
    """Rank the pairs of a class and a cue that occur together, with intervals.

    A cue is a visual feature that may be a shortcut, such as a watermark or a background.
    """
    from jobs.audit_tables import show, show_predictions
    from jobs.audit_verification import show_next
    from jobs.display import console, log
    from pipeline import Audit
    from pipeline.storage.tables import require_table_name

    storage_options, settings = storage.options(), options.config()
    waivers = checked_gate(gate, settings, storage_options)
    if files.export is not None:
        require_table_name(files.export)
    if files.predictions is not None:
        _require_file("--predictions", files.predictions)
    result = Audit.from_results(
        out,
        storage_options,
        settings=settings,
        verdicts=verdicts.verdicts,
        labels=files.labels,
        class_labels=files.class_labels,
        tell=log,
    )
    if view.dry_run:
        console.print(f"depth reliance: {result.reliance.costs}", soft_wrap=True, markup=False)
        return
    if verdicts.verdict is not None:
        try:
            result.annotate(*verdicts.verdict, note=verdicts.note)
        except KeyError as error:
            raise UsageError(f"--verdict: {error.args[0]}") from error
    show(result, limit=view.limit, every=view.every)
    if files.predictions is not None:
        show_predictions(result.predictions(files.predictions), view.limit)
    if files.export is not None:
        result.export(files.export)
        console.print(f"\nall pairs: {files.export}", soft_wrap=True, markup=False)
    show_next(result, out, words(class_labels=files.class_labels) + options.words())
    if gate.fail_on is not None and not passes(result, gate.fail_on, waivers):
        raise typer.Exit(1)


def _require_file(option: str, uri: str) -> None:
    from pipeline.storage.location import open_location

    if not open_location(uri).exists():
        raise UsageError(f"{option} {uri}: there is no such file")


def checked_gate(
    options: GateOptions, settings: "AuditConfig", storage: Mapping[str, Any] | None
) -> "list[Waiver]":
    """Check the options of the gate before anything is computed, and read the waivers.

    Raises:
        UsageError: an unknown claim or one that the settings do not test, waivers that cannot be
            read, or waivers without ``--fail-on``.
    """
    from pipeline.audit.decisions import claims_of, read_waivers

    if options.fail_on is None:
        if options.waivers is not None:
            raise UsageError("--waivers needs --fail-on, such as --fail-on flagged")
        return []
    claims, _ = claims_of(options.fail_on)
    needed = {}
    if settings.depth != "reliance":
        needed = dict.fromkeys(("clip_reliance", "probe_reliance"), "--depth reliance")
    if settings.classifier is None:
        needed["model_reliance"] = "--classifier OUT"
    if all(claim in needed for claim in claims):
        raise UsageError(
            f"--fail-on {options.fail_on}: this audit does not test that claim; add "
            f"{needed[claims[0]]}"
        )
    return [] if options.waivers is None else read_waivers(options.waivers, storage)


def passes(audit: "Audit", fail_on: str, waivers: "list[Waiver]") -> bool:
    """Print the result of the gate; return whether it passes."""
    from jobs.display import console
    from pipeline.audit.decisions import gate

    result = gate(audit.rank(), fail_on, waivers)
    lines = []
    for failure in result.failures:
        text = f"FAILED   {failure.cls}, {failure.cue}: flagged for {', '.join(failure.claims)}"
        if failure.expired is not None:
            expired = failure.expired
            text += f"; its waiver expired on {expired.expires} ({expired.reason})"
        lines.append(text)
    lines += [f"waived   {w.cls}, {w.cue} until {w.expires}: {w.reason}" for w in result.waived]
    lines += [f"unused   {w.cls}, {w.cue}: not flagged, delete its waiver" for w in result.unused]
    lines.append(
        f"gate     {'passed' if result.passed else 'failed'}: {len(result.failures)} flagged "
        f"without a waiver, {len(result.waived)} waived"
    )
    console.print("\n" + "\n".join(lines), soft_wrap=True, markup=False, highlight=False)
    return result.passed
