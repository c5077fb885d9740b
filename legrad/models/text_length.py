"""Find the texts that a model cannot read whole."""

from collections.abc import Callable, Sequence
from typing import Any

import open_clip

_SPECIAL_TOKENS = 2
"""How many CLIP's tokenizer adds: start and end."""


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
