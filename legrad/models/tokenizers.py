"""The tokenizer of a model: open_clip's own, or one from Hugging Face (SigLIP, CLIPA, ...)."""

import hashlib
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from legrad.models.definition import Definition, define
from legrad.models.transformers_folder import OWN_TOKENIZER

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
    if define(name).tokenizer_name is None:
        raise ValueError(f"tokenizer {tokenizer}: model {name!r} has its own, leave this out")
    if _is_folder(tokenizer) and not Path(tokenizer).expanduser().is_dir():
        raise ValueError(f"tokenizer {tokenizer}: no such folder")


def obstacle(name: str) -> str | None:
    """Why texts cannot be encoded for a model on this machine, or None."""
    if define(name).tokenizer_name is None or find_spec("transformers") is not None:
        return None
    return (
        f"the tokenizer of model {name!r} needs the package transformers: pip install transformers "
        "sentencepiece (queries made of images or vectors need no tokenizer)"
    )


def make_tokenizer(name: str, tokenizer: str | None = None) -> "Tokenizer":
    """The tokenizer that a model's config names, or one of the same kind from another source.

    The files in a model's own folder come before the name on the hub that its config gives.

    Args:
        name: see `legrad.models.definition.define`.
        tokenizer: a folder with the tokenizer's files, or a name on the Hugging Face hub.

    Raises:
        ValueError: a package or the tokenizer's files are missing.
    """
    check_tokenizer(name, tokenizer)
    definition = define(name)
    hub = definition.tokenizer_name
    if hub is None:
        return _clip_tokenizer(definition)
    reason = obstacle(name)
    if reason is not None:
        raise ValueError(reason)
    if hub == OWN_TOKENIZER and tokenizer is None and not definition.tokenizer_files:
        raise ValueError(
            f"model {name}: its folder holds no tokenizer (tokenizer.json, or vocab.json and "
            "merges.txt); copy the files there, or name another folder as tokenizer="
        )
    source = hub if tokenizer is None else tokenizer
    if tokenizer is not None and _is_folder(tokenizer):
        source = str(Path(tokenizer).expanduser())
    elif tokenizer is None and definition.tokenizer_files:
        source = str(definition.folder)
    try:
        return _foreign(definition, source)
    except (OSError, ValueError) as error:  # what transformers raises, online and offline
        raise ValueError(
            f"the tokenizer of {name!r} cannot be read from {source}: {_first_line(error)}; "
            f"without a connection, {_FOLDER.format(hub=hub)}"
        ) from error


def _clip_tokenizer(definition: Definition) -> "Tokenizer":
    """open_clip's own tokenizer with the settings of the model's config."""
    import open_clip

    text: Mapping[str, Any] = definition.config["text_cfg"]
    tokenizer: Tokenizer = open_clip.SimpleTokenizer(
        context_length=text.get("context_length", 77), **(text.get("tokenizer_kwargs") or {})
    )
    return tokenizer


def _foreign(definition: Definition, source: str) -> "Tokenizer":
    """open_clip's wrapper with the settings of the model's config, but files from ``source``."""
    from open_clip.tokenizer import HFTokenizer

    text: Mapping[str, Any] = definition.config["text_cfg"]
    tokenizer: Tokenizer = HFTokenizer(
        source,
        context_length=text.get("context_length", 77),
        tokenizer_mode=text.get("tokenizer_mode"),
        **(text.get("tokenizer_kwargs") or {}),
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
