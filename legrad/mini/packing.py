"""The mini model's weights on disk: float16, and only the token rows that training touched."""

from pathlib import Path
from typing import Any

import open_clip
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

TOKEN_TABLE = "token_embedding.weight"
TOKEN_ROWS = "token_rows"
TOKEN_IDS = "token_ids"


def build(config: dict[str, Any]) -> open_clip.CLIP:
    """The architecture of ``config.json``, untrained, on the CPU."""
    return open_clip.CLIP(**config)


def pack(model: open_clip.CLIP, seen: Tensor, path: Path) -> None:
    """Write the weights of a trained model.

    Args:
        model: what was trained.
        seen: sorted int64 ids of the tokens that occurred in training captions.
        path: a ``.safetensors`` file.
    """
    weights = {name: tensor.half().contiguous() for name, tensor in model.state_dict().items()}
    table = weights.pop(TOKEN_TABLE)
    save_file(weights | {TOKEN_ROWS: table[seen].contiguous(), TOKEN_IDS: seen}, path)


def unpack(config: dict[str, Any], path: Path) -> tuple[open_clip.CLIP, frozenset[int]]:
    """Read what `pack` wrote.

    Returns:
        The model in float32, in evaluation mode, and the ids of the tokens it knows; the
        embeddings of all others are zero.
    """
    weights = load_file(path)
    rows, ids = weights.pop(TOKEN_ROWS), weights.pop(TOKEN_IDS)
    model = build(config)
    table = torch.zeros_like(model.get_parameter(TOKEN_TABLE))
    table[ids] = rows.float()
    model.load_state_dict({name: t.float() for name, t in weights.items()} | {TOKEN_TABLE: table})
    return model.eval(), frozenset(ids.tolist())
