"""Load the embedded mini model, and read and write its weights.

The weights are stored as float16, with the embeddings of only those tokens that training used.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from legrad.mini import CARD, CONFIG, FOLDER, WEIGHTS

TOKEN_TABLE = "token_embedding.weight"
TOKEN_ROWS = "token_rows"
TOKEN_IDS = "token_ids"


@dataclass(frozen=True)
class MiniModel:
    """The mini model, its tokenizer and its card.

    Attributes:
        model: the open_clip module, float32, on the CPU, in evaluation mode.
        tokenizer: open_clip's, with the model's context length.
        known_tokens: ids of the tokens that occurred in training.
        default_layers: how many of the last blocks give the best grounding, from the card.
        card: the measured figures and how the model was trained.
    """

    model: open_clip.CLIP
    tokenizer: open_clip.SimpleTokenizer
    known_tokens: frozenset[int]
    default_layers: int
    card: dict[str, Any]


def load(folder: Path = FOLDER) -> MiniModel:
    """Read configuration, weights and card.

    Args:
        folder: where `training.train` wrote them; default: the model in this package.

    Raises:
        FileNotFoundError: one of the three files is missing.
    """
    config = json.loads((folder / CONFIG).read_text())
    card = json.loads((folder / CARD).read_text())
    model, known_tokens = unpack(config, folder / WEIGHTS)
    return MiniModel(
        model=model,
        tokenizer=open_clip.SimpleTokenizer(context_length=config["text_cfg"]["context_length"]),
        known_tokens=known_tokens,
        default_layers=card["default_layers"],
        card=card,
    )


def pack(model: open_clip.CLIP, known_tokens: Tensor, path: Path) -> None:
    """Write the weights of a trained model.

    Args:
        model: the trained model.
        known_tokens: sorted int64 ids of the tokens that occurred in training captions.
        path: a ``.safetensors`` file.
    """
    weights = {name: tensor.half().contiguous() for name, tensor in model.state_dict().items()}
    table = weights.pop(TOKEN_TABLE)
    save_file(
        weights | {TOKEN_ROWS: table[known_tokens].contiguous(), TOKEN_IDS: known_tokens}, path
    )


def unpack(config: dict[str, Any], path: Path) -> tuple[open_clip.CLIP, frozenset[int]]:
    """Read weights that `pack` wrote.

    Returns:
        The model in float32, in evaluation mode, and the ids of the tokens it knows; the
        embeddings of all others are zero.
    """
    weights = load_file(path)
    rows, ids = weights.pop(TOKEN_ROWS), weights.pop(TOKEN_IDS)
    model = open_clip.CLIP(**config)
    table = torch.zeros_like(model.get_parameter(TOKEN_TABLE))
    table[ids] = rows.float()
    model.load_state_dict({name: t.float() for name, t in weights.items()} | {TOKEN_TABLE: table})
    return model.eval(), frozenset(ids.tolist())
