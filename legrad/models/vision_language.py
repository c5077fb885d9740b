"""An open_clip model with its preprocessing, tokenizer and tower adapter."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from torch import Tensor

from legrad.models.vision_model import VisionModel
from legrad.towers import Tower, tower_of

Tokenizer = Callable[[list[str]], Tensor]
_SPECIAL_TOKENS = 2
"""How many CLIP's tokenizer adds: start and end."""


@dataclass(frozen=True, kw_only=True)
class VisionLanguageModel(VisionModel):
    """An open_clip model, its preprocessing and its tokenizer; the module is never changed.

    Attributes:
        known_tokens: ids of the tokens that occurred in training, if known; texts with other
            tokens give a warning.
        make_tokenizer: called when the first text is encoded.
    """

    mean: tuple[float, float, float] = OPENAI_DATASET_MEAN
    std: tuple[float, float, float] = OPENAI_DATASET_STD
    known_tokens: frozenset[int] | None = None
    make_tokenizer: Callable[[], Tokenizer] = field(default=open_clip.SimpleTokenizer, repr=False)

    @cached_property
    def tower(self) -> Tower:
        """The adapter through which LeGrad reads the vision tower."""
        return tower_of(self.model.get_submodule("visual"))

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The model's own tokenizer: list of N strings -> (N, context) int64."""
        return self.make_tokenizer()

    @property
    def logit(self) -> dict[str, float | None]:
        """Scale and bias that turn a score, a cosine, into the model's logit: scale * score + bias.

        SigLIP has a bias, CLIP has none (None).
        """
        scale = getattr(self.model, "logit_scale", None)
        bias = getattr(self.model, "logit_bias", None)
        return {
            "scale": None if scale is None else float(scale.detach().double().exp().mean()),
            "bias": None if bias is None else float(bias.detach().double().mean()),
        }

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Texts -> (Q, E) unit rows on the model's device.

        Warns:
            UserWarning: a text has more tokens than the model reads, so that its end is cut off, or
                words that did not occur in training (mini model only).
        """
        if isinstance(texts, str):
            raise TypeError("encode_text takes a list of texts, not one string")
        tokens = self.tokenizer(list(texts))
        self._warn_cut(texts, tokens.shape[1])
        self._warn_unknown(texts, tokens)
        encode: Callable[[Tensor], Tensor] = self.model.get_submodule("").encode_text  # type: ignore[assignment]
        with torch.no_grad(), self.autocast():
            features = encode(tokens.to(self.device))
        return F.normalize(features.to(self.exact_dtype), dim=-1)

    def _warn_cut(self, texts: Sequence[str], context: int) -> None:
        cut = cut_texts(self.tokenizer, texts, context)
        if cut:
            warnings.warn(
                f"model {self.name!r} reads {context} tokens of a text, and the end is cut off of: "
                f"{', '.join(map(repr, cut))}",
                stacklevel=3,
            )

    def _warn_unknown(self, texts: Sequence[str], tokens: Tensor) -> None:
        if self.known_tokens is None:
            return
        unknown = [
            text
            for text, row in zip(texts, tokens.tolist(), strict=True)
            if not self.known_tokens.issuperset(row)
        ]
        if unknown:
            warnings.warn(
                f"model {self.name!r} never saw some words of: {', '.join(map(repr, unknown))}. "
                "Their scores and maps mean nothing.",
                stacklevel=3,
            )


def cut_texts(tokenizer: Callable[..., Any], texts: Sequence[str], context: int) -> list[str]:
    """The texts that have more tokens than the model reads, so that their end is cut off.

    Args:
        tokenizer: a tokenizer of open_clip. Of others the length of a text is unknown, and no text
            is returned.
        texts: the texts to encode.
        context: number of tokens that the model reads, the special ones included.
    """
    # a token stands for at least one byte, so short texts need not be encoded twice
    long = [text for text in texts if len(text.encode()) + _SPECIAL_TOKENS > context]
    return [text for text in long if (_length(tokenizer, text) or 0) > context]


def _length(tokenizer: Any, text: str) -> int | None:
    """Number of tokens of a text with its special ones, uncut; None if unknown."""
    if isinstance(tokenizer, open_clip.SimpleTokenizer):
        return len(tokenizer.encode(text)) + _SPECIAL_TOKENS
    inner, clean = getattr(tokenizer, "tokenizer", None), getattr(tokenizer, "clean_fn", None)
    if inner is None or clean is None:
        return None
    if getattr(tokenizer, "tokenizer_mode", "") == "clips":  # a class token comes at the end
        return len(inner(clean(text), add_special_tokens=False)["input_ids"]) + 3
    return len(inner(clean(text))["input_ids"])
