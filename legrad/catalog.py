"""What an open_clip model name means, read from its config file without importing torch.

Lets a run's settings be checked in a fraction of a second, before any model loads.
"""

import difflib
import json
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from legrad.errors import SUPPORTED_TOWERS, UnsupportedModelError

MINI = "mini"
_CUSTOM_BLOCK_KEYS = (
    "qk_norm",
    "scaled_cosine_attn",
    "scale_heads",
    "scale_attn_inner",
    "scale_attn",
    "scale_fc",
)


@dataclass(frozen=True)
class Architecture:
    """The part of a model's config that settings are checked against.

    Attributes:
        name: open_clip's name of the model, or ``mini``.
        image_size: native input size (height, width) in pixels.
        patch_size: (height, width) of a patch in pixels.
        layers: number of transformer blocks in the vision tower.
    """

    name: str
    image_size: tuple[int, int]
    patch_size: tuple[int, int]
    layers: int


def architecture(name: str) -> Architecture:
    """Look up a model by name.

    Raises:
        UnsupportedModelError: the name is unknown, or names a tower without closed form.
    """
    config = _config(name)
    vision = config["vision_cfg"]
    if config["text_cfg"].get("hf_model_name") and find_spec("transformers") is None:
        raise UnsupportedModelError(
            f"model {name!r} has a text tower of the package transformers: pip install transformers"
        )
    reason = _unsupported(vision)
    if reason:
        raise UnsupportedModelError(f"model {name!r} has {reason}; {SUPPORTED_TOWERS}.")
    return Architecture(
        name=name,
        image_size=_pair(vision.get("image_size", 224)),
        patch_size=_pair(vision.get("patch_size", 16)),
        layers=int(vision.get("layers", 12)),
    )


def _config(name: str) -> dict[str, Any]:
    if name == MINI:
        path = Path(__file__).parent / "mini" / "config.json"
    else:
        known = _config_files()
        if name not in known:
            near = difflib.get_close_matches(name, known, n=3)
            hint = f" Did you mean {', '.join(near)}?" if near else ""
            raise UnsupportedModelError(f"no model is called {name!r} in open_clip.{hint}")
        path = known[name]
    config: dict[str, Any] = json.loads(path.read_text())
    return config


@cache
def _config_files() -> dict[str, Path]:
    spec = find_spec("open_clip")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("open_clip is not installed: pip install open_clip_torch")
    folder = Path(spec.origin).parent / "model_configs"
    return {path.stem: path for path in sorted(folder.glob("*.json"))}


def _unsupported(vision: dict[str, Any]) -> str | None:
    """Why a vision config has no closed form here, or None."""
    if vision.get("timm_model_name"):
        return f"the timm vision tower {vision['timm_model_name']!r}"
    if not isinstance(vision.get("layers", 12), int):
        return "a convolutional vision tower (ResNet)"
    if vision.get("attentional_pool"):
        return "a vision tower with an attentional pooler"
    if vision.get("pool_type", "tok") not in ("tok", "avg"):
        return f"the pooling {vision['pool_type']!r}"
    custom = [key for key in _CUSTOM_BLOCK_KEYS if vision.get(key)]
    if custom or vision.get("block_type") not in (None, "default"):
        return f"custom attention blocks ({', '.join(custom) or vision['block_type']})"
    return None


def _pair(size: int | list[int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
