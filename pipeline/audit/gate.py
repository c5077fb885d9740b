"""A gate for continuous integration: flagged pairs fail, unless somebody answered for them."""

from dataclasses import dataclass
from datetime import date

import pandas as pd

from pipeline.audit.ranking import CLAIMS
from pipeline.errors import UsageError
from pipeline.storage.location import Options
from pipeline.storage.tables import read_table

ANY = "flagged"
COLUMNS = ("class", "cue", "reason", "expires")


@dataclass(frozen=True)
class Waiver:
    """A finding that somebody accepts for a while.

    Attributes:
        expires: the last day on which it holds.
    """

    cls: str
    cue: str
    reason: str
    expires: date


@dataclass(frozen=True)
class Failure:
    """A flagged pair that fails the gate.

    Attributes:
        claims: for which it is flagged.
        expired: its waiver that no longer holds, if there is one.
    """

    cls: str
    cue: str
    claims: tuple[str, ...]
    expired: Waiver | None = None


@dataclass(frozen=True)
class Gate:
    """What the gate came to.

    Attributes:
        failures: flagged pairs without a waiver that holds.
        waived: waivers that saved a flagged pair.
        unused: waivers of pairs that are not flagged (any more).
    """

    failures: tuple[Failure, ...]
    waived: tuple[Waiver, ...]
    unused: tuple[Waiver, ...]

    @property
    def passed(self) -> bool:
        """Whether nothing fails."""
        return not self.failures


def read_waivers(uri: str, options: Options | None = None) -> list[Waiver]:
    """Read a table with class, cue, reason, expires (YYYY-MM-DD).

    Raises:
        UsageError: no such table, a waiver without a reason, no date, or a pair twice.
    """
    table = read_table(uri, COLUMNS, options).astype(str)
    found: dict[tuple[str, str], Waiver] = {}
    for number, row in enumerate(table.to_dict(orient="records"), 2):
        where = f"{uri}, line {number}"
        cls, cue, reason = (str(row[name]).strip() for name in COLUMNS[:3])
        if not reason:
            raise UsageError(f"{where}: no reason; expected why {cls}, {cue} is accepted")
        if (cls, cue) in found:
            raise UsageError(f"{where}: {cls}, {cue} is waived twice; expected one line a pair")
        found[cls, cue] = Waiver(cls, cue, reason, _day(str(row["expires"]).strip(), where))
    return list(found.values())


def _day(text: str, where: str) -> date:
    try:
        return date.fromisoformat(text[:10])
    except ValueError as error:
        raise UsageError(
            f"{where}: expires {text!r}: expected a date such as 2027-06-30"
        ) from error


def gate(
    ranked: pd.DataFrame, fail_on: str, waivers: list[Waiver], today: date | None = None
) -> Gate:
    """Hold a ranking against the waivers.

    Args:
        fail_on: ``flagged`` for any claim, or one claim's name.
        today: for tests; default the day it is.

    Raises:
        UsageError: ``fail_on`` is neither.
    """
    if fail_on not in (ANY, *CLAIMS):
        raise UsageError(f"--fail-on {fail_on}: expected one of {', '.join((ANY, *CLAIMS))}")
    claims = CLAIMS if fail_on == ANY else (fail_on,)
    now = today or date.today()
    known = {(waiver.cls, waiver.cue): waiver for waiver in waivers}
    failures, waived = [], []
    for row in ranked.to_dict(orient="records"):
        flagged = tuple(claim for claim in claims if row[f"{claim}__flag"])
        if not flagged:
            continue
        waiver = known.pop((str(row["class"]), str(row["cue"])), None)
        if waiver is not None and waiver.expires >= now:
            waived.append(waiver)
        else:
            failures.append(Failure(str(row["class"]), str(row["cue"]), flagged, waiver))
    return Gate(tuple(failures), tuple(waived), tuple(known.values()))
