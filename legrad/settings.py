"""Base of every settings model: frozen; unknown keys and choices not made name the valid ones."""

import difflib
from enum import EnumType
from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator


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
