"""Errors that end a command with one message: what was expected, what was found, what to do."""

import difflib
from collections.abc import Iterable

_MOST_NAMES = 30


KEPT = "The rows that were committed are kept: run the same command again to continue."
"""Note that an error gets when it ends a run that may have committed rows."""


class UsageError(Exception):
    """The user can correct it: a wrong setting, a missing file, a refused output. Exit code 2."""


class RunError(Exception):
    """The run could not finish or its counts do not add up. Exit code 1."""


class UnknownNameError(KeyError):
    """A query, column or image that the results do not have.

    A KeyError whose message is shown without the quotes that KeyError puts around it.
    """

    def __str__(self) -> str:
        return str(self.args[0])


def counted(number: int, one: str, several: str | None = None) -> str:
    """A number with its noun, ``1 image`` or ``2,000 images``.

    Args:
        number: how many.
        one: the noun for one.
        several: the noun for any other number; default ``one`` with an s.
    """
    return f"{number:,} {one if number == 1 else several or f'{one}s'}"


def unknown_name(kind: str, name: object, known: Iterable[str], where: str) -> UnknownNameError:
    """The error for a name that does not exist, with similar names and the names that do."""
    names = list(known)
    if not names:
        return UnknownNameError(f"no {kind} {name!r} in {where}")
    lower = {one.lower(): one for one in reversed(names)}
    close = difflib.get_close_matches(str(name).lower(), lower, n=3, cutoff=0.6)
    similar = [lower[one] for one in close]
    hint = f"; did you mean {' or '.join(map(repr, similar))}?" if similar else ""
    listed = ", ".join(names[:_MOST_NAMES])
    rest = f", ... ({len(names)} in all)" if len(names) > _MOST_NAMES else ""
    return UnknownNameError(
        f"no {kind} {name!r} in {where}{hint or '.'} It has {listed}{rest}".strip()
    )
