"""Names of a classifier's classes: from a list, a file, a folder of class folders, or a mapping."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from legrad.models.files import fetch

Names = Sequence[str] | str
"""Names in the order of the logits, or where they are listed."""


def read_names(names: Names) -> tuple[str, ...]:
    """Names of the classes in the order of the logits.

    Args:
        names: the names; a text file with one name a line; a JSON file with a list, or with a
            mapping of index to name or name to index; or a folder with one folder per class, whose
            names are sorted as torchvision's ``ImageFolder`` and timm's readers sort them.

    Raises:
        FileNotFoundError: there is no such file or folder.
        ValueError: it holds no names, a name twice, or indices that do not count from 0.
    """
    if not isinstance(names, str):
        return names_from(list(names), "classes")
    folder = Path(names).expanduser()
    if folder.is_dir():
        return names_from(sorted(p.name for p in folder.iterdir() if p.is_dir()), names)
    path = fetch(str(folder) if names.startswith("~") else names, "list of classes")
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".json":
        return names_from([line.strip() for line in text.splitlines() if line.strip()], names)
    try:
        content = json.loads(text)
    except ValueError as error:
        raise ValueError(f"classes {names}: not a JSON file: {error}") from error
    return names_from(content, names)


def names_from(values: Any, where: str) -> tuple[str, ...]:
    """Names from a sequence, or from a mapping of index to name or name to index.

    Args:
        values: the sequence or mapping.
        where: source of the values, for messages.

    Raises:
        ValueError: as for `read_names`.
    """
    if isinstance(values, Mapping):
        pairs = list(values.items())
        if all(isinstance(value, int) for _, value in pairs):
            pairs = [(index, name) for name, index in pairs]
        try:
            by_index = {int(index): name for index, name in pairs}
        except (TypeError, ValueError):
            by_index = {}
        if sorted(by_index) != list(range(len(values))):
            raise ValueError(
                f"classes in {where}: expected one name for each index from 0, found "
                f"{dict(pairs[:3])}"
            )
        values = [by_index[index] for index in range(len(by_index))]
    names = tuple(map(str, values)) if isinstance(values, Sequence) else ()
    twice = sorted({name for name in names if names.count(name) > 1})
    if not names or isinstance(values, str) or twice:
        reason = f"{', '.join(twice[:3])} twice" if twice else f"{type(values).__name__}"
        raise ValueError(f"classes in {where}: expected different names, found {reason}")
    return names
