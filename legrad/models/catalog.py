"""Facts about open_clip models, read from their config files without importing torch.

The settings of a run are checked against them in a fraction of a second, before any model loads.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any

from legrad.errors import SUPPORTED_TOWERS, UnsupportedModelError
from legrad.models.definition import MINI, config_files, define
from legrad.models.timm_figures import TRUNKS, WITHOUT_TOKENS, Trunk
from legrad.models.transformers_folder import TIMM_SETTINGS

MINI_WARNING = (
    "model mini was trained on the demo's drawn scenes only: on other images its scores and maps "
    "mean nothing"
)
TEXT_TOWER = "text tower"
_FOREIGN = {TEXT_TOWER: "hf_model_name", "tokenizer": "hf_tokenizer_name"}
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
        image_size: native input size (height, width) in pixels, cut to whole patches.
        patch_size: (height, width) of a patch in pixels.
        layers: number of transformer blocks in the vision tower.
        width: width of the vision tower.
        embed_dim: width of the embedding that images and texts share.
        family: ``CLIP`` (class token), ``CLIPA`` (average of the patches), ``CoCa``, ``SigLIP`` (1
            and 2), ``PE-Core``, ``EVA`` (01 and 02), ``MobileCLIP``, ``ViT`` (timm's), ``mini``.
        parameters: number of parameters of both towers; None where only building the model tells.
    """

    name: str
    image_size: tuple[int, int]
    patch_size: tuple[int, int]
    layers: int
    width: int
    embed_dim: int
    family: str
    parameters: int | None


@dataclass(frozen=True)
class ListedModel(Architecture):
    """An architecture and open_clip's tags of its published weights."""

    tags: tuple[str, ...]


def list_models(*, untagged: bool = False) -> list[ListedModel]:
    """Every model that `load_model` loads and LeGrad explains, ``mini`` first, then by name.

    Args:
        untagged: whether to include architectures without published weights, which need a
            weights file.
    """
    import open_clip  # imports torch, which checking settings must not

    listed = []
    for name in (MINI, *sorted(config_files(), key=str.lower)):
        if _lacking(define(name).config["text_cfg"]):
            continue
        try:
            arch = architecture(name)
        except UnsupportedModelError:
            continue
        tags = tuple(open_clip.list_pretrained_tags_by_model(name))
        if tags or untagged or name == MINI:
            listed.append(ListedModel(**vars(arch), tags=tags))
    return listed


def needing_transformers() -> list[str]:
    """Names that `list_models` leaves out only because the package transformers is missing.

    Most need it for texts only: with directions from files or images they load without it.
    """
    configs = {name: define(name).config for name in config_files()}
    return [
        name
        for name, config in configs.items()
        if _lacking(config["text_cfg"]) and not _unsupported(config["vision_cfg"])
    ]


def refused() -> dict[str, str]:
    """The architectures of open_clip whose vision tower is not supported: name -> reason."""
    reasons = {name: _unsupported(define(name).config["vision_cfg"]) for name in config_files()}
    return {name: reason for name, reason in reasons.items() if reason}


