"""Turn the labels of a data set into class queries with valid and distinct names."""

import re
import unicodedata
from collections.abc import Collection, Iterable
from dataclasses import dataclass

LONGEST = 48
_NUMBERED = re.compile(r"^(?:n\d{8}|\d+)[._ -]+(?=[^\W\d_])")
_WORDLESS = re.compile(r"n\d{8}|[\W\d_]+")


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
