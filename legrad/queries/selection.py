"""Which (image, query) pairs get a map: all, or classes chosen by label, rank or score."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    from torch import Tensor

    from legrad.method.explainer import Select

MapsMode = Literal["all", "own_label", "top_k", "above"]
MAPS_MODES: tuple[str, ...] = get_args(MapsMode)


@dataclass(frozen=True)
class Selection:
    """A rule for the queries that are classes; all other queries always get maps.

    Attributes:
        mode: ``all``; ``own_label``: the image's own class; ``top_k``: the ``k`` classes with the
            highest scores; ``above``: classes with a score of at least ``threshold``.
        classes: (Q,), whether each query is a class.
        labels: label -> index of its class query; used by ``own_label``.
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

    def own(self, labels: Sequence[str | None]) -> list[int]:
        """Index of the query of each image's own class, -1 if there is none."""
        return [-1 if label is None else self.labels.get(label, -1) for label in labels]

    def select(self, labels: Sequence[str | None]) -> "Select | None":
        """The argument ``select`` of `LeGrad.explain` for images with these labels."""
        if self.mode == "all":
            return None
        return self._by_label(labels) if self.mode == "own_label" else self._by_score

    def _by_label(self, labels: Sequence[str | None]) -> "Tensor":
        import torch

        wanted = (~torch.tensor(self.classes)).repeat(len(labels), 1)
        for image, query in enumerate(self.own(labels)):
            if query >= 0:
                wanted[image, query] = True
        return wanted

    def _by_score(self, scores: "Tensor") -> "Tensor":
        import torch

        classes = torch.tensor(self.classes, device=scores.device)
        wanted = (~classes).repeat(len(scores), 1)
        if self.mode == "above":
            return wanted | (classes & (scores >= self.threshold))
        best = scores.masked_fill(~classes, -torch.inf)
        indices = best.topk(min(self.k, sum(self.classes)), dim=1).indices
        return wanted.scatter_(1, indices, True)
