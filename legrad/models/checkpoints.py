"""Checkpoints as training scripts leave them: wrapped, prefixed, with settings and class names."""

import json
import math
import warnings
from argparse import Namespace
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from legrad.models.files import fetch
from legrad.models.weights_faults import (
    content_fault,
    differences,
    loading_fault,
    plain_values_allowed,
)
from legrad.settings import WEIGHTS_SUFFIXES

_WRAPPERS = (
    *("state_dict", "model", "model_state_dict", "model_state", "net", "network", "weights"),
    *("module", "ema", "model_ema", "state_dict_ema", "teacher"),
)
"""Keys under which the weights may be, in order of preference."""
_NAMES = ("classes", "class_names", "class_to_idx", "idx_to_class", "id2label", "label_names")
_SETTINGS = ("args", "config", "hparams", "hyper_parameters")
Names = Sequence[str] | str
"""Names in the order of the logits, or where they are listed."""


@dataclass(frozen=True)
class Checkpoint:
    """The content of a checkpoint.

    Attributes:
        uri: path or URI that the user gave.
        tensors: weights by name, including any prefix.
        content: everything in the file; empty for safetensors.
    """

    uri: str
    tensors: Mapping[str, Tensor]
    content: Mapping[str, Any]

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The training script's arguments, if they are in the file."""
        for key in _SETTINGS:
            values = self.content.get(key)
            if isinstance(values, Namespace | Mapping):
                return dict(values if isinstance(values, Mapping) else vars(values))
        return {}

    @cached_property
    def classes(self) -> tuple[str, ...] | None:
        """Names of the classes, if they are in the file."""
        for values in (self.content, self.settings):
            for key in _NAMES:
                if values.get(key):
                    return names_from(values[key], f"{self.uri}: {key}")
        return None

    def count(self, head: str) -> int | None:
        """Number of classes by the shape of the class head; None if there is no such head.

        Args:
            head: name of the linear layer in the module.
        """
        weight = f"{head}.weight"
        keys = [key for key in self.tensors if key == weight or key.endswith(f".{weight}")]
        return len(self.tensors[min(keys, key=len)]) if keys else None


def read_checkpoint(uri: str) -> Checkpoint:
    """Read a checkpoint; nothing in it can run code.

    Args:
        uri: path or fsspec URI of a ``.safetensors``, ``.pt``, ``.pth``, ``.bin``, ``.ckpt`` or
            ``.tar`` file. ``#key`` after it names the part that holds the weights
            (``best.pth#state_dict_ema``) where a file has several; default: the first usual name.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a weights file, or holds no tensors by name.
    """
    file, _, part = uri.partition("#")
    suffixes = (*WEIGHTS_SUFFIXES, ".tar", ".ckpt")
    if not file.endswith(suffixes):
        raise ValueError(f"weights {uri}: expected a file ending in {', '.join(suffixes)}")
    path = fetch(file)
    fault = content_fault(path)
    if fault is not None:
        raise ValueError(f"weights {uri}: {fault}")
    try:
        if path.suffix == ".safetensors":
            return Checkpoint(uri, load_file(path), {})
        with plain_values_allowed():
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what torch and safetensors raise; the message says all of it
        raise ValueError(f"weights {uri}: {loading_fault(path, error, nn.Identity())}") from error
    if not isinstance(content, Mapping):
        raise ValueError(
            f"weights {uri}: expected tensors by name, found a {type(content).__name__}"
        )
    return Checkpoint(uri, _weights(uri, content, part), content)


def _weights(uri: str, content: Mapping[str, Any], part: str) -> dict[str, Tensor]:
    """The tensors of a checkpoint, from the part that was asked for or has a usual name."""
    inside = {str(key): _tensors(value) for key, value in content.items()}
    parts = [key for key, tensors in inside.items() if tensors]
    if part:
        if part not in parts:
            raise ValueError(f"weights {uri}: expected one of {', '.join(parts) or 'no parts'}")
        return inside[part]
    usual = [key for key in _WRAPPERS if key in parts]
    if usual:
        return inside[usual[0]]
    own = _tensors(content)
    if not own:
        listed = ", ".join(parts) or ", ".join(map(str, content)) or "nothing"
        raise ValueError(
            f"weights {uri}: its weights are under none of the usual names; found {listed}. Write "
            f"{uri}#NAME"
        )
    return own


def _tensors(state: Any) -> dict[str, Tensor]:
    items = state.items() if isinstance(state, Mapping) else ()
    tensors = {str(key): value for key, value in items if isinstance(value, Tensor)}
    return {key: value for key, value in tensors.items() if value.ndim or len(tensors) > 1}


