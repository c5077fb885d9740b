"""The embedded mini model, ready to use."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD

from legrad.mini import CARD, CONFIG, FOLDER, WEIGHTS
from legrad.mini.packing import unpack


@dataclass(frozen=True)
class MiniModel:
    """What `load` returns.

    Attributes:
        model: the open_clip module, float32, on the CPU, in evaluation mode.
        tokenizer: open_clip's, with the model's context length.
        known_tokens: ids of the tokens that occurred in training.
        default_layers: how many last blocks ground best, by the card.
        mean, std: the normalisation it was trained with.
        card: figures and training record.
    """

    model: open_clip.CLIP
    tokenizer: open_clip.SimpleTokenizer
    known_tokens: frozenset[int]
    default_layers: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    card: dict[str, Any]


def load(folder: Path = FOLDER) -> MiniModel:
    """Read configuration, weights and card.

    Args:
        folder: where `training.train` wrote them; default: the shipped ones.

    Raises:
        FileNotFoundError: one of the three files is not there.
    """
    config = json.loads((folder / CONFIG).read_text())
    card = json.loads((folder / CARD).read_text())
    model, known = unpack(config, folder / WEIGHTS)
    return MiniModel(
        model=model,
        tokenizer=open_clip.SimpleTokenizer(context_length=config["text_cfg"]["context_length"]),
        known_tokens=known,
        default_layers=card["default_layers"],
        mean=OPENAI_DATASET_MEAN,
        std=OPENAI_DATASET_STD,
        card=card,
    )
