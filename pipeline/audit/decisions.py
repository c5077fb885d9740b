"""What people decide about pairs: verdicts kept from run to run, and waivers for the CI gate."""

import io
from dataclasses import dataclass
from datetime import UTC, date, datetime
from enum import StrEnum

import pandas as pd

from pipeline.audit.ranking import CLAIMS
from pipeline.errors import UsageError
from pipeline.machine import user
from pipeline.storage.location import Location, Options
from pipeline.storage.tables import parse_table, read_table, require_values

ANY = "flagged"
VERIFIED = "verified"
WAIVER_COLUMNS = ("class", "cue", "reason", "expires")
VERDICT_COLUMNS = ("dataset", "class", "cue", "verdict", "note", "who", "when")
_WAIVER_FILE_COLUMNS = (*WAIVER_COLUMNS, "who", "when")
_KEY = ["dataset", "class", "cue"]


class Verdict(StrEnum):
    """What a cue is to a class, which no statistic can say."""

    CORE = "core"
    """It belongs to the class, as water does to boats."""
    SPURIOUS = "spurious"
    """A shortcut: it occurs with the class in these data only."""
    UNSURE = "unsure"


@dataclass(frozen=True)
class VerdictFile:
    """A CSV file of verdicts, which several data sets and runs may share.

    Attributes:
        location: location of the file, which need not exist.
        uri: the same as text, for messages.
        dataset: alias of the audited data set.
    """

    location: Location
    uri: str
    dataset: str

    def read(self) -> pd.DataFrame:
        """All verdicts on this data set: class, cue, verdict, note, who, when.

        Raises:
            UsageError: the file is not such a table.
        """
        verdicts = self._read_all()
        of_dataset = verdicts[verdicts["dataset"] == self.dataset]
        return of_dataset.drop(columns="dataset").reset_index(drop=True)

    def add(self, cls: str, cue: str, verdict: str, note: str = "", who: str | None = None) -> None:
        """Write a verdict; it replaces an earlier one on the same pair.

        Args:
            who: name to record; default the user's.

        Raises:
            UsageError: the verdict is not one of the three, or the file cannot be written.
        """
        if verdict not in list(Verdict):
            raise UsageError(f"verdict {verdict!r}: expected one of {', '.join(Verdict)}")
        when = datetime.now(UTC).isoformat(timespec="seconds")
        row = [self.dataset, cls, cue, verdict, note, who or user(), when]
        verdicts = pd.concat([self._read_all(), pd.DataFrame([row], columns=VERDICT_COLUMNS)])
        buffer = io.StringIO()
        verdicts.drop_duplicates(_KEY, keep="last").to_csv(buffer, index=False)
        self.location.write(buffer.getvalue().encode())

    def _read_all(self) -> pd.DataFrame:
        if not self.location.exists():
            return pd.DataFrame(columns=VERDICT_COLUMNS, dtype=str)
        verdicts = parse_table(self.location.read(), self.uri, VERDICT_COLUMNS)
        return verdicts[list(VERDICT_COLUMNS)]


@dataclass(frozen=True)
class Waiver:
    """A finding that somebody accepts for some time.

    Attributes:
        expires: the last day on which the waiver holds.
    """

    cls: str
    cue: str
    reason: str
    expires: date


@dataclass(frozen=True)
class Failure:
    """A flagged pair that fails the gate.

    Attributes:
        claims: claims for which the pair is flagged.
        expired: its waiver, if it had one that no longer holds.
    """

    cls: str
    cue: str
    claims: tuple[str, ...]
    expired: Waiver | None = None


@dataclass(frozen=True)
class Gate:
    """Result of the gate.

    Attributes:
        failures: flagged pairs without a waiver that holds.
        waived: waivers of flagged pairs that hold.
        unused: waivers of pairs that are not, or no longer, flagged.
    """

    failures: tuple[Failure, ...]
    waived: tuple[Waiver, ...]
    unused: tuple[Waiver, ...]

    @property
    def passed(self) -> bool:
        """Whether nothing fails."""
        return not self.failures


