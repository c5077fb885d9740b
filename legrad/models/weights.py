"""Fetch weights files from any path or fsspec URI, and load them safely."""

import hashlib
import logging
import os
from pathlib import Path

import fsspec
import open_clip
from filelock import FileLock
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem
from torch import nn

from legrad.settings import WEIGHTS_SUFFIXES

_LONGEST_REASON = 600
"""Characters of torch's message that an error repeats; it lists every key that does not fit."""


def model_with_weights(name: str, uri: str) -> nn.Module:
    """Build an open_clip model on the CPU with the weights of a file; raises as `load_weights`."""
    root = logging.getLogger()
    root.addFilter(_is_no_false_alarm)
    try:
        module: nn.Module = open_clip.create_model(name, pretrained=None, device="cpu")
    finally:
        root.removeFilter(_is_no_false_alarm)
    load_weights(module, uri)
    return module


def _is_no_false_alarm(record: logging.LogRecord) -> bool:
    """False for open_clip's warning about random weights: they are replaced right after."""
    return "No pretrained weights loaded" not in record.getMessage()


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
    try:
        open_clip.load_checkpoint(module, str(path), strict=True, weights_only=True)
    except FileNotFoundError:
        raise
    except Exception as error:
        reason = str(error)
        if len(reason) > _LONGEST_REASON:
            reason = reason[:_LONGEST_REASON] + " ..."
        raise ValueError(f"weights {uri} do not fit the model: {reason}") from error


def fetch(uri: str) -> Path:
    """The local path of a file; a remote file is copied to the cache directory first.

    The cache is ``$LEGRAD_CACHE``, default ``~/.cache/legrad``. A remote file that has changed
    since is copied again.

    Raises:
        FileNotFoundError: there is no file at ``uri``.
    """
    fs, path = url_to_fs(uri)
    if not fs.exists(path):
        raise FileNotFoundError(f"no weights file at {uri}")
    if isinstance(fs, LocalFileSystem):
        return Path(path)
    cache = Path(os.environ.get("LEGRAD_CACHE") or Path.home() / ".cache" / "legrad")
    # The suffix decides how the file is read, so its name is kept, in a separate folder per URI.
    folder = cache / hashlib.sha256(uri.encode()).hexdigest()[:16]
    cache.mkdir(parents=True, exist_ok=True)
    # The replicas of a machine start together: the first one copies, the others wait for it.
    with FileLock(folder.with_suffix(".lock")):
        local = fsspec.open_local(
            f"filecache::{uri}",
            filecache={"cache_storage": str(folder), "check_files": True, "same_names": True},
        )
    return Path(str(local))
