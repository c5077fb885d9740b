"""A model's own tokenizer; those of SigLIP and other multilingual models come from Hugging Face."""

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
    """Whether a tokenizer is of use to a model, without loading it.

    Raises:
        ValueError: the model brings its own, or the folder is not there.
    """
    if tokenizer is None:
        return
    if catalog.foreign_tokenizer(name) is None:
        raise ValueError(f"tokenizer {tokenizer}: model {name!r} brings its own, leave it out")
    if _is_place(tokenizer) and not Path(tokenizer).expanduser().is_dir():
        raise ValueError(f"tokenizer {tokenizer}: no such folder")


def obstacle(name: str) -> str | None:
    """Why texts cannot be encoded for a model on this machine, or None."""
    if catalog.foreign_tokenizer(name) is None or find_spec("transformers") is not None:
        return None
    return (
        f"model {name!r} has a tokenizer of the package transformers: pip install transformers "
        "sentencepiece (queries made of images or vectors do without)"
    )


def make_tokenizer(name: str, tokenizer: str | None = None) -> "Tokenizer":
    """The tokenizer that open_clip's config names, or the same kind from elsewhere.

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
        own: Tokenizer = open_clip.get_tokenizer(name)
        return own
    lacking = obstacle(name)
    if lacking is not None:
        raise ValueError(lacking)
    source = hub if tokenizer is None else tokenizer
    if tokenizer is not None and _is_place(tokenizer):
        source = str(Path(tokenizer).expanduser())
    try:
        return _foreign(name, source)
    except (OSError, ValueError) as error:  # what transformers raises, online and offline
        raise ValueError(
            f"the tokenizer of {name!r} cannot be read from {source}: {_first_line(error)}; "
            f"without a connection, {_FOLDER.format(hub=hub)}"
        ) from error


def _foreign(name: str, source: str) -> "Tokenizer":
    """open_clip's wrapper with all that the model's config says, the source apart."""
    import open_clip
    from open_clip.tokenizer import HFTokenizer

    config: dict[str, Any] = (open_clip.get_model_config(name) or {})["text_cfg"]
    made: Tokenizer = HFTokenizer(
        source,
        context_length=config.get("context_length", 77),
        tokenizer_mode=config.get("tokenizer_mode"),
        **config.get("tokenizer_kwargs", {}),
    )
    return made


def tokenizer_digest(tokenizer: str | None) -> str | None:
    """What results depend on: SHA-256 (hex) of a folder's files, or the name on the hub."""
    if tokenizer is None or not _is_place(tokenizer):
        return tokenizer
    sha = hashlib.sha256()
    for path in sorted(Path(tokenizer).expanduser().iterdir()):
        if path.is_file() and not path.name.startswith("."):
            data = path.read_bytes()
            sha.update(f"{path.name}|{len(data)}|".encode())
            sha.update(data)
    return sha.hexdigest()


def _is_place(tokenizer: str) -> bool:
    """Whether a folder is meant: it exists, or does not look like the hub's ``owner/name``."""
    path = tokenizer.startswith(("/", ".", "~")) or tokenizer.count("/") > 1
    return path or Path(tokenizer).is_dir()


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
