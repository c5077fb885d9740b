"""The gate of ``legrad audit --fail-on``: what failed, what is waived, in words."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jobs.display import console

if TYPE_CHECKING:
    from pipeline.auditor import Audit


@dataclass(frozen=True)
class GateOptions:
    """What makes the command fail."""

    fail_on: Annotated[
        str | None,
        typer.Option(help="Exit code 1 if a pair is flagged: flagged (any claim), or one claim."),
    ] = None
    waivers: Annotated[
        str | None,
        typer.Option(help="Pairs that are accepted: a table with class, cue, reason, expires."),
    ] = None


def passes(found: "Audit", options: GateOptions, storage: Mapping[str, Any] | None) -> bool:
    """Print what the gate came to; whether nothing fails, or nothing was asked.

    Raises:
        UsageError: an unknown claim, waivers that cannot be read, or waivers without a gate.
    """
    from pipeline.audit.decisions import gate, read_waivers
    from pipeline.errors import UsageError

    if options.fail_on is None:
        if options.waivers is not None:
            raise UsageError("--waivers goes with --fail-on flagged")
        return True
    waivers = [] if options.waivers is None else read_waivers(options.waivers, storage)
    came = gate(found.rank(), options.fail_on, waivers)
    lines = []
    for one in came.failures:
        text = f"FAILED   {one.cls}, {one.cue}: flagged for {', '.join(one.claims)}"
        if one.expired is not None:
            text += f"; its waiver expired on {one.expired.expires} ({one.expired.reason})"
        lines.append(text)
    lines += [f"waived   {w.cls}, {w.cue} until {w.expires}: {w.reason}" for w in came.waived]
    lines += [f"unused   {w.cls}, {w.cue}: not flagged, delete its waiver" for w in came.unused]
    lines.append(
        f"gate     {'passed' if came.passed else 'failed'}: {len(came.failures)} flagged without "
        f"a waiver, {len(came.waived)} waived"
    )
    console.print("\n" + "\n".join(lines), soft_wrap=True, markup=False, highlight=False)
    return came.passed
