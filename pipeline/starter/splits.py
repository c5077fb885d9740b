"""Splits of a data set, such as training and validation, that names of files and folders tell."""

import re
from collections import Counter
from collections.abc import Sequence

from pipeline.errors import counted

_SPLIT = re.compile(
    r"(train|training|val|valid|validation|dev|test|testing|eval)(?=$|[-_.\d])", re.IGNORECASE
)
_FEWEST = 2


def split_notes(names: Sequence[str]) -> list[str]:
    """A note that several splits are read as one, with the setting that reads one of them.

    Args:
        names: names of shards or tables, relative to the place of the source.
    """
    counts: Counter[str] = Counter()
    patterns: dict[str, str] = {}
    for name in names:
        parts = name.split("/")
        for number, part in enumerate(parts):
            split = _SPLIT.match(part)
            if split is not None:
                is_file = number == len(parts) - 1
                counts[split[1]] += 1
                patterns[split[1]] = f"{split[1]}*" if is_file else f"*{part}/*"
                break
    if len(counts) < _FEWEST:
        return []
    listed = ", ".join(f"{split} ({counted(count, 'file')})" for split, count in counts.items())
    first = next(iter(patterns.values()))
    return [f"several splits are read as one: {listed}. source.shards: '{first}' reads one of them"]