def load_into(module: Any, checkpoint: Checkpoint) -> None:
    """Load the weights of a checkpoint into a module, in place.

    A prefix that wrappers leave (``module.``, ``model.``, ``_orig_mod.``) is removed, and a timm
    module takes the input size that the positions in the checkpoint were trained for.

    Warns:
        UserWarning: tensors outside the prefix were left out, such as those of a loss.

    Raises:
        ValueError: names or shapes differ; the message counts and names them.
    """
    prefix = _prefix(checkpoint.tensors, module)
    tensors = {
        key.removeprefix(prefix): value
        for key, value in checkpoint.tensors.items()
        if key.startswith(prefix)
    }
    left_out = [key for key in checkpoint.tensors if not key.startswith(prefix)]
    _resize(module, tensors)
    faults = differences(tensors, module)
    if faults:
        raise ValueError(
            f"weights {checkpoint.uri}: they do not fit this model: {'; '.join(faults)}"
        )
    if left_out:
        warnings.warn(
            f"weights {checkpoint.uri}: {len(left_out)} tensors do not begin with {prefix} and are "
            f"left out: {', '.join(left_out[:3])}",
            stacklevel=4,
        )
    module.load_state_dict(tensors)


def _prefix(tensors: Mapping[str, Tensor], module: nn.Module) -> str:
    """The prefix without which most names are those of the module's tensors."""
    expected, hits = set(module.state_dict()), Counter[str]()
    for key in tensors:
        steps = key.split(".")
        for cut in range(len(steps)):
            if ".".join(steps[cut:]) in expected:
                hits["".join(f"{step}." for step in steps[:cut])] += 1
    return max(hits, key=lambda prefix: hits[prefix]) if hits else ""


def _resize(module: Any, tensors: Mapping[str, Tensor]) -> None:
    """Give a module of timm the square input size of the positions in a checkpoint."""
    own, position = getattr(module, "pos_embed", None), tensors.get("pos_embed")
    if own is None or position is None or not hasattr(module, "set_input_size"):
        return
    if position.ndim != own.ndim or position.shape[1] == own.shape[1]:
        return
    height, width = module.patch_embed.grid_size
    cells = position.shape[1] - (own.shape[1] - height * width)
    side = math.isqrt(max(cells, 0))
    if side and side * side == cells:
        down, across = module.patch_embed.patch_size
        module.set_input_size((side * down, side * across))


def read_names(names: Names) -> tuple[str, ...]:
    """Names of the classes in the order of the logits.

    Args:
        names: the names; a text file with one name a line; a JSON file with a list, or with a
            mapping of index to name or name to index; or a folder with one folder per class, whose
            names are sorted as torchvision's ``ImageFolder`` and timm's readers sort them.

    Raises:
        FileNotFoundError: there is no such file or folder.
        ValueError: it holds no names, a name twice, or indices that do not count from 0.
    """
    if not isinstance(names, str):
        return names_from(list(names), "classes")
    folder = Path(names).expanduser()
    if folder.is_dir():
        return names_from(sorted(p.name for p in folder.iterdir() if p.is_dir()), names)
    path = fetch(str(folder) if names.startswith("~") else names, "list of classes")
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".json":
        return names_from([line.strip() for line in text.splitlines() if line.strip()], names)
    try:
        content = json.loads(text)
    except ValueError as error:
        raise ValueError(f"classes {names}: not a JSON file: {error}") from error
    return names_from(content, names)


def names_from(values: Any, where: str) -> tuple[str, ...]:
    """Names from a sequence, or from a mapping of index to name or name to index.

    Args:
        values: the sequence or mapping.
        where: source of the values, for messages.

    Raises:
        ValueError: as for `read_names`.
    """
    if isinstance(values, Mapping):
        pairs = list(values.items())
        if all(isinstance(value, int) for _, value in pairs):
            pairs = [(index, name) for name, index in pairs]
        try:
            by_index = {int(index): name for index, name in pairs}
        except (TypeError, ValueError):
            by_index = {}
        if sorted(by_index) != list(range(len(values))):
            raise ValueError(
                f"classes in {where}: expected one name for each index from 0, found "
                f"{dict(pairs[:3])}"
            )
        values = [by_index[index] for index in range(len(by_index))]
    names = tuple(map(str, values)) if isinstance(values, Sequence) else ()
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if not names or isinstance(values, str) or twice:
        reason = f"{', '.join(twice[:3])} twice" if twice else f"{type(values).__name__}"
        raise ValueError(f"classes in {where}: expected different names, found {reason}")
    return names
