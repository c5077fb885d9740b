"""What people decided about a pair, kept from run to run: core, spurious, unsure."""

import getpass
import io
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

import pandas as pd

from pipeline.errors import UsageError
from pipeline.storage.location import Location
from pipeline.storage.tables import parse_table

COLUMNS = ("dataset", "class", "cue", "verdict", "note", "who", "when")
KEY = ["dataset", "class", "cue"]


class Verdict(StrEnum):
    """What a cue is to a class, which no statistic can say."""

    CORE = "core"
    """It belongs to the class: water under a boat."""
    SPURIOUS = "spurious"
    """A shortcut: it comes with the class in these data only."""
    UNSURE = "unsure"


@dataclass(frozen=True)
class VerdictFile:
    """A CSV of verdicts; one file may serve many data sets and runs.

    Attributes:
        place: of the file, which need not exist.
        uri: the same as text.
        dataset: alias of this data set.
    """

    place: Location
    uri: str
    dataset: str

    def read(self) -> pd.DataFrame:
        """All verdicts on this data set: class, cue, verdict, note, who, when.

        Raises:
            UsageError: the file is no such table.
        """
        every = self._every()
        own = every[every["dataset"] == self.dataset]
        return own.drop(columns="dataset").reset_index(drop=True)

    def add(self, cls: str, cue: str, verdict: str, note: str = "", who: str | None = None) -> None:
        """Write a verdict; an earlier one on the same pair is replaced.

        Raises:
            UsageError: it is not one of the three, or the file cannot be written.
        """
        if verdict not in list(Verdict):
            raise UsageError(f"verdict {verdict!r}: expected one of {', '.join(Verdict)}")
        when = datetime.now(UTC).isoformat(timespec="seconds")
        row = [self.dataset, cls, cue, verdict, note, who or getpass.getuser(), when]
        every = pd.concat([self._every(), pd.DataFrame([row], columns=list(COLUMNS))])
        every = every.drop_duplicates(KEY, keep="last")
        buffer = io.StringIO()
        every.to_csv(buffer, index=False)
        self.place.write(buffer.getvalue().encode())

    def _every(self) -> pd.DataFrame:
        if not self.place.exists():
            return pd.DataFrame(columns=list(COLUMNS), dtype=str)
        return parse_table(self.place.read(), self.uri, COLUMNS)[list(COLUMNS)]
