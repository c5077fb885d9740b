"""What a model is made of: open_clip's config, by name, from a JSON file, a folder or the hub.

Nothing here imports torch, so that settings are checked in a fraction of a second.
"""

import difflib
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from legrad import mini
from legrad.errors import UnsupportedModelError
from legrad.models import transformers_folder
from legrad.models.files import fetch
from legrad.settings import WEIGHTS_SUFFIXES

MINI = "mini"
FOLDER_PREFIX, HUB_PREFIX = "local-dir:", "hf-hub:"
OPEN_CLIP_CONFIG = "open_clip_config.json"
_PARTS = ("embed_dim", "vision_cfg", "text_cfg")
_WEIGHTS_NAMES = (  # open_clip's order of preference
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
    "open_clip_pytorch_model.pth",
    "model.safetensors",
    "pytorch_model.bin",
    "pytorch_model.pth",
    "model.pth",
)
_INDEX = "model.safetensors.index.json"
_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "vocab.txt",
    "vocab.json",
)


@dataclass(frozen=True)
class Definition:
    """The parts and sizes of a model, and where its other files are.

    Attributes:
        name: the name, file, folder or repository that was asked for.
        config: open_clip's model config: ``embed_dim``, ``vision_cfg``, ``text_cfg`` and more.
        preprocessing: open_clip's ``preprocess_cfg``; empty where nothing says it.
        folder: the folder that holds the model's files; None for a name or a JSON file.
        repository: the model's repository on the Hugging Face hub, if it is read from there.
        converted: ``model_type`` of the package transformers, if the folder is in its form.
        built_in: whether open_clip, or this package, knows the name.
    """

    name: str
    config: Mapping[str, Any]
    preprocessing: Mapping[str, Any] = field(default_factory=dict)
    folder: Path | None = None
    repository: str | None = None
    converted: str | None = None
    built_in: bool = False

    @property
    def holds_weights(self) -> bool:
        """Whether the weights come with the model, so that none need be named."""
        return self.folder is not None or self.repository is not None

    @property
    def tokenizer_name(self) -> str | None:
        """Name of the Hugging Face tokenizer that the config names; None for CLIP's own."""
        hub_name: str | None = self.config["text_cfg"].get("hf_tokenizer_name")
        return hub_name

    @property
    def tokenizer_files(self) -> tuple[Path, ...]:
        """Files of a Hugging Face tokenizer in the folder; empty if there are none."""
        if self.folder is None or not any((self.folder / f).is_file() for f in _TOKENIZER_FILES):
            return ()
        names = {path.name for path in self.folder.glob("*token*.json")} | set(_TOKENIZER_FILES)
        return tuple(self.folder / n for n in sorted(names) if (self.folder / n).is_file())

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of config, preprocessing and tokenizer files, wherever they are."""
        values = {"model_cfg": self.config, "preprocess_cfg": self.preprocessing}
        sha = hashlib.sha256(json.dumps(values, sort_keys=True).encode())
        for path in self.tokenizer_files:
            sha.update(f"{path.name}|".encode() + hashlib.sha256(path.read_bytes()).digest())
        return sha.hexdigest()

    def weights_files(self) -> tuple[Path, ...]:
        """The weights in the model's folder: one file, or all shards of an index.

        Raises:
            ValueError: there is none, or several of which none has a usual name.
        """
        if self.folder is None:
            raise ValueError(f"model {self.name}: no folder holds its weights")
        for name in _WEIGHTS_NAMES:
            if (self.folder / name).is_file():
                return (self.folder / name,)
        index = self.folder / _INDEX
        if index.is_file():
            return tuple(
                self.folder / name for name in sorted({*_read(index)["weight_map"].values()})
            )
        files = sorted(p for p in self.folder.iterdir() if p.name.endswith(WEIGHTS_SUFFIXES))
        if len(files) != 1:
            listed = ", ".join(path.name for path in files) or "none"
            raise ValueError(
                f"model {self.name}: expected one weights file in the folder, such as "
                f"{_WEIGHTS_NAMES[0]}, found {listed}; name one as pretrained="
            )
        return tuple(files)


def is_name(name: str) -> bool:
    """Whether a model is named by open_clip, this package or the Hugging Face hub."""
    return name.startswith(HUB_PREFIX) or name == MINI or name in config_files()


def is_location(name: str) -> bool:
    """Whether a model's name is the path or URI of a JSON file, or of a folder."""
    if is_name(name):
        return False
    has_path = "/" in name or os.sep in name or name.startswith((FOLDER_PREFIX, "~"))
    return has_path or name.endswith(".json") or Path(name).is_dir()