@dataclass(frozen=True)
class WaiverFile:
    """A CSV file of waivers with who gave them and when, which `read_waivers` reads, too.

    Attributes:
        location: location of the file, which need not exist.
        uri: the same as text, for messages.
    """

    location: Location
    uri: str

    def read(self) -> list[Waiver]:
        """All waivers; raises as `read_waivers`."""
        return _waivers(self._read_all(), self.uri)

    def add(self, waiver: Waiver, who: str | None = None) -> None:
        """Write a waiver; it replaces an earlier one of the same pair.

        Args:
            who: name to record; default the user's.

        Raises:
            UsageError: the reason is empty, or the file cannot be read or written.
        """
        if not waiver.reason.strip():
            raise UsageError(f"waiver of {waiver.cls}, {waiver.cue}: expected a reason")
        when = datetime.now(UTC).isoformat(timespec="seconds")
        row = [waiver.cls, waiver.cue, waiver.reason, str(waiver.expires)]
        added = pd.DataFrame([[*row, who or user(), when]], columns=_WAIVER_FILE_COLUMNS)
        waivers = pd.concat([self._read_all(), added])
        waivers = waivers.drop_duplicates(["class", "cue"], keep="last")
        self.location.write(waivers.to_csv(index=False).encode())

    def _read_all(self) -> pd.DataFrame:
        if not self.location.exists():
            return pd.DataFrame(columns=_WAIVER_FILE_COLUMNS, dtype=str)
        data = self.location.read()
        try:
            return parse_table(data, self.uri, _WAIVER_FILE_COLUMNS)
        except UsageError:  # written by hand, without who and when
            return parse_table(data, self.uri, WAIVER_COLUMNS).assign(who="", when="")


def read_waivers(uri: str, options: Options | None = None) -> list[Waiver]:
    """Read a table with class, cue, reason, expires (YYYY-MM-DD).

    Raises:
        UsageError: there is no such table, a cell is empty, a date cannot be read, or a pair is
            listed twice.
    """
    return _waivers(read_table(uri, WAIVER_COLUMNS, options), uri)


def _waivers(table: pd.DataFrame, uri: str) -> list[Waiver]:
    require_values(table, WAIVER_COLUMNS, uri)
    waivers: dict[tuple[str, str], Waiver] = {}
    for number, row in enumerate(table.astype(str).to_dict(orient="records"), 2):
        where = f"{uri}, line {number}"
        cls, cue, reason, expires = (str(row[name]).strip() for name in WAIVER_COLUMNS)
        if (cls, cue) in waivers:
            raise UsageError(f"{where}: {cls}, {cue} is waived twice; expected one line per pair")
        waivers[cls, cue] = Waiver(cls, cue, reason, read_day(expires, where))
    return list(waivers.values())


def read_day(text: str, where: str) -> date:
    """A date such as 2027-06-30; ``where`` begins the message of the error.

    Raises:
        UsageError: it is none.
    """
    try:
        return date.fromisoformat(text[:10])
    except ValueError as error:
        raise UsageError(
            f"{where}: expires {text!r}: expected a date such as 2027-06-30"
        ) from error


def claims_of(fail_on: str) -> tuple[tuple[str, ...], bool]:
    """The claims that a gate looks at, and whether only verified pairs count; see `gate`.

    Raises:
        UsageError: ``fail_on`` names none.
    """
    claim, colon, level = fail_on.partition(":")
    if claim not in (ANY, *CLAIMS) or (colon and level != VERIFIED):
        raise UsageError(
            f"--fail-on {fail_on}: expected one of {', '.join((ANY, *CLAIMS))}, alone or followed "
            f"by :{VERIFIED}"
        )
    return CLAIMS if claim == ANY else (claim,), bool(level)


def gate(
    ranked: pd.DataFrame, fail_on: str, waivers: list[Waiver], today: date | None = None
) -> Gate:
    """Compare the flagged pairs of a ranking with the waivers.

    Args:
        fail_on: ``flagged`` for any claim, or the name of one claim; with ``:verified`` behind it
            only pairs count whose association is verified.
        today: the day for which waivers must hold; default the present one.

    Raises:
        UsageError: ``fail_on`` is neither.
    """
    claims, verified = claims_of(fail_on)
    day = today or date.today()
    unused = {(waiver.cls, waiver.cue): waiver for waiver in waivers}
    failures, waived = [], []
    for row in ranked.to_dict(orient="records"):
        flagged = tuple(claim for claim in claims if row[f"{claim}__flag"])
        if not flagged or (verified and not row["association__verified"]):
            continue
        waiver = unused.pop((str(row["class"]), str(row["cue"])), None)
        if waiver is not None and waiver.expires >= day:
            waived.append(waiver)
        else:
            failures.append(Failure(str(row["class"]), str(row["cue"]), flagged, waiver))
    return Gate(tuple(failures), tuple(waived), tuple(unused.values()))
