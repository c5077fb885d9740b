"""Which label of the data each class query stands for, and labels that no image has."""

from collections.abc import Collection, Sequence

from legrad.queries.query import Query, Role
from pipeline.errors import counted

_LISTED = 5


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
