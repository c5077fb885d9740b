"""The interface between the explainer and the two places where LeGrad takes gradients."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from legrad.towers import Block


class Autocast(Protocol):
    """Makes the context a forward pass runs in."""

    def __call__(self) -> AbstractContextManager[Any]:
        """A new context."""


@dataclass(frozen=True)
class Asked:
    """What is asked of a batch.

    Attributes:
        directions: (Q, E) in the dtype that maps come in.
        selected: (B, Q) bool, or None for every pair.
        autocast: the model's.
    """

    directions: Tensor
    selected: Tensor | None
    autocast: Autocast


class Relevance(ABC):
    """Runs the explained blocks and adds up the relevance of their patches."""

    @abstractmethod
    def through(
        self, blocks: Sequence[Block], tokens: Tensor, asked: Asked
    ) -> tuple[Tensor, Tensor]:
        """Tokens (B, T, D) through the explained blocks.

        Returns:
            the tokens that leave the last one, and (B, Q, n) relevance summed over blocks; zero
            where none was asked for.
        """
