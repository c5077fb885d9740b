"""Which (image, query) pairs get a map: all, or classes chosen by label, rank or score."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    from torch import Tensor

    from legrad.method.explainer import Select

MapsMode = Literal["all", "own_label", "own_labels", "top_k", "predicted", "above"]
Label = str | Sequence[str] | None
"""The label of an image, or all of its labels."""
MAPS_MODES: tuple[str, ...] = get_args(MapsMode)


@dataclass(frozen=True)
class Selection:
    """A rule for the queries that are classes; all other queries always get maps.

    Attributes:
        mode: ``all``; ``own_label``: the image's own class, the first one if it has several labels;
            ``own_labels``: the classes of all its labels; ``top_k``: the ``k`` classes with the
            highest scores; ``predicted``: the class with the highest; ``above``: classes with a
            score of at least ``threshold``.
        classes: (Q,), whether each query is a class.
        labels: label -> index of its class query; used by ``own_label`` and ``own_labels``.
        k: number of classes for ``top_k``.
        threshold: score for ``above``.
    """

    mode: MapsMode = "all"
    classes: tuple[bool, ...] = ()
    labels: Mapping[str, int] = field(default_factory=dict)
    k: int = 1
    threshold: float = 0.0

    def __post_init__(self) -> None:
        if self.mode not in MAPS_MODES:
            raise ValueError(f"maps {self.mode!r}: expected one of {MAPS_MODES}")

    def own(self, labels: Sequence[Label]) -> list[int]:
        """Index of the query of each image's own class, -1 if there is none."""
        return [next(iter(self._queries(label)), -1) for label in labels]

    def select(self, labels: Sequence[Label]) -> "Select | None":
        """The argument ``select`` of `LeGrad.explain` for images with these labels."""
        if self.mode == "all":
            return None
        return self._by_label(labels) if self.mode.startswith("own") else self._by_score

    def _queries(self, label: Label) -> list[int]:
        """Indices of the class queries of an image's labels, in the order of the labels."""
        every = (label,) if isinstance(label, str) else label or ()
        return [self.labels[name] for name in every if name in self.labels]

    def _by_label(self, labels: Sequence[Label]) -> "Tensor":
        import torch

        most = 1 if self.mode == "own_label" else None
        wanted = (~torch.tensor(self.classes)).repeat(len(labels), 1)
        for image, label in enumerate(labels):
            wanted[image, self._queries(label)[:most]] = True
        return wanted

    def _by_score(self, scores: "Tensor") -> "Tensor":
        import torch

        classes = torch.tensor(self.classes, device=scores.device)
        wanted = (~classes).repeat(len(scores), 1)
        if self.mode == "above":
            return wanted | (classes & (scores >= self.threshold))
        best = scores.masked_fill(~classes, -torch.inf)
        count = 1 if self.mode == "predicted" else self.k
        indices = best.topk(min(count, sum(self.classes)), dim=1).indices
        return wanted.scatter_(1, indices, True)