def architecture(name: str) -> Architecture:
    """Look up a model by name.

    Raises:
        UnsupportedModelError: the name is unknown, its tower is of no supported family, or its
            text tower needs a package that is missing. (If only its tokenizer does, queries
            without texts still work.)
    """
    config = define(name).config
    vision = config["vision_cfg"]
    reason = _unsupported(vision)
    if reason:
        raise UnsupportedModelError(f"model {name!r} has {reason}; {SUPPORTED_TOWERS}.")
    if _lacking(config["text_cfg"]) == TEXT_TOWER:
        raise UnsupportedModelError(
            f"the {TEXT_TOWER} of model {name!r} needs the package transformers: "
            "pip install transformers"
        )
    trunk = _trunk(vision)
    patch = _pair(vision.get("patch_size", 16) if trunk is None else trunk.patch)
    height, width = _pair(vision.get("image_size", 224))
    return Architecture(
        name=name,
        image_size=(height // patch[0] * patch[0], width // patch[1] * patch[1]),
        patch_size=patch,
        layers=int(vision.get("layers", 12)) if trunk is None else trunk.layers,
        width=int(vision.get("width", 768)) if trunk is None else trunk.width,
        embed_dim=int(config["embed_dim"]),
        family=_family(name, config),
        parameters=_parameters(config),
    )


def _trunk(vision: Mapping[str, Any]) -> Trunk | None:
    """Facts about a timm vision tower; None for open_clip's own towers."""
    trunk = TRUNKS.get(vision.get("timm_model_name", ""))
    sizes = vision.get(TIMM_SETTINGS)
    if trunk is None or sizes is None:
        return trunk
    return replace(
        trunk, patch=sizes["patch_size"], layers=sizes["depth"], width=sizes["embed_dim"]
    )


def _family(name: str, config: Mapping[str, Any]) -> str:
    if name == MINI:
        return MINI
    trunk = _trunk(config["vision_cfg"])
    if trunk is not None:
        return trunk.family
    if "multimodal_cfg" in config:
        return "CoCa"
    return "CLIPA" if config["vision_cfg"].get("pool_type") == "avg" else "CLIP"


def _parameters(config: Mapping[str, Any]) -> int | None:
    """Number of parameters, from the config; None unless text tower and head are plain CLIP's."""
    vision, text, embed = config["vision_cfg"], config["text_cfg"], int(config["embed_dim"])
    if "multimodal_cfg" in config or text.get("hf_model_name") or TIMM_SETTINGS in vision:
        return None
    wide = text.get("width", 512)
    projected = 0 if text.get("proj_type") == "none" else embed
    rows = text.get("vocab_size", 49408) + text.get("context_length", 77) + 2 + projected
    scalars = 2 if "init_logit_bias" in config else 1
    if text.get("proj_bias"):
        scalars += projected
    return int(_image_parameters(vision, embed) + wide * rows + _blocks(text, wide) + scalars)


def _image_parameters(vision: Mapping[str, Any], embed: int) -> int:
    trunk = _trunk(vision)
    if trunk is not None:
        projection = vision.get("timm_proj", "linear")
        bias = 0 if projection else embed  # the trunk's own has a bias
        head = 0 if projection == "none" else trunk.width * embed + bias
        return trunk.parameters + head
    width, (down, across) = vision.get("width", 768), _pair(vision.get("patch_size", 16))
    height, breadth = _pair(vision.get("image_size", 224))
    tokens = (height // down) * (breadth // across) + 1
    norms = 1 if vision.get("no_ln_pre") else 2
    rows = 3 * down * across + 1 + tokens + 2 * norms + embed
    return int(width * rows + _blocks(vision, width))


def _blocks(tower: Mapping[str, Any], width: int) -> int:
    """Parameters of a tower's blocks: attention, two norms, MLP, layer scales."""
    hidden = int(width * tower.get("mlp_ratio", 4.0))
    scales = 2 if tower.get("ls_init_value") is not None else 0
    block = width * (4 * width + 4 + 4 + 2 * hidden + 1 + scales) + hidden
    return int(tower.get("layers", 12)) * block


def _unsupported(vision: Mapping[str, Any]) -> str | None:
    """Why LeGrad does not support a vision config, or None if it does."""
    timm_name = vision.get("timm_model_name")
    if timm_name:
        if timm_name in TRUNKS:
            return None
        reasons = [why for start, why in WITHOUT_TOKENS.items() if timm_name.startswith(start)]
        return ": ".join([f"the timm vision tower {timm_name!r}", *reasons])
    if not isinstance(vision.get("layers", 12), int):
        return "a convolutional vision tower (ResNet): it has no attention over tokens"
    if isinstance(vision.get("attentional_pool"), str):
        return f"the attentional pooler {vision['attentional_pool']!r}"
    if vision.get("pool_type", "tok") not in ("tok", "avg"):
        return f"the pooling {vision['pool_type']!r}"
    custom = [key for key in _CUSTOM_BLOCK_KEYS if vision.get(key)]
    if custom or vision.get("block_type") not in (None, "default"):
        return f"custom attention blocks ({', '.join(custom) or vision['block_type']})"
    return None


def _lacking(text: Mapping[str, Any]) -> str | None:
    """The part of a text config that needs the package transformers, if that is missing."""
    foreign = [part for part, key in _FOREIGN.items() if text.get(key)]
    return foreign[0] if foreign and find_spec("transformers") is None else None


def _pair(size: int | list[int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
