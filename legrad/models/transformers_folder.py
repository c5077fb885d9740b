"""Read a folder that the package transformers wrote, as an open_clip model config.

Covered are ``CLIPModel``, ``SiglipModel`` and ``Siglip2Model``. open_clip's own form of a config
says all of it but the sizes of a SigLIP vision tower, which it takes from a timm name; they are
given as `TIMM_SETTINGS`, which `legrad.models.weights` reads. Nothing here imports torch.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from legrad.errors import UnsupportedModelError

CONFIG = "config.json"
TIMM_SETTINGS = "timm_settings"
"""Key of ``vision_cfg``: arguments of timm's ``VisionTransformer``, by their names there."""
CLASSES = {"clip": "CLIPModel", "siglip": "SiglipModel", "siglip2": "Siglip2Model"}
_PREPROCESSING = ("preprocessor_config.json", "processor_config.json")
ACTIVATIONS = {"gelu": "gelu", "gelu_pytorch_tanh": "gelu_tanh", "quick_gelu": "quick_gelu"}
INTERPOLATIONS = {2: "bilinear", 3: "bicubic"}
_CLIP_PIXELS = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
_SIGLIP_PIXELS = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
_TOKENIZERS = {
    "siglip": "google/siglip-base-patch16-224",
    "siglip2": "google/siglip2-base-patch16-224",
}
OWN_TOKENIZER = "the model's own"
"""Name of a tokenizer that only the folder itself can hold."""
_CLIP_SIZE = 49408
_CLIP_WORDS = "ee7a4423aea96d705babd8004aa41e3696ffd366e5d8f3227d4fa057768d60e0"
"""SHA-256 (hex) of CLIP's vocabulary but for its two special tokens, a token a line."""

Config = Mapping[str, Any]


def read_folder(name: str, folder: Path, data: Config) -> tuple[dict[str, Any], dict[str, Any]]:
    """open_clip's model config and preprocessing of a folder.

    Args:
        name: how the user named the model, for messages.
        folder: the folder.
        data: content of its ``config.json``.

    Raises:
        UnsupportedModelError: it is of another class than those in `CLASSES`, or has a part that
            open_clip's towers do not have.
    """
    kind, classes = data.get("model_type"), data.get("architectures") or []
    if kind not in CLASSES or (classes and classes[0] != CLASSES[kind]):
        written = classes[0] if classes else f"model_type {kind!r}"
        raise UnsupportedModelError(
            f"model {name}: its {CONFIG} is of {written}; of folders of the package transformers "
            f"{', '.join(CLASSES.values())} are supported, with image and text tower"
        )
    vision = VISION_DEFAULTS[kind] | _given(data, "vision_config")
    text = _TEXT_DEFAULTS[kind] | _given(data, "text_config")
    for tower in (vision, text):
        if tower["hidden_act"] not in ACTIVATIONS:
            raise UnsupportedModelError(
                f"model {name}: activation {tower['hidden_act']!r}: expected one of "
                f"{', '.join(ACTIVATIONS)}"
            )
    if kind == "clip":
        config = _clip(name, data.get("projection_dim", 512), vision, text)
    else:
        config = _siglip(name, vision, text)
    tokenizer = _TOKENIZERS.get(kind) or _other_tokenizer(folder, text["vocab_size"])
    if tokenizer:
        config["text_cfg"]["hf_tokenizer_name"] = tokenizer
    return config, _preprocessing(kind, folder)


_CLIP_TOWER = {
    "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5, "num_hidden_layers": 12,
}  # fmt: skip
_SIGLIP_TOWER = {
    "hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6, "num_hidden_layers": 12,
    "hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12,
}  # fmt: skip
_SIGLIP_TEXT = _SIGLIP_TOWER | {"vocab_size": 32000, "max_position_embeddings": 64}
VISION_DEFAULTS: dict[str, dict[str, Any]] = {
    "clip": _CLIP_TOWER | {
        "hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12,
        "patch_size": 32, "image_size": 224,
    },
    "siglip": _SIGLIP_TOWER | {"patch_size": 16, "image_size": 224},
    "siglip2": _SIGLIP_TOWER | {"patch_size": 16, "num_patches": 256},
}  # fmt: skip
_TEXT_DEFAULTS: dict[str, dict[str, Any]] = {
    "clip": _CLIP_TOWER | {
        "hidden_size": 512, "intermediate_size": 2048, "num_attention_heads": 8,
        "vocab_size": 49408, "max_position_embeddings": 77, "eos_token_id": 49407,
    },
    "siglip": _SIGLIP_TEXT,
    "siglip2": _SIGLIP_TEXT,
}  # fmt: skip
"""What transformers assumes where a ``config.json`` leaves a key out."""


def _given(data: Config, key: str) -> dict[str, Any]:
    """Settings of a tower; old files have them a second time, which transformers prefers."""
    older = data.get(f"{key}_dict")
    return dict((data.get(key) if older is None else older) or {})


