"""Build an open_clip model from its config, and load a weights file into it safely."""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import open_clip
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from legrad.models.definition import FOLDER_PREFIX, OPEN_CLIP_CONFIG, Definition
from legrad.models.files import fetch
from legrad.models.transformers_folder import CONFIG, TIMM_SETTINGS
from legrad.models.transformers_weights import converted
from legrad.models.weights_faults import (
    content_fault,
    differences,
    loading_fault,
    plain_values_allowed,
    suffix_fault,
)
from legrad.settings import WEIGHTS_SUFFIXES

_STAND_IN = "vit_tiny_patch16_224"
"""A small timm model that open_clip builds where its vision tower is replaced."""


def model_with_weights(definition: Definition, uris: Sequence[str]) -> nn.Module:
    """Build an open_clip model on the CPU with the weights of a file.

    Args:
        definition: the model.
        uris: one weights file, see `load_weights`; or, of a folder of the package transformers,
            all shards.

    Raises:
        FileNotFoundError: there is no file at a URI.
        ValueError: open_clip cannot build the config, or the weights do not fit it.
    """
    module = _built(definition)
    if definition.converted is None:
        load_weights(module, uris[0])
    else:
        _load_converted(module, definition, uris)
    return module


def _built(definition: Definition) -> nn.Module:
    """The module with random weights, by the way that open_clip has for a config in a folder."""
    root = logging.getLogger()
    root.addFilter(_is_no_false_alarm)
    config = {**definition.config, "vision_cfg": {**definition.config["vision_cfg"]}}
    timm_settings = config["vision_cfg"].pop(TIMM_SETTINGS, None)
    if timm_settings:
        config["vision_cfg"]["timm_model_name"] = _STAND_IN
    try:
        with TemporaryDirectory(prefix="legrad-") as folder:
            settings = {"model_cfg": config, "preprocess_cfg": definition.preprocessing}
            (Path(folder) / OPEN_CLIP_CONFIG).write_text(json.dumps(settings), encoding="utf-8")
            module: nn.Module = open_clip.create_model(
                f"{FOLDER_PREFIX}{folder}", load_weights=False, pretrained_text=False, device="cpu"
            )
        if timm_settings:
            module.visual.trunk = _trunk(timm_settings)  # type: ignore[union-attr]
    except (TypeError, KeyError, ValueError, RuntimeError, AssertionError, OSError) as error:
        raise ValueError(
            f"model {definition.name}: open_clip cannot build it from its config: "
            f"{type(error).__name__}: {error}"
        ) from error
    finally:
        root.removeFilter(_is_no_false_alarm)
    return module


def _trunk(settings: Mapping[str, Any]) -> nn.Module:
    """timm's ViT with attention pooling, of sizes that no name of timm may have."""
    chosen = dict(settings)
    norm = partial(nn.LayerNorm, eps=chosen.pop("eps"))
    return VisionTransformer(
        **chosen, norm_layer=norm, class_token=False, global_pool="map", num_classes=0
    )


def _load_converted(module: nn.Module, definition: Definition, uris: Sequence[str]) -> None:
    """Load the weights of a model of the package transformers into an open_clip module."""
    tensors: dict[str, Tensor] = {}
    for uri in uris:
        tensors |= _read(uri, module, partial(open_clip.factory.load_state_dict, weights_only=True))
    if not any(key.startswith("vision_model.") for key in tensors):
        load_weights(module, uris[0])  # they were saved from open_clip
        return
    vision = definition.config["vision_cfg"]
    patch = vision.get("patch_size") or vision[TIMM_SETTINGS]["patch_size"]
    try:
        state = converted(tensors, definition.converted or "", patch)
    except KeyError as error:
        raise ValueError(f"weights {uris[0]}: they lack {error}") from error
    faults = differences(state, module)
    if faults:
        raise ValueError(f"weights {uris[0]}: they do not fit {CONFIG}: {'; '.join(faults)}")
    module.load_state_dict(state)


def _is_no_false_alarm(record: logging.LogRecord) -> bool:
    """False for open_clip's warnings about random weights: they are replaced right after."""
    text = record.getMessage()
    return "No pretrained weights loaded" not in text and "no CLIP weights found" not in text


def load_weights(module: nn.Module, uri: str) -> None:
    """Load a checkpoint into a module, in place.

    Args:
        module: any open_clip module.
        uri: path or fsspec URI of a ``.safetensors`` file, or of a ``.pt``/``.pth``/``.bin`` file,
            which is unpickled with ``weights_only=True``, so that it cannot run code.

    Raises:
        FileNotFoundError: there is no file at ``uri``.
        ValueError: it is not a weights file, or does not fit the module.
    """
    if not uri.endswith(WEIGHTS_SUFFIXES):
        raise ValueError(f"weights {uri}: {suffix_fault(uri)}")
    _read(uri, module, partial(open_clip.load_checkpoint, module, strict=True, weights_only=True))


def _read(uri: str, module: nn.Module, read: Callable[[str], Any]) -> Any:
    """Call ``read`` on a weights file; errors say what the file is, and what does not fit."""
    path = fetch(uri)
    fault = content_fault(path)
    if fault is not None:
        raise ValueError(f"weights {uri}: {fault}")
    try:
        with plain_values_allowed():
            return read(str(path))
    except Exception as error:  # what torch and safetensors raise; the message says all of it
        raise ValueError(f"weights {uri}: {loading_fault(path, error, module)}") from error
