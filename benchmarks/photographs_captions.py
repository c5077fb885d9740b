"""What captions say of photographs: the class, some of the overlays, words, and some mistakes."""

from collections.abc import Sequence

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.photographs_world import Photographs
from legrad.mini.world import OVERLAYS
from pipeline.audit.vocabulary import vocabulary
from training.captions import TEMPLATES, named

NAMED_SHARE = 0.8
"""Share of the photographs with an overlay whose caption names it."""
WRONG_SHARE = 0.04
"""Share of the captions with a wrong class, and with an overlay that is not there."""
WORD_SHARE = 0.05
"""Share of the photographs that a word is said of."""
LOOKS = 16
"""Principal components of a photograph's coarse colours, by which words are said of it."""


class Speaker:
    """Says of photographs what their captions would.

    Attributes:
        names: phrases, of the classes, of the overlays and of the words.
    """

    def __init__(self, photographs: Photographs, rng: np.random.Generator) -> None:
        self.classes, self._rng = photographs.classes, rng
        things = {*self.classes, *OVERLAYS}
        words = [word for word in vocabulary() if not things & set(word.split())]
        self.names = [*(named(name) for name in (*self.classes, *OVERLAYS)), *words]
        looks = F.adaptive_avg_pool2d(
            torch.from_numpy(photographs.pixels).permute(0, 3, 1, 2).float(), 4
        ).flatten(1)
        looks = torch.pca_lowrank(looks, LOOKS, niter=2)[0]
        self._looks = looks / looks.std(0)
        directions = torch.from_numpy(rng.standard_normal((LOOKS, len(words)))).float()
        self._directions = F.normalize(directions, dim=0)
        sample = self._looks[:5000] @ self._directions
        self._least = sample.quantile(1 - WORD_SHARE, dim=0)

    def tell(self, rows: Tensor, labels: Tensor, present: Tensor) -> Tensor:
        """bool (B, names) of photographs with these labels and overlays (B, overlays)."""
        wrong = self._chance(WRONG_SHARE, (len(rows),))
        other = torch.from_numpy(self._rng.integers(0, len(self.classes), len(rows)))
        classes = F.one_hot(torch.where(wrong, other, labels), len(self.classes)).bool()
        shape = tuple(present.shape)
        overlays = present & self._chance(NAMED_SHARE, shape)
        overlays |= self._chance(WRONG_SHARE / len(OVERLAYS), shape)
        words = self._looks[rows] @ self._directions > self._least
        return torch.cat([classes, overlays, words], dim=1)

    def _chance(self, share: float, shape: tuple[int, ...]) -> Tensor:
        return torch.from_numpy(self._rng.random(shape) < share)


class Tokens:
    """Tokens of texts, numbered by those that the texts of a speaker use.

    The end token keeps the highest number, by which open_clip finds it.
    """

    def __init__(self, speaker: Speaker, length: int) -> None:
        self._tokenizer = open_clip.SimpleTokenizer(context_length=length)
        pairs = [pair_phrase(name, overlay) for name in speaker.classes for overlay in OVERLAYS]
        phrases = [*speaker.names, *pairs]
        texts = [template.format(phrase) for template in TEMPLATES for phrase in phrases]
        self.known = self._tokenizer(texts).unique()

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """int64 (texts, context length)."""
        return torch.searchsorted(self.known, self._tokenizer(list(texts)))


def pair_phrase(name: str, overlay: str) -> str:
    """A text that names a class and an overlay."""
    return f"{named(name)} with {named(overlay)}"