def _clip(name: str, embed_dim: int, vision: Config, text: Config) -> dict[str, Any]:
    activation = vision["hidden_act"]
    if activation != text["hidden_act"]:
        raise UnsupportedModelError(
            f"model {name}: its towers have different activations ({activation}, "
            f"{text['hidden_act']}), which open_clip's CLIP cannot have"
        )
    end, words = text["eos_token_id"], text["vocab_size"]
    pool = {"pool_type": "eos", "eos_id": end}
    if end in (2, words - 1):  # 2: a historic error of such files, which transformers knows, too
        pool = {"pool_type": "argmax"}
    return {
        "embed_dim": embed_dim,
        "quick_gelu": activation == "quick_gelu",
        "vision_cfg": {
            "image_size": vision["image_size"],
            "patch_size": vision["patch_size"],
            "head_width": vision["hidden_size"] // vision["num_attention_heads"],
            **_tower(vision),
        },
        "text_cfg": {"heads": text["num_attention_heads"], **_tower(text), **_words(text), **pool},
    }


def _siglip(name: str, vision: Config, text: Config) -> dict[str, Any]:
    if not vision.get("vision_use_head", True):
        raise UnsupportedModelError(f"model {name}: its image tower has no pooling head")
    side = vision.get("image_size") or math.isqrt(vision["num_patches"]) * vision["patch_size"]
    width = vision["hidden_size"]
    projected = text.get("projection_size") or text["hidden_size"]
    if projected != width:
        raise UnsupportedModelError(
            f"model {name}: its texts have {projected} values and its images {width}: expected as "
            "many"
        )
    return {
        "embed_dim": width,
        "quick_gelu": text["hidden_act"] == "quick_gelu",
        "init_logit_bias": -10,
        "custom_text": True,
        "vision_cfg": {
            "image_size": side,
            "timm_model_name": "vit_base_patch16_siglip_224",
            "timm_pool": "map",
            "timm_proj": "none",
            TIMM_SETTINGS: {
                "img_size": side,
                "patch_size": vision["patch_size"],
                "embed_dim": width,
                "depth": vision["num_hidden_layers"],
                "num_heads": vision["num_attention_heads"],
                "mlp_ratio": mlp_ratio(vision),
                "act_layer": ACTIVATIONS[vision["hidden_act"]],
                "eps": vision["layer_norm_eps"],
            },
        },
        "text_cfg": {
            "heads": text["num_attention_heads"],
            **_tower(text),
            **_words(text),
            "no_causal_mask": True,
            "proj_bias": True,
            "pool_type": "last",
            "tokenizer_kwargs": {"clean": "canonicalize"},
        },
    }


def _tower(tower: Config) -> dict[str, Any]:
    """What a tower of open_clip's own has in ``vision_cfg`` and in ``text_cfg``."""
    tanh = {"act_kwargs": {"approximate": "tanh"}}
    return {
        "width": tower["hidden_size"],
        "layers": tower["num_hidden_layers"],
        "mlp_ratio": mlp_ratio(tower),
        "norm_kwargs": {"eps": tower["layer_norm_eps"]},
        **(tanh if tower["hidden_act"] == "gelu_pytorch_tanh" else {}),
    }


def _words(text: Config) -> dict[str, Any]:
    return {"vocab_size": text["vocab_size"], "context_length": text["max_position_embeddings"]}


def mlp_ratio(tower: Config) -> float:
    """Width of the MLP by width of the tower, such that rounding down gives whole channels."""
    width, hidden = int(tower["hidden_size"]), int(tower["intermediate_size"])
    return hidden // width if hidden % width == 0 else (hidden + 0.5) / width


def _preprocessing(kind: str, folder: Path) -> dict[str, Any]:
    """How the folder's image processor normalises pixels; else the default of its class."""
    said = image_processor(folder)
    mean, std = _CLIP_PIXELS if kind == "clip" else _SIGLIP_PIXELS
    if said.get("do_normalize") is False:
        mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
        said = {}
    default = "bilinear" if kind == "siglip2" else "bicubic"
    return {
        "mean": list(said.get("image_mean") or mean),
        "std": list(said.get("image_std") or std),
        "interpolation": INTERPOLATIONS.get(said.get("resample", -1), default),
    }


def image_processor(folder: Path) -> dict[str, Any]:
    """What the folder's image processor says; empty if it has none."""
    for file in _PREPROCESSING:
        if (folder / file).is_file():
            content = json.loads((folder / file).read_text(encoding="utf-8"))
            return dict(content.get("image_processor", content))
    return {}


def _other_tokenizer(folder: Path, size: int) -> str | None:
    """`OWN_TOKENIZER`, unless the vocabulary is CLIP's, for which open_clip has a tokenizer."""
    words: dict[str, int] = {}
    if (folder / "vocab.json").is_file():
        words = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    elif (folder / "tokenizer.json").is_file():
        content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
        words = content["model"]["vocab"]
    if not words:
        return None if size == _CLIP_SIZE else OWN_TOKENIZER
    listed = "\n".join(sorted(words, key=lambda word: words[word])[:-2])
    return None if hashlib.sha256(listed.encode()).hexdigest() == _CLIP_WORDS else OWN_TOKENIZER
