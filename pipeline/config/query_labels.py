"""Class queries and labels: names for the queries, their labels, and labels that no image has."""

import re
import unicodedata
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from legrad.queries.query import Query, Role
from pipeline.errors import counted

_LISTED = 5
LONGEST = 48  # name of a query
_NUMBERED = re.compile(r"^(?:n\d{8}|\d+)[._ -]+(?=[^\W\d_])")
_WORDLESS = re.compile(r"n\d{8}|[\W\d_]+")


def queries_by_label(queries: Sequence[Query]) -> dict[str, str]:
    """Map each label of the data set to the name of its class query, the first one if several."""
    pairs = [(q.label, q.name) for q in queries if q.role is Role.CLASS and q.label]
    return dict(reversed(pairs))


def unmatched_labels(
    queries: Sequence[Query], labels: Collection[str], scope: str = ""
) -> tuple[str, ...]:
    """A note on the class queries whose label no image has; none if every label occurs.

    Args:
        queries: queries of a run.
        labels: the labels that images have.
        scope: the images that were looked at, in words; empty if they are all.
    """
    classes = queries_by_label(queries)
    missing = {label: name for label, name in reversed(classes.items()) if label not in labels}
    if not missing:
        return ()
    nobody = f"none of {scope}" if scope else "no image"
    if not labels:
        unused = _listed(missing.values())
        return (f"{nobody} has a label, so no class query ({unused}) is used",)
    by_letters = {_letters(label): label for label in labels if label not in classes}
    wrong = []
    for label, name in missing.items():
        meant = by_letters.get(_letters(label))
        wrong.append(f"{name} ({label!r}{f'; did you mean {meant!r}?' if meant else ''})")
    return (
        f"{nobody} has the label of {counted(len(missing), 'class query', 'class queries')}: "
        f"{_listed(wrong)}. Labels of the images: {_listed(sorted(labels))}. A query names its "
        "label in `label:`",
    )


def _letters(label: str) -> str:
    return "".join(filter(str.isalnum, label.casefold()))


def _listed(texts: Collection[str]) -> str:
    shown = ", ".join(list(texts)[:_LISTED])
    return shown if len(texts) <= _LISTED else f"{shown} and {len(texts) - _LISTED:,} more"


@dataclass(frozen=True)
class ClassQuery:
    """A class query for a label.

    Attributes:
        name: name of the query, valid as a suffix of columns.
        label: label in the data.
        text: prompt, without templates.
        guessed: whether the label is only a number, so that the user has to write the text.
    """

    name: str
    label: str
    text: str
    guessed: bool


def class_queries(
    labels: Iterable[str], taken: Collection[str], prefix: str = ""
) -> list[ClassQuery]:
    """Class queries for labels.

    Args:
        labels: labels in the data.
        taken: names that other queries or columns have.
        prefix: beginning of the names.
    """
    used, queries = set(taken), []
    for label in labels:
        words = " ".join(_NUMBERED.sub("", label).replace("_", " ").replace("-", " ").split())
        guessed = _WORDLESS.fullmatch(label) is not None
        text = f"class {label}" if guessed else words
        name = _unused((prefix + _slug(text))[:LONGEST].rstrip("_"), used)
        used.add(name)
        queries.append(ClassQuery(name, label, text, guessed))
    return queries


def _slug(text: str) -> str:
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    slug = re.sub(r"[^a-z0-9]+", "_", plain).strip("_")
    if not re.match("[a-z]", slug):
        slug = f"class_{slug}".rstrip("_")
    return slug[:LONGEST].rstrip("_")


def _unused(name: str, used: Collection[str]) -> str:
    candidate, number = name, 1
    while candidate in used:
        number += 1
        ending = f"_{number}"
        candidate = f"{name[: LONGEST - len(ending)].rstrip('_')}{ending}"
    return candidate
