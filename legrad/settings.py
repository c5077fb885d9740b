"""Base of every settings model, and the paths that settings name.

The models are frozen, and errors for unknown keys and missing choices name the valid ones.
"""

import difflib
import os
import posixpath
from enum import EnumType
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationInfo, model_validator

WEIGHTS_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")
BASE = "base"
"""Key of the validation context: the folder (a `Path`) that relative paths are relative to."""


class TextFrom(str):
    """A setting's text that was not written in the validated file but relative to another folder.

    Attributes:
        base: that folder.
    """

    __slots__ = ("base",)
    base: Path

    def __new__(cls, text: str, base: Path) -> "TextFrom":
        """The text, with its folder."""
        new = super().__new__(cls, text)
        new.base = base
        return new


def text_from(value: Any, base: Path) -> Any:
    """A value with every text in it, at any depth, as a `TextFrom` a folder."""
    if isinstance(value, dict):
        return {key: text_from(item, base) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [text_from(item, base) for item in value]
    return TextFrom(value, base) if isinstance(value, str) else value


def is_uri(path: str) -> bool:
    """Whether a path has a scheme (``s3://``)."""
    return "://" in path


def absolute(path: str, base: Path) -> str:
    """A relative local path made absolute against a folder; URIs stay as they are."""
    if is_uri(path):
        return str(path)
    return posixpath.normpath((base / Path(path).expanduser()).as_posix())


def resolved(value: Any, info: ValidationInfo) -> Any:
    """A path of a setting as an absolute path; left alone where no folder is known."""
    if not isinstance(value, str):
        return value
    base = value.base if isinstance(value, TextFrom) else (info.context or {}).get(BASE)
    return value if base is None else absolute(value, base)


def is_weights_uri(pretrained: str) -> bool:
    """Whether ``pretrained`` names a weights file (by suffix or slash) and not a tag of one."""
    return pretrained.endswith(WEIGHTS_SUFFIXES) or "/" in pretrained or os.sep in pretrained


def plain(value: Any) -> Any:
    """A value with every `TextFrom` in it, at any depth, as plain text."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, TextFrom) else value


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
