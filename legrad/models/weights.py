"""Weights files at any fsspec URI: told apart from open_clip's tags, fetched, loaded safely."""

import fcntl
import hashlib
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec
import open_clip
from fsspec.core import url_to_fs
from torch import nn

from legrad.settings import WEIGHTS_SUFFIXES


def model_with_weights(name: str, uri: str) -> nn.Module:
    """An open_clip architecture on the CPU with the weights of a file; raises as `load_weights`."""
    root = logging.getLogger()
    root.addFilter(_is_no_false_alarm)
    try:
        module: nn.Module = open_clip.create_model(name, pretrained=None, device="cpu")
    finally:
        root.removeFilter(_is_no_false_alarm)
    load_weights(module, uri)
    return module


def _is_no_false_alarm(record: logging.LogRecord) -> bool:
    """open_clip warns of random weights, which are replaced right after."""
    return "No pretrained weights loaded" not in record.getMessage()


def load_weights(module: nn.Module, uri: str, **storage_options: Any) -> None:
    """Load a checkpoint into a module, in place.

    Args:
        uri: path or fsspec URI of a ``.safetensors`` file, or of a ``.pt``/``.pth``/``.bin`` file,
            which is unpickled with ``weights_only=True`` (it can carry no code).

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: not such a file, or it does not fit the module.
    """
    if not uri.endswith(WEIGHTS_SUFFIXES):
        raise ValueError(f"weights {uri}: expected a file ending in {', '.join(WEIGHTS_SUFFIXES)}")
    path = fetch(uri, **storage_options)
    try:
        open_clip.load_checkpoint(module, str(path), strict=True, weights_only=True)
    except FileNotFoundError:
        raise
    except Exception as error:
        text = str(error)
        if len(text) > 600:
            text = text[:600] + " ..."
        raise ValueError(f"weights {uri} do not fit the model: {text}") from error


def fetch(uri: str, **storage_options: Any) -> Path:
    """A local path of the file; a remote one is copied once to the cache directory.

    The cache is ``$LEGRAD_CACHE``, default ``~/.cache/legrad``. A changed remote file is fetched
    again.

    Raises:
        FileNotFoundError: nothing is at the URI.
    """
    fs, path = url_to_fs(uri, **storage_options)
    if not fs.exists(path):
        raise FileNotFoundError(f"no weights file at {uri}")
    if fs.protocol == "file" or "file" in fs.protocol:
        return Path(path)
    cache = os.environ.get("LEGRAD_CACHE") or str(Path.home() / ".cache" / "legrad")
    # The suffix has to survive (it says how to read the file): one folder a URI, names as they are.
    folder = Path(cache) / hashlib.sha256(uri.encode()).hexdigest()[:16]
    protocol = fs.protocol if isinstance(fs.protocol, str) else fs.protocol[0]
    with _alone(folder):  # the replicas of a machine start together: the first one fetches
        local = fsspec.open_local(
            f"filecache::{uri}",
            filecache={"cache_storage": str(folder), "check_files": True, "same_names": True},
            **{protocol: storage_options},
        )
    return Path(str(local))


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One process of this machine at a time."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # given free with the file, also by a process that dies
        yield
