"""The file of people's answers: one row an image, cue, group and person, as `legrad label` has."""

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from threading import Lock

import pandas as pd

from pipeline.audit.label_design import COLUMNS, Answer, merge_labels
from pipeline.audit.label_estimates import estimate_from_labels
from pipeline.audit.label_groups import Design, Labels, stored_design
from pipeline.auditor import Audit
from pipeline.errors import UsageError
from pipeline.labelling.tasks import LabelTask
from pipeline.storage.location import Location
from pipeline.storage.tables import parse_table

_KEY = ["image_id", "cue", "who"]


@dataclass
class LabelFile:
    """Answers on disk, or in a bucket.

    Attributes:
        location: location of the file, which need not exist.
        uri: the same as text.
    """

    location: Location
    uri: str
    _lock: Lock = field(default_factory=Lock)

    def read(self) -> pd.DataFrame:
        """All rows with an answer, as text.

        Raises:
            UsageError: the file is not such a table.
        """
        if not self.location.exists():
            return pd.DataFrame(columns=list(COLUMNS), dtype=str)
        rows = parse_table(self.location.read(), self.uri, COLUMNS)[list(COLUMNS)]
        return rows[rows["answer"].str.strip() != ""].reset_index(drop=True)

    def record(self, said: Sequence[tuple[LabelTask, str]], who: str) -> None:
        """Write a person's answers; they are stored when this returns.

        Args:
            said: an image and the groups that it was drawn in, and one of `Answer`, or empty to
                take an answer back.
            who: name of the person.

        Raises:
            UsageError: an answer is none of these, or the file cannot be written.
        """
        for _, answer in said:
            if answer not in (*Answer, ""):
                raise UsageError(f"answer {answer!r}: expected one of {', '.join(Answer)}")
        when = datetime.now(UTC).isoformat(timespec="milliseconds")
        added = [[*row, answer] for task, answer in said for row in task.rows if answer]
        after = pd.DataFrame(added, columns=list(COLUMNS[:6]), dtype=str)
        after = after.assign(who=who, when=when)
        answered = pd.MultiIndex.from_tuples(
            [(t.image_id, t.cue, who) for t, _ in said], names=_KEY
        )
        with self._lock:
            rows = self.read()
            mine = pd.MultiIndex.from_frame(rows[_KEY]).isin(answered)
            after = pd.concat([rows[~mine], after])
            buffer = io.StringIO()
            after.to_csv(buffer, index=False)
            self.location.write(buffer.getvalue().encode())

    def design(self, audit: Audit) -> Design:
        """The design of the run, or an empty one."""
        return stored_design(audit.results.folder.root, [self.uri], audit.settings.seed)

    def estimate(self, audit: Audit, cls: str, cue: str) -> dict[str, float] | None:
        """What the answers say about a pair; None while there are too few.

        Returns:
            The values of the pair's row of `LabelEstimates.frame`.
        """
        answers = merge_labels([self.read()])
        answers = answers[answers["cue"] == cue]
        if answers.empty:
            return None
        labels = Labels(answers, self.design(audit), (self.uri,))
        halved = frozenset(audit.settings.discovered)
        population = audit.findings.population
        frame = estimate_from_labels(audit.results, population, labels, halved).frame
        rows = frame[(frame["class"] == cls) & (frame["cue"] == cue)]
        if rows.empty:
            return None
        values = rows.drop(columns=["class", "cue"]).iloc[0]
        return {str(name): float(value) for name, value in values.items()}


def find_task(tasks: Sequence[LabelTask], image_id: str, cue: str) -> LabelTask:
    """The task of an image.

    Raises:
        UsageError: the image was not drawn.
    """
    for task in tasks:
        if (task.image_id, task.cue) == (image_id, cue):
            return task
    raise UsageError(f"{image_id!r} was not drawn for {cue!r}")
