"""The base class of every settings model, and the resolution of paths in settings."""

import difflib
import os
import posixpath
from collections.abc import Callable
from enum import EnumType
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationInfo, model_validator

WEIGHTS_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")
BASE = "base"
"""Key of the validation context: the folder (a `Path`) that relative paths are relative to."""


class TextFrom(str):
    """A text of the settings whose relative path is relative to a folder other than the file's.

    Attributes:
        base: that folder.
    """

    __slots__ = ("base",)
    base: Path

    def __new__(cls, text: str, base: Path) -> "TextFrom":
        """Make the text of a folder."""
        new = super().__new__(cls, text)
        new.base = base
        return new


def text_from(value: Any, base: Path) -> Any:
    """A value in which every text, at any depth, is a `TextFrom` with this folder."""
    return _with_texts(value, lambda text: TextFrom(text, base))


def plain(value: Any) -> Any:
    """A value in which every `TextFrom`, at any depth, is plain text."""
    return _with_texts(value, str)


def _with_texts(value: Any, convert: Callable[[str], str]) -> Any:
    if isinstance(value, dict):
        return {key: _with_texts(item, convert) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_with_texts(item, convert) for item in value]
    return convert(value) if isinstance(value, str) else value


def is_uri(path: str) -> bool:
    """Whether a path has a scheme (``s3://``)."""
    return "://" in path


def absolute(path: str, base: Path) -> str:
    """A relative local path made absolute against a folder; URIs stay as they are."""
    if is_uri(path):
        return str(path)
    return posixpath.normpath((base / Path(path).expanduser()).as_posix())


def resolved(value: Any, info: ValidationInfo) -> Any:
    """A path of a setting as an absolute path; unchanged where no folder is known."""
    if not isinstance(value, str):
        return value
    base = value.base if isinstance(value, TextFrom) else (info.context or {}).get(BASE)
    return value if base is None else absolute(value, base)


def is_weights_uri(pretrained: str) -> bool:
    """Whether ``pretrained`` names a weights file, by suffix or slash, and not a tag."""
    return pretrained.endswith(WEIGHTS_SUFFIXES) or "/" in pretrained or os.sep in pretrained


PathOrUri = Annotated[str, BeforeValidator(resolved)]
"""A path or URI; a relative path is relative to the file that names it (see `BASE`)."""
StorageOptions = Annotated[dict[str, Any], BeforeValidator(plain)]
"""Options of an fsspec file system."""


class Settings(BaseModel):
    """A frozen group of settings that refuses keys it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _known_keys_only(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        unknown = [str(key) for key in data if key not in cls.model_fields]
        if unknown:
            near = difflib.get_close_matches(unknown[0], list(cls.model_fields), n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise ValueError(
                f"unknown key {', '.join(map(repr, unknown))}{hint}; valid keys: "
                f"{', '.join(cls.model_fields)}"
            )
        for name, field in cls.model_fields.items():
            if name not in data and field.is_required() and isinstance(field.annotation, EnumType):
                choices = ", ".join(choice.value for choice in field.annotation)
                raise ValueError(f"{name} is missing; expected one of {choices}")
        return data
