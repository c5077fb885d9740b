"""Findings as sentences, and numbers as text for people."""

import hashlib
import math
import re
import unicodedata
from collections.abc import Mapping
from typing import Any

from pipeline.audit.ranking import NO_CLASSIFIER, NOT_ASKED
from pipeline.discovery.words import WITHOUT_WORD

_MOST_ODDS = 1000.0
CLAIM_NAMES = {
    "association": "comes together in the data",
    "clip_reliance": "the vision-language model looks at it",
    "probe_reliance": "a linear model trained on these labels uses it",
    "model_reliance": "your classifier uses it",
}
SHORT_NAMES = {
    "association": "together in the data",
    "clip_reliance": "the model looks at it",
    "probe_reliance": "a linear model uses it",
    "model_reliance": "your classifier uses it",
}
_PREFIX = re.compile(r"^not (measured|testable|tested): ")


def sentence(row: Mapping[str, Any], cue: str) -> str:
    """A finding as a sentence."""
    share, other = row["share"], row["share_elsewhere"]
    if not _finite(share) or not _finite(other):
        return f"Whether images of “{row['class']}” have “{cue}” could not be measured."
    return (
        f"{percent(share)} of the “{row['class']}” images have “{cue}”; of all other images, "
        f"{percent(other)} do."
    )


def exact_sentence(row: Mapping[str, Any]) -> str:
    """A finding about a property that needs no model, as a sentence."""
    name = str(row["cue"]).removeprefix("property__").replace("_", " ")
    if _finite(row["share"]):
        what = {"greyness": "grey", "uniform frame": "framed in one colour", "jpeg": "JPEG files"}
        return (
            f"{percent(row['share'])} of the “{row['class']}” images are {what.get(name, name)}; "
            f"of all other images, {percent(row['share_elsewhere'])} are."
        )
    return (
        f"“{row['class']}” images have {row['direction']} {name}: median {row['median']:.3g}, of "
        f"all other images {row['median_elsewhere']:.3g}."
    )


def state(row: Mapping[str, Any], claim: str) -> str:
    """``flagged``, ``not flagged``, or why it is unknown: not asked for, not measured, ..."""
    if bool(row.get(f"{claim}__flag")):
        return "flagged"
    if _finite(row.get(f"{claim}__effect")):
        return "not flagged"
    reason = str(row.get(f"{claim}__reason"))
    if reason in (NOT_ASKED, NO_CLASSIFIER):
        return "not asked for"
    prefix = _PREFIX.match(reason)
    return f"not {prefix[1]}" if prefix else "not measured"


def why(row: Mapping[str, Any], claim: str) -> str:
    """Why a claim is not flagged, without the words that its state repeats."""
    reason = row.get(f"{claim}__reason")
    return _PREFIX.sub("", reason) if isinstance(reason, str) else ""


def amount(value: Any, claim: str) -> str:
    """The effect of a claim, in the claim's unit."""
    if claim in ("probe_reliance", "model_reliance"):
        return percent(value)
    return signed(value, 1) if claim == "clip_reliance" else odds(value)


def unit(row: Mapping[str, Any], claim: str) -> str:
    """The unit of a claim's effect."""
    shares = {
        "probe_reliance": "of the probe's evidence",
        "model_reliance": "of your classifier's logits",
    }
    if claim in shares:
        rival = row.get(f"{claim}__rival")
        against = f" against “{rival}”" if isinstance(rival, str) and rival else ""
        return f"{shares[claim]}{against}"
    return "sd of its text margin lost" if claim == "clip_reliance" else "odds ratio"


def percent(value: Any) -> str:
    """A share as a percentage."""
    if not _finite(value):
        return "n/a"
    return "<1\u00a0%" if 0 < value < 0.005 else f"{value:.0%}".replace("%", "\u00a0%")


def odds(value: Any) -> str:
    """An odds ratio."""
    if not _finite(value):
        return "n/a"
    if value >= _MOST_ODDS:
        return f">{_MOST_ODDS:.0f}"
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}"


def signed(value: Any, digits: int = 2) -> str:
    """A number with its sign; without one if it rounds to zero."""
    if not _finite(value):
        return "n/a"
    return f"{value:+.{digits}f}" if round(value, digits) else f"{0:.{digits}f}"


def points(value: Any) -> str:
    """A change as a percentage, with its sign."""
    return f"{round(value, 2) + 0.0:+.0%}" if _finite(value) else "n/a"


def score(value: Any) -> str:
    """A cosine."""
    return f"{value:.2f}" if _finite(value) else "n/a"


def chance(value: Any) -> str:
    """A p or q value."""
    if not _finite(value):
        return "n/a"
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def slug(*names: str) -> str:
    """A file name for a page: safe on every file system, and the same in every report.

    Names that look alike without accents and signs differ by a checksum of the names.
    """
    folded = unicodedata.normalize("NFKD", " ".join(names)).encode("ascii", "ignore").decode()
    words = re.sub(r"[^a-z0-9]+", "-", folded.lower()).strip("-")[:40].strip("-")
    whole = "\0".join(names).encode("utf-8", "surrogatepass")
    return f"{words}-{hashlib.blake2b(whole, digest_size=4).hexdigest()}".lstrip("-")


def _finite(value: Any) -> bool:
    return isinstance(value, float | int) and math.isfinite(value)


def word_of(row: Mapping[str, Any]) -> str:
    """A candidate of a discovery: its word, or the word nearest to a thing without one."""
    if row["kind"] == "part":
        return f"{row['word']} (a part)"
    if row["kind"] in WITHOUT_WORD:
        nearest = str(row["also"]).partition("), ")[0].rstrip(")")
        return f"{row['word']}, like {nearest})"
    return str(row["word"])
