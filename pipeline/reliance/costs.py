"""What the claims of reliance cost, said before anything is loaded."""

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.reliance.task import PairTask


@dataclass(frozen=True)
class EditCosts:
    """What is to be done.

    Attributes:
        pairs, done: of class and cue; how many of them are there already.
        images: that are read again, those of all pairs that are left together.
        edits: images to embed, at most.
    """

    pairs: int
    done: int
    images: int
    edits: int

    def __str__(self) -> str:
        if not self.pairs:
            return "no pair is flagged for association, so there is nothing to test"
        if self.done == self.pairs:
            return f"{self.pairs} pairs, all of them edited already: only arithmetic is left"
        return (
            f"{self.pairs} pairs, {self.done} edited already; {self.images:,} images to fetch "
            f"again and to explain, at most {self.edits:,} edited "
            "images to embed (a plain forward pass each)"
        )


def costs(left: Sequence[PairTask], pairs: int) -> EditCosts:
    """Of the pairs that are left, of so many."""
    images = sum(len(task.images) + len(task.targets) for task in left)
    return EditCosts(pairs, pairs - len(left), images, sum(task.edits for task in left))
