"""Say what a file is that cannot be loaded as weights, and how to get or make the right one."""

import json
import re
import zipfile
from argparse import Namespace
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from open_clip.model import convert_to_custom_text_state_dict
from safetensors.torch import load_file
from torch import Tensor, nn

from legrad.models import catalog
from legrad.models.definition import define
from legrad.models.weights_commands import extraction, joined_shards, load_expression
from legrad.settings import WEIGHTS_SUFFIXES

_LFS = b"version https://git-lfs.github.com/spec"
_ZIP, _PICKLE = b"PK\x03\x04", b"\x80"
_TEXT_BYTES = 512
_SHOWN = 3
_UNSAFE = re.compile(r"GLOBAL ([\w.]+)")
_SHARD = re.compile(r"(.+)-(\d+)-of-(\d+)\.safetensors")
_INDEX = ".safetensors.index.json"
_COMPILED = "_orig_mod."
_BLOCK = re.compile(r"visual\.(?:transformer\.resblocks|trunk\.blocks)\.(\d+)\.")
_SIZES = ("input_resolution", "context_length", "vocab_size")
"""What OpenAI's archives hold beside weights."""


def plain_values_allowed() -> AbstractContextManager[None]:
    """While weights are read: allow NumPy values and `argparse.Namespace`, which run no code.

    Training checkpoints hold them beside the weights (best score, state of the random numbers).
    Before version 2.7 torch had no way to allow a function under its name in an older NumPy; such
    checkpoints are then refused by `loading_fault`.
    """
    if torch.__version__ < "2.7":
        return nullcontext()
    functions: list[Any] = [np.float64(0).__reduce__()[0], np.zeros(1).__reduce__()[0]]
    allowed: list[Any] = [np.dtype, np.ndarray, Namespace]
    plain = [name for name in np.dtypes.__all__ if name != "ObjectDType"]
    allowed += [getattr(np.dtypes, name) for name in plain]
    for core in ("core", "_core"):  # NumPy 1 and 2 name their private module differently
        allowed += [(f, f"numpy.{core}.multiarray.{f.__name__}") for f in functions]
    return torch.serialization.safe_globals(allowed)


