"""What goes wrong when results are read, in words."""

import difflib
from collections.abc import Iterable

_MOST_NAMES = 30


class UnknownNameError(KeyError):
    """A query, column or image that the results do not have.

    A KeyError whose text is shown as it is, without quotes around it.
    """

    def __str__(self) -> str:
        return str(self.args[0])


def unknown(kind: str, name: object, known: Iterable[str], where: str) -> UnknownNameError:
    """The error for a name that is not there: what is near it, and what there is."""
    names = list(known)
    near = difflib.get_close_matches(str(name), names, n=3, cutoff=0.6)
    hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
    shown = ", ".join(names[:_MOST_NAMES])
    rest = f", ... ({len(names)} in all)" if len(names) > _MOST_NAMES else ""
    return UnknownNameError(
        f"no {kind} {name!r} in {where}{hint or '.'} It has {shown}{rest}".strip()
    )
