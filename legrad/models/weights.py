"""Build an open_clip model from its config, and load a weights file into it safely."""

import json
import logging
from pathlib import Path
from tempfile import TemporaryDirectory

import open_clip
from torch import nn

from legrad.models.definition import FOLDER_PREFIX, OPEN_CLIP_CONFIG, Definition
from legrad.models.files import fetch
from legrad.models.weights_faults import content_fault, loading_fault, plain_values_allowed
from legrad.settings import WEIGHTS_SUFFIXES


def model_with_weights(definition: Definition, uri: str) -> nn.Module:
    """Build an open_clip model on the CPU with the weights of a file.

    Args:
        definition: the model.
        uri: see `load_weights`.

    Raises:
        FileNotFoundError: there is no file at ``uri``.
        ValueError: open_clip cannot build the config, or the weights do not fit it.
    """
    module = _built(definition)
    load_weights(module, uri)
    return module


def _built(definition: Definition) -> nn.Module:
    """The module with random weights, by the way that open_clip has for a config in a folder."""
    root = logging.getLogger()
    root.addFilter(_is_no_false_alarm)
    try:
        with TemporaryDirectory(prefix="legrad-") as folder:
            settings = {"model_cfg": definition.config, "preprocess_cfg": definition.preprocessing}
            (Path(folder) / OPEN_CLIP_CONFIG).write_text(json.dumps(settings), encoding="utf-8")
            module: nn.Module = open_clip.create_model(
                f"{FOLDER_PREFIX}{folder}", load_weights=False, pretrained_text=False, device="cpu"
            )
    except (TypeError, KeyError, ValueError, RuntimeError, AssertionError, OSError) as error:
        raise ValueError(
            f"model {definition.name}: open_clip cannot build it from its config: "
            f"{type(error).__name__}: {error}"
        ) from error
    finally:
        root.removeFilter(_is_no_false_alarm)
    return module


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
        raise ValueError(f"weights {uri}: expected a file ending in {', '.join(WEIGHTS_SUFFIXES)}")
    path = fetch(uri)
    fault = content_fault(path)
    if fault is not None:
        raise ValueError(f"weights {uri}: {fault}")
    try:
        with plain_values_allowed():
            open_clip.load_checkpoint(module, str(path), strict=True, weights_only=True)
    except Exception as error:  # what torch and safetensors raise; the message says all of it
        raise ValueError(f"weights {uri}: {loading_fault(path, error, module)}") from error
