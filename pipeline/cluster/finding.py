"""What a check found."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One line.

    Attributes:
        check: its name.
        good: whether a run can go on.
        text: what was found, and where it is not good, what to do.
    """

    check: str
    good: bool
    text: str