def content_fault(path: Path) -> str | None:
    """Why a file cannot hold weights, as its bytes show without loading it; None if it may."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(_TEXT_BYTES)
    if not size:
        return "the file is empty: its download was interrupted or never began; fetch it again"
    if head.startswith(_LFS):
        return _pointer(head, path)
    if head.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        return (
            "it is a web page, not weights: the download ended at a page for people or a log-in; "
            "fetch the file itself (on the Hugging Face hub its address has /resolve/ and not "
            "/blob/ in it; `hf download ORG/NAME FILE`)"
        )
    if head.lstrip().startswith((b"{", b"[")) and _is_text(head):
        return f"it is a text file, not weights; it begins {_begin(head)}"
    if path.suffix == ".safetensors":
        return _safetensors_fault(path, size, head)
    return _pytorch_fault(path, head)


def _pointer(head: bytes, path: Path) -> str:
    size = re.search(rb"size (\d+)", head)
    wanted = f" of {int(size[1]) / 2**20:,.0f} MiB" if size else ""
    return (
        f"it is a Git LFS pointer: a note of where the weights{wanted} are, and not the weights. "
        f"Run `git lfs install` and `git lfs pull` in {path.parent}, or `hf download ORG/NAME "
        f"{path.name}`"
    )


def _is_text(head: bytes) -> bool:
    try:
        return head.decode("utf-8", errors="strict").isprintable() or b"\n" in head
    except UnicodeDecodeError:
        return False


def _begin(head: bytes) -> str:
    return repr(head[:60].decode("utf-8", errors="replace"))


def _safetensors_fault(path: Path, size: int, head: bytes) -> str | None:
    length = int.from_bytes(head[:8], "little")  # it may begin as a pickle does
    if size < 8 or head[8:9] not in (b"{", b" "):
        if head.startswith((_ZIP, _PICKLE)):
            name = f"{path.stem}.pt"
            return f"it is a file of torch.save, whatever its name says: rename it to {name}"
        return f"it is no safetensors file: it begins {_begin(head)}"
    try:
        with path.open("rb") as file:
            file.seek(8)
            header = json.loads(file.read(length)) if length < size else {}
    except ValueError:
        return "the header of this safetensors file is damaged; fetch it again"
    ends = [about["data_offsets"][1] for name, about in header.items() if name != "__metadata__"]
    wanted = 8 + length + max(ends, default=0)
    if size < wanted:
        return f"the file is cut off: it has {size:,} of {wanted:,} bytes; fetch it again"
    return None


def _pytorch_fault(path: Path, head: bytes) -> str | None:
    if len(head) > 8 and head[8:9] == b"{" and not head.startswith((_ZIP, _PICKLE)):
        name = f"{path.stem}.safetensors"
        return f"it is a safetensors file, whatever its name says: rename it to {name}"
    if head.startswith(_ZIP):
        return _archive_fault(path)
    if not head.startswith(_PICKLE):
        return f"it is no file of torch.save: it begins {_begin(head)}"
    return None


def _archive_fault(path: Path) -> str | None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile:
        return f"the file is cut off: {path.stat().st_size:,} bytes without an end; fetch it again"
    inner = {name.partition("/")[2] for name in names}
    if "constants.pkl" in inner:
        command = extraction(
            f"torch.jit.load('{path}', map_location='cpu').state_dict()", f"k not in {_SIZES}"
        )
        return (
            "it is a TorchScript archive, a program with its weights, as OpenAI publishes CLIP. "
            "open_clip has OpenAI's weights as tag `openai`. Take the weights out of another one "
            f"if you trust it: {command}"
        )
    if "data.pkl" not in inner:
        return f"it is a zip archive of {', '.join(names[:_SHOWN])}: unpack it"
    return None


def suffix_fault(uri: str) -> str:
    """Why a file cannot hold weights, by the ending of its name."""
    expected = f"expected a file ending in {', '.join(WEIGHTS_SUFFIXES)}"
    if uri.endswith(".ckpt"):
        return f"{expected}; a checkpoint of Lightning is one: rename it to {Path(uri).stem}.pt"
    if uri.endswith(_INDEX):
        path = Path(uri)
        return (
            f"{expected}; this one lists shards: {joined_shards(path, path.name[: -len(_INDEX)])}"
        )
    return expected


def loading_fault(path: Path, error: Exception, module: nn.Module) -> str:
    """Why a file of the right kind could not be loaded into a module.

    Args:
        path: the file.
        error: what loading it raised.
        module: the module that its weights should fit.
    """
    unsafe = _UNSAFE.search(str(error))
    if unsafe:
        whole = "c = getattr(c, 'state_dict', lambda: c)()"  # a module that was saved whole
        command = extraction(f"{load_expression(path)}; {whole}; c = c.get('state_dict', c)")
        return (
            f"it holds an object of type {unsafe[1]}, and a file with such objects can run code "
            f"when it is loaded. Take the weights out if you trust it: {command}"
        )
    try:
        content = _content(path)
    except Exception:  # noqa: BLE001 - as loading it failed before
        return f"it cannot be read: {type(error).__name__}: {error}"
    if not isinstance(content, Mapping):
        return f"it holds a {type(content).__name__}: expected tensors by name (a state_dict)"
    tensors = _tensors(content.get("state_dict", content))
    if not tensors:
        return _without_tensors(path, content)
    return _misfit(path, {str(k).removeprefix("module."): v for k, v in tensors.items()}, module)


def _content(path: Path) -> Any:
    if path.suffix == ".safetensors":
        return load_file(path)
    with plain_values_allowed():
        return torch.load(path, map_location="cpu", weights_only=True)


def _tensors(state: Any) -> dict[str, Tensor]:
    items = state.items() if isinstance(state, Mapping) else ()
    return {key: value for key, value in items if isinstance(value, Tensor)}


def _without_tensors(path: Path, content: Mapping[str, Any]) -> str:
    """A checkpoint of a training whose weights are under another name, or that has none."""
    inside = [key for key, value in content.items() if _tensors(value)]
    weights = [key for key in inside if "optim" not in str(key)]
    keys = ", ".join(map(str, content)) or "nothing"
    if not weights:
        return f"it holds no weights: found {keys}, and no tensors by name in it"
    command = extraction(f"{load_expression(path)}['{weights[0]}']")
    return (
        f"it is a checkpoint of a training ({keys}); its weights are under {weights[0]!r}, where "
        f"they are not looked for. Take them out: {command}"
    )


def _misfit(path: Path, tensors: Mapping[str, Tensor], module: nn.Module) -> str:
    first = next(iter(tensors))
    shard = _SHARD.fullmatch(path.name)
    if shard is not None:
        return f"it is shard {shard[2]} of {shard[3]}: {joined_shards(path, shard[1])}"
    if any(_COMPILED in key for key in tensors):
        command = extraction(
            f"{load_expression(path)}; c = c.get('state_dict', c)",
            key=f"k.replace('{_COMPILED}', '').removeprefix('module.')",
        )
        return f"torch.compile put {_COMPILED} into its names; remove it: {command}"
    if any(key.startswith(("vision_model.", "text_model.")) for key in tensors):
        return (
            "it holds the weights of a model of the package transformers (CLIPModel, SiglipModel): "
            "give the folder that holds it and its config.json as the model"
        )
    prefix = first.partition(".")[0] + "."
    if all(key.startswith(prefix) for key in tensors) and prefix not in ("visual.", "text."):
        cut = f"k.removeprefix('module.')[{len(prefix)}:]"
        command = extraction(f"{load_expression(path)}; c = c.get('state_dict', c)", key=cut)
        return f"all its tensors are named {prefix}...: take the prefix away: {command}"
    if "positional_embedding" in tensors and not hasattr(module, "positional_embedding"):
        tensors = convert_to_custom_text_state_dict(dict(tensors))
    faults = differences(tensors, module)
    names = fitting_architectures(tensors)
    guess = f" Its sizes are those of {', '.join(names)}" if names else ""
    return f"it is of another architecture: {'; '.join(faults)}.{guess}"


def differences(tensors: Mapping[str, Tensor], module: nn.Module) -> list[str]:
    """How tensors differ from those of a module in names and shapes, counted; empty if they fit."""
    expected = {key: value.shape for key, value in module.state_dict().items()}
    shapes = [
        f"{key} is {_size(tensors[key].shape)}, expected {_size(shape)}"
        for key, shape in expected.items()
        if key in tensors and tensors[key].shape != shape
    ]
    absent = [key for key in expected if key not in tensors]
    more = [key for key in tensors if key not in expected]
    counted = (("of another shape", shapes), ("missing", absent), ("not expected", more))
    return [
        f"{len(keys)} of its tensors are {what} ({_listed(keys)})" for what, keys in counted if keys
    ]


def fitting_architectures(tensors: Mapping[str, Tensor]) -> list[str]:
    """Names of open_clip whose sizes are those of a state dict, at most three."""
    in_trunk = tensors.get("visual.trunk.patch_embed.proj.weight")
    patches = tensors.get("visual.conv1.weight", in_trunk)
    words = tensors.get("token_embedding.weight", tensors.get("text.token_embedding.weight"))
    if patches is None or words is None:
        return []
    blocks = {match[1] for key in tensors if (match := _BLOCK.match(key))}
    sizes = (in_trunk is not None, patches.shape[0], patches.shape[-1], len(blocks), words.shape[1])
    listed = catalog.list_models(untagged=True)
    return [model.name for model in listed if _sizes(model) == sizes][:_SHOWN]


def _sizes(model: catalog.Architecture) -> tuple[bool, int, int, int, int]:
    config = define(model.name).config
    in_trunk = "timm_model_name" in config["vision_cfg"]
    words = config["text_cfg"].get("width", 512)
    return in_trunk, model.width, model.patch_size[1], model.layers, words


def _listed(keys: Sequence[str]) -> str:
    return ", ".join(keys[:_SHOWN]) + (", ..." if len(keys) > _SHOWN else "")


def _size(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape)) or "a number"
