"""The tokenizer of a model: open_clip's own, or one from Hugging Face (SigLIP, CLIPA, ...)."""

import hashlib
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from legrad.models import catalog

if TYPE_CHECKING:
    from legrad.models.vision_language import Tokenizer

_FOLDER = (
    "download its files once (`hf download {hub} --include '*token*' '*.model' --local-dir "
    "FOLDER`) and name the folder as tokenizer="
)


def check_tokenizer(name: str, tokenizer: str | None) -> None:
    """Check that a model can use a tokenizer, without loading it.

    Raises:
        ValueError: the model has a tokenizer of its own, or the folder does not exist.
    """
    if tokenizer is None:
        return
    if catalog.foreign_tokenizer(name) is None:
        raise ValueError(f"tokenizer {tokenizer}: model {name!r} has its own, leave this out")
    if _is_folder(tokenizer) and not Path(tokenizer).expanduser().is_dir():
        raise ValueError(f"tokenizer {tokenizer}: no such folder")


def obstacle(name: str) -> str | None:
    """Why texts cannot be encoded for a model on this machine, or None."""
    if catalog.foreign_tokenizer(name) is None or find_spec("transformers") is not None:
        return None
    return (
        f"the tokenizer of model {name!r} needs the package transformers: pip install transformers "
        "sentencepiece (queries made of images or vectors need no tokenizer)"
    )


def make_tokenizer(name: str, tokenizer: str | None = None) -> "Tokenizer":
    """The tokenizer that open_clip's config names, or one of the same kind from another source.

    Args:
        name: open_clip's name of the model.
        tokenizer: a folder with the tokenizer's files, or a name on the Hugging Face hub.

    Raises:
        ValueError: a package or the tokenizer's files are missing.
    """
    import open_clip

    check_tokenizer(name, tokenizer)
    hub = catalog.foreign_tokenizer(name)
    if hub is None:
        clip_tokenizer: Tokenizer = open_clip.get_tokenizer(name)
        return clip_tokenizer
    reason = obstacle(name)
    if reason is not None:
        raise ValueError(reason)
    source = hub if tokenizer is None else tokenizer
    if tokenizer is not None and _is_folder(tokenizer):
        source = str(Path(tokenizer).expanduser())
    try:
        return _foreign(name, source)
    except (OSError, ValueError) as error:  # what transformers raises, online and offline
        raise ValueError(
            f"the tokenizer of {name!r} cannot be read from {source}: {_first_line(error)}; "
            f"without a connection, {_FOLDER.format(hub=hub)}"
        ) from error


def _foreign(name: str, source: str) -> "Tokenizer":
    """open_clip's wrapper with the settings of the model's config, but files from ``source``."""
    import open_clip
    from open_clip.tokenizer import HFTokenizer

    config: dict[str, Any] = (open_clip.get_model_config(name) or {})["text_cfg"]
    tokenizer: Tokenizer = HFTokenizer(
        source,
        context_length=config.get("context_length", 77),
        tokenizer_mode=config.get("tokenizer_mode"),
        **config.get("tokenizer_kwargs", {}),
    )
    return tokenizer


def tokenizer_digest(tokenizer: str | None) -> str | None:
    """Identity of a tokenizer: SHA-256 (hex) of a folder's files, or the name on the hub."""
    if tokenizer is None or not _is_folder(tokenizer):
        return tokenizer
    sha = hashlib.sha256()
    for path in sorted(Path(tokenizer).expanduser().iterdir()):
        if path.is_file() and not path.name.startswith("."):
            data = path.read_bytes()
            sha.update(f"{path.name}|{len(data)}|".encode())
            sha.update(data)
    return sha.hexdigest()


def _is_folder(tokenizer: str) -> bool:
    """Whether a folder is meant: it exists, or cannot be a name on the hub (``owner/name``)."""
    is_path = tokenizer.startswith(("/", ".", "~")) or tokenizer.count("/") > 1
    return is_path or Path(tokenizer).is_dir()


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
