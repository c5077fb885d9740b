"""The gate of ``legrad audit --fail-on``: what failed, what is waived, in words."""

from typing import TYPE_CHECKING

from jobs.display import console

if TYPE_CHECKING:
    from pipeline.audit import Audit


def passes(found: "Audit", fail_on: str, waivers: str | None) -> bool:
    """Print what the gate came to; whether nothing fails.

    Raises:
        UsageError: an unknown claim, or waivers that cannot be read.
    """
    from pipeline.audit.gate import gate, read_waivers

    came = gate(found.rank(), fail_on, read_waivers(waivers) if waivers is not None else [])
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
