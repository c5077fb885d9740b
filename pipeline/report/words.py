"""Findings in plain words, and numbers as people write them."""

import math
import re
import unicodedata
from collections.abc import Mapping
from typing import Any

_MOST_ODDS = 1000.0
CLAIM_NAMES = {
    "association": "comes together in the data",
    "clip_reliance": "the vision-language model looks at it",
    "probe_reliance": "a linear model trained on these labels uses it",
}
STATES = ("flagged", "not flagged", "not measured")


def sentence(row: Mapping[str, Any], cue: str) -> str:
    """One finding as a colleague would say it."""
    share, other = row["share"], row["share_elsewhere"]
    if not _finite(share) or not _finite(other):
        return f"Whether images of “{row['class']}” have “{cue}” could not be measured."
    return (
        f"{percent(share)} of the “{row['class']}” images have “{cue}”; of all other images, "
        f"{percent(other)} do."
    )


def state(row: Mapping[str, Any], claim: str) -> str:
    """``flagged``, ``not flagged`` or ``not measured``."""
    if bool(row.get(f"{claim}__flag")):
        return STATES[0]
    return STATES[1] if _finite(row.get(f"{claim}__effect")) else STATES[2]


def percent(value: Any) -> str:
    """A share."""
    if not _finite(value):
        return "n/a"
    return "<1 %" if 0 < value < 0.005 else f"{value:.0%}".replace("%", " %")


def odds(value: Any) -> str:
    """An odds ratio."""
    if not _finite(value):
        return "n/a"
    if value >= _MOST_ODDS:
        return f">{_MOST_ODDS:.0f}"
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}"


def plain(value: Any) -> str:
    """Any other number, three digits."""
    return f"{value:.3g}" if _finite(value) else "n/a"


def chance(value: Any) -> str:
    """A p or q value."""
    if not _finite(value):
        return "n/a"
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def slug(number: int, *names: str) -> str:
    """A file name of a page: safe on every file system, unique by its number."""
    folded = unicodedata.normalize("NFKD", " ".join(names)).encode("ascii", "ignore").decode()
    words = re.sub(r"[^a-z0-9]+", "-", folded.lower()).strip("-")[:40].strip("-")
    return f"{number:04d}-{words}" if words else f"{number:04d}"


def _finite(value: Any) -> bool:
    return isinstance(value, float | int) and math.isfinite(value)
