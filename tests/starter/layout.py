"""What generators of data sets share: what is expected, and how files are written."""

import csv
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.data import jpeg

COUNT = 6


@dataclass(frozen=True)
class Expected:
    """What `legrad init` finds in a data set.

    Attributes:
        format: format of the source.
        labels: labels of the images; empty where none is known.
        images: rows that a run reads.
        captions: whether every image has a caption.
        below: what to give to `legrad init`, below the folder of the data set.
        refused: words of the next command, where the data set is refused.
    """

    format: str
    labels: frozenset[str]
    images: int = COUNT
    captions: bool = False
    below: str = ""
    refused: str = ""


Generator = Callable[[Path], Expected]
LAYOUTS: dict[str, Generator] = {}
CATS = frozenset(("cat", "dog"))
NOTHING: frozenset[str] = frozenset()


def layout(generator: Generator) -> Generator:
    """Add a generator to `LAYOUTS`, by its name."""
    LAYOUTS[generator.__name__] = generator
    return generator


def kind(number: int) -> str:
    return ("cat", "dog")[number % 2]


def pictures(folder: Path, names: Iterable[str]) -> None:
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(jpeg(number))


def table(file: Path, rows: Sequence[Sequence[Any]], delimiter: str = ",") -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="") as stream:
        csv.writer(stream, delimiter=delimiter).writerows(rows)
