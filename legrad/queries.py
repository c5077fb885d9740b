"""Named queries -> unit text features: prompts, template sets, averaging. No torch at import."""

import re
from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator, model_validator

from legrad.settings import Settings

if TYPE_CHECKING:
    from torch import Tensor

    from legrad.models import VisionLanguageModel

NAME_PATTERN = r"[a-z][a-z0-9_]{0,47}"


class Role(StrEnum):
    """What a query stands for in an audit."""

    CLASS = "class"
    CUE = "cue"
    BASELINE = "baseline"


def _checked_name(name: Any) -> Any:
    if not isinstance(name, str):
        raise ValueError(
            f"expected text, found {name!r} (YAML reads null, on, off, yes, no and numbers as "
            "other things: put the name in quotes)"
        )
    if not re.fullmatch(NAME_PATTERN, name):
        raise ValueError(
            f"{name!r} is not a query name: lower-case letters, digits and underscores, a letter "
            "first, at most 48 characters (put free text into `prompts`)"
        )
    return name


QueryName = Annotated[str, BeforeValidator(_checked_name)]
Templates = str | tuple[str, ...]


class Query(Settings):
    """One text query.

    Attributes:
        name: column suffix: ``score__<name>``, ``heatmap__<name>``.
        role: ``class``, ``cue`` or ``baseline``.
        prompts: texts; their features are averaged and normalised again. Default: the name with
            spaces for underscores.
        templates: put around each prompt: ``none``, ``simple`` (7) or ``imagenet`` (80), as
            open_clip ships them, or own texts that contain ``{}``.
        label: for a class, the data set's label it stands for; default: the name.
    """

    name: QueryName
    role: Role
    prompts: tuple[str, ...] = ()
    templates: Templates = "none"
    label: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        data = dict(data)
        prompts = data.get("prompts")
        if isinstance(prompts, str):
            data["prompts"] = (prompts,)
        elif prompts is None and isinstance(data.get("name"), str):
            data["prompts"] = (data["name"].replace("_", " "),)
        if data.get("label") is None and data.get("role") == Role.CLASS:
            data["label"] = data.get("name")
        return data

    @model_validator(mode="after")
    def _consistent(self) -> "Query":
        if not self.prompts or not all(prompt.strip() for prompt in self.prompts):
            raise ValueError(f"query {self.name!r} has an empty prompt")
        if self.label is not None and self.role is not Role.CLASS:
            raise ValueError(f"query {self.name!r} is a {self.role}: only a class has a label")
        if isinstance(self.templates, str):
            if self.templates not in ("none", "simple", "imagenet"):
                raise ValueError(
                    f"templates {self.templates!r}: expected none, simple, imagenet, or a list of "
                    "texts with {}"
                )
        elif not self.templates or not all("{}" in text for text in self.templates):
            raise ValueError(f"query {self.name!r}: every template must contain {{}}")
        return self

    def texts(self) -> list[str]:
        """All prompts in all templates."""
        return [text for prompt in self.prompts for text in _fill(self.templates, prompt)]


def encode_queries(model: "VisionLanguageModel", queries: Sequence[Query]) -> "Tensor":
    """(Q, E) unit rows: each query's texts encoded, averaged and normalised again."""
    import torch
    import torch.nn.functional as F

    texts = [query.texts() for query in queries]
    features = model.encode_text([text for group in texts for text in group])
    means = [part.mean(dim=0) for part in features.split([len(group) for group in texts])]
    return F.normalize(torch.stack(means), dim=-1)


def _fill(templates: Templates, prompt: str) -> list[str]:
    if templates == "none":
        return [prompt]
    if isinstance(templates, tuple):
        return [text.replace("{}", prompt) for text in templates]
    from open_clip import OPENAI_IMAGENET_TEMPLATES, SIMPLE_IMAGENET_TEMPLATES

    named = SIMPLE_IMAGENET_TEMPLATES if templates == "simple" else OPENAI_IMAGENET_TEMPLATES
    return [template(prompt) for template in named]