def define(name: str) -> Definition:
    """Look up a model.

    Args:
        name: open_clip's name of an architecture, ``mini``, a JSON file with a model config (path
            or URI), ``hf-hub:ORG/NAME``, or a folder, with or without ``local-dir:`` before it,
            that holds ``open_clip_config.json``, or ``config.json`` of a class that
            `legrad.models.transformers_folder` covers.

    Raises:
        UnsupportedModelError: open_clip knows no such name.
        ValueError: the file, folder or repository cannot be read, or holds no model config.
    """
    if name == MINI:
        return Definition(name, _read(mini.FOLDER / mini.CONFIG), built_in=True)
    if name in config_files():
        return Definition(name, _read(config_files()[name]), built_in=True)
    if name.startswith(HUB_PREFIX):
        return _on_hub(name)
    if name.endswith(".json"):
        config, preprocessing = _open_clip_config(name, _fetched(name))
        return Definition(name, config, preprocessing)
    if is_location(name):
        return _in_folder(name)
    raise UnsupportedModelError(f"no model is called {name!r} in open_clip.{_similar(name)}")


@cache
def config_files() -> dict[str, Path]:
    """open_clip's architectures: name -> config file."""
    spec = find_spec("open_clip")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("open_clip is not installed: pip install open_clip_torch")
    folder = Path(spec.origin).parent / "model_configs"
    return {path.stem: path for path in sorted(folder.glob("*.json"))}


def _similar(name: str) -> str:
    lower = {known.lower(): known for known in config_files()}
    near = difflib.get_close_matches(name.replace("/", "-").lower(), lower, n=3)
    return f" Did you mean {', '.join(lower[one] for one in near)}?" if near else ""


def _fetched(uri: str) -> Path:
    try:
        return fetch(str(Path(uri).expanduser()) if uri.startswith("~") else uri, "model config")
    except FileNotFoundError as error:
        raise ValueError(f"model {uri}: no such file") from error
    except Exception as error:  # clients of storage raise anything
        raise ValueError(f"model {uri}: cannot be read: {error}") from error


def _in_folder(name: str) -> Definition:
    path = name.removeprefix(FOLDER_PREFIX)
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise UnsupportedModelError(
            f"no model is called {name!r} in open_clip, and there is no such folder."
            f"{_similar(path)} A repository of the Hugging Face hub is written {HUB_PREFIX}"
            "ORG/NAME. A folder in a bucket must be copied to every node, or its config (a .json "
            "URI) named as the model and its weights as pretrained"
        )
    if (folder / OPEN_CLIP_CONFIG).is_file():
        config, preprocessing = _open_clip_config(name, folder / OPEN_CLIP_CONFIG)
        return Definition(name, config, preprocessing, folder)
    if not (folder / transformers_folder.CONFIG).is_file():
        raise ValueError(
            f"model {name}: expected {OPEN_CLIP_CONFIG} or {transformers_folder.CONFIG} in the "
            f"folder, found {', '.join(sorted(p.name for p in folder.iterdir())[:8]) or 'nothing'}"
        )
    data = _read(folder / transformers_folder.CONFIG)
    config, preprocessing = transformers_folder.read_folder(name, folder, data)
    return Definition(name, config, preprocessing, folder, converted=data["model_type"])


def _on_hub(name: str) -> Definition:
    repository = name.removeprefix(HUB_PREFIX)
    config, preprocessing = _open_clip_config(name, hub_config(repository))
    return Definition(name, config, preprocessing, repository=repository)


@cache
def hub_config(repository: str) -> Path:
    """Fetch the open_clip config of a repository on the Hugging Face hub, or find it in the cache.

    Raises:
        ValueError: the hub cannot be reached, or has no such repository or file.
    """
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(repository, OPEN_CLIP_CONFIG))
    except Exception as error:  # clients of the hub raise anything
        raise ValueError(
            f"model {HUB_PREFIX}{repository}: {OPEN_CLIP_CONFIG} cannot be read from the Hugging "
            f"Face hub ({str(error).strip().splitlines()[0]}). Without a connection, run `hf "
            f"download {repository} --local-dir FOLDER` where there is one, and give FOLDER as the "
            "model"
        ) from error


def _open_clip_config(name: str, path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Model config and preprocessing from a file of either of open_clip's two forms."""
    data = _read(path)
    config = data.get("model_cfg", data)
    absent = [part for part in _PARTS if part not in config]
    if absent:
        raise ValueError(
            f"model {name}: {path.name} is no open_clip model config, it lacks "
            f"{', '.join(absent)}; the files in open_clip/model_configs/ show the form"
        )
    preprocessing: dict[str, Any] = data.get("preprocess_cfg", {})
    return config, preprocessing


def _read(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: not a readable JSON file: {error}") from error
    if not isinstance(data, dict):
        raise ValueError(f"{path}: expected a JSON object, found {type(data).__name__}")
    return data
