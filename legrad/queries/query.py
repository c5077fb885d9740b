"""Named queries, each a direction in the embedding space. No torch at import.

A query is of one of four kinds: texts, exemplar images, the difference of two other queries, or a
vector from a file. The score of an image is always < unit image feature, direction >.
"""

import re
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import (
    BeforeValidator,
    SerializerFunctionWrapHandler,
    StrictBool,
    model_serializer,
    model_validator,
)

from legrad.queries.directions import (
    VECTOR_SUFFIXES,
    content_digest,
    exemplar_mean,
    split_part,
    vector_direction,
)
from legrad.queries.distinct import make_distinct
from legrad.settings import PathOrUri, Settings

if TYPE_CHECKING:
    from torch import Tensor

    from legrad.models.vision_language import VisionLanguageModel

NAME_PATTERN = r"[a-z][a-z0-9_]{0,47}"


class Role(StrEnum):
    """What a query stands for in an audit."""

    CLASS = "class"
    CUE = "cue"
    BASELINE = "baseline"
    DECOY = "decoy"
    """A cue that the model knows but the data set does not contain: the rate at which the audit
    reports decoys estimates its rate of false findings."""


def _checked_name(name: Any) -> Any:
    if not isinstance(name, str):
        raise ValueError(
            f"expected text, found {name!r} (YAML does not read null, on, off, yes, no and numbers "
            "as text: put the name in quotes)"
        )
    if not re.fullmatch(NAME_PATTERN, name):
        raise ValueError(
            f"{name!r} is not a query name: lower-case letters, digits and underscores, a letter "
            "first, at most 48 characters (put free text into `prompts`)"
        )
    return name


QueryName = Annotated[str, BeforeValidator(_checked_name)]
Templates = str | tuple[str, ...]


def _as_tuple(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


KINDS = ("prompts", "images", "difference", "vector")


class Query(Settings):
    """One query: exactly one of ``prompts``, ``images``, ``difference`` and ``vector``.

    Attributes:
        name: suffix of its columns: ``score__<name>``, ``heatmap__<name>``.
        role: ``class``, ``cue``, ``decoy`` (a cue that the data set does not contain) or
            ``baseline``.
        prompts: texts; their features are averaged and normalised again. Default: the name with
            spaces for underscores.
        templates: sentences that each prompt is put into: ``none``, ``simple`` (7) or
            ``imagenet`` (80) from open_clip, or your own texts, each with ``{}``.
        images: files of exemplar images (paths or URIs); their unit features are averaged and
            normalised again.
        difference: names of two other queries, neither a difference; the first direction minus the
            second, so that the score is the difference of their scores.
        vector: a row of a ``.npy`` or a tensor of a ``.safetensors`` file, written ``file#part``
            if the file has several; used as it is, whatever its length.
        label: for a class, its label in the data set; default: the name.
        distinct: what the texts say beyond other texts: ``true`` for the other classes, cues and
            decoys of the run that are texts, or a list of names. See `legrad.queries.distinct`.
    """

    name: QueryName
    role: Role
    prompts: tuple[str, ...] = ()
    templates: Templates = "none"
    images: Annotated[tuple[PathOrUri, ...], BeforeValidator(_as_tuple)] = ()
    difference: tuple[QueryName, QueryName] | None = None
    vector: PathOrUri | None = None
    label: str | None = None
    distinct: StrictBool | Annotated[tuple[QueryName, ...], BeforeValidator(_as_tuple)] = False

    @model_serializer(mode="wrap")
    def _without_default(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Runs that were made before queries could be distinct keep their identity."""
        values: dict[str, Any] = serialise(self)
        if not self.distinct:
            values.pop("distinct", None)
        return values

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        data = dict(data)
        prompts = data.get("prompts")
        if isinstance(prompts, str):
            data["prompts"] = (prompts,)
        elif any(data.get(kind) for kind in KINDS[1:]):
            data["prompts"] = prompts or ()
        elif prompts is None and isinstance(data.get("name"), str):
            data["prompts"] = (data["name"].replace("_", " "),)
        if data.get("label") is None and data.get("role") == Role.CLASS:
            data["label"] = data.get("name")
        return data

    @model_validator(mode="after")
    def _consistent(self) -> "Query":
        kinds = [kind for kind in KINDS if getattr(self, kind)]
        if len(kinds) > 1:
            raise ValueError(
                f"query {self.name!r} has {' and '.join(kinds)}: expected one of {', '.join(KINDS)}"
            )
        if kinds != ["prompts"] and kinds:
            self._check_direction()
        elif not self.prompts or not all(prompt.strip() for prompt in self.prompts):
            raise ValueError(f"query {self.name!r} has an empty prompt")
        if self.distinct and not self.prompts:
            raise ValueError(f"query {self.name!r} has no texts: only texts can be made distinct")
        if self.distinct is not True and self.name in (self.distinct or ()):
            raise ValueError(f"query {self.name!r} is to be distinct from itself")
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

    def _check_direction(self) -> None:
        if self.templates != "none":
            raise ValueError(f"query {self.name!r} has templates but no prompts to put into them")
        if self.vector and not split_part(self.vector)[0].endswith(VECTOR_SUFFIXES):
            raise ValueError(
                f"query {self.name!r}: vector {self.vector!r}: expected a file ending in "
                f"{' or '.join(VECTOR_SUFFIXES)}"
            )
        if self.difference and self.name in self.difference:
            raise ValueError(f"query {self.name!r} is a difference with itself")

    @property
    def files(self) -> tuple[str, ...]:
        """Paths and URIs of the files that define the query; empty for texts and differences."""
        return self.images if self.vector is None else (split_part(self.vector)[0],)

    def texts(self) -> list[str]:
        """All prompts in all templates; empty for a query without texts."""
        return [text for prompt in self.prompts for text in _fill(self.templates, prompt)]


def check_differences(queries: Sequence[Query]) -> None:
    """Check that every difference is of two other queries that are not differences themselves.

    Raises:
        ValueError: one is not.
    """
    plain = {query.name for query in queries if query.difference is None}
    for query in queries:
        invalid = [name for name in query.difference or () if name not in plain]
        if invalid:
            raise ValueError(
                f"query {query.name!r} is a difference with {invalid[0]!r}: expected names of two "
                f"other queries that are not differences: {', '.join(sorted(plain)) or 'none'}"
            )


def with_distinct_names(queries: Sequence[Query]) -> tuple[Query, ...]:
    """The queries with ``distinct: true`` replaced by the names that it stands for.

    Raises:
        ValueError: a query is to be distinct from a name that is not a query with texts.
    """
    texts = {query.name: query for query in queries if query.prompts}
    every = [name for name, query in texts.items() if query.role is not Role.BASELINE]
    resolved = []
    for query in queries:
        names = _distinct_names(query, every)
        unknown = [name for name in names if name not in texts]
        if unknown:
            raise ValueError(
                f"query {query.name!r} is to be distinct from {unknown[0]!r}: expected names of "
                f"other queries with texts: {', '.join(n for n in texts if n != query.name)}"
            )
        if query.distinct and not names:
            raise ValueError(f"query {query.name!r} is to be distinct, but from no other text")
        resolved.append(query.model_copy(update={"distinct": names}) if names else query)
    return tuple(resolved)


def _distinct_names(query: Query, every: Sequence[str]) -> tuple[str, ...]:
    if isinstance(query.distinct, tuple):
        return query.distinct
    return tuple(name for name in every if name != query.name) if query.distinct else ()


def distinct_texts(
    queries: Sequence[Query], directions: Mapping[str, NDArray[np.float64]]
) -> dict[str, NDArray[np.float64]]:
    """Name -> (E,) direction of each query that is to be distinct from others.

    Args:
        queries: all queries of a run.
        directions: name -> (E,) unit direction of the texts of all of them.

    Raises:
        ValueError: a name is unknown, or nothing remains of a text.
    """
    named = with_distinct_names(queries)
    distinct = {query.name: query.distinct for query in named if isinstance(query.distinct, tuple)}
    return make_distinct(directions, {name: others for name, others in distinct.items() if others})


def encode_queries(model: "VisionLanguageModel", queries: Sequence[Query]) -> "Tensor":
    """(Q, E) directions on the model's device: unit rows, except for differences and vectors.

    Raises:
        FileNotFoundError: a file of a query is missing.
        ValueError: a file is invalid, a query names an unknown one, or nothing remains of a text
            that is to be distinct from others.
    """
    import torch

    check_differences(queries)
    directions = dict(_text_features(model, [query for query in queries if query.prompts]))
    if any(query.distinct for query in queries):
        exact = {name: row.double().cpu().numpy() for name, row in directions.items()}
        for name, row in distinct_texts(queries, exact).items():
            directions[name] = torch.from_numpy(row).to(directions[name])
    for query in queries:
        if query.images:
            directions[query.name] = exemplar_mean(model, query.images)
        elif query.vector is not None:
            directions[query.name] = vector_direction(model, query.vector)
    for query in queries:
        if query.difference is not None:
            plus, minus = query.difference
            directions[query.name] = directions[plus] - directions[minus]
    return torch.stack([directions[query.name] for query in queries])


def query_digests(queries: Sequence[Query]) -> dict[str, str]:
    """SHA-256 (hex) of the files' content, by name, of each query that is defined by files."""
    digests = {query.name: content_digest(query.images, query.vector) for query in queries}
    return {name: digest for name, digest in digests.items() if digest is not None}


def _text_features(
    model: "VisionLanguageModel", queries: Sequence[Query]
) -> list[tuple[str, "Tensor"]]:
    """(name, direction) of each query: the features of its texts averaged and normalised again."""
    import torch.nn.functional as F

    if not queries:
        return []
    texts = [query.texts() for query in queries]
    features = model.encode_text([text for group in texts for text in group])
    means = [part.mean(dim=0) for part in features.split([len(group) for group in texts])]
    names = [query.name for query in queries]
    return [(name, F.normalize(mean, dim=-1)) for name, mean in zip(names, means, strict=True)]


def _fill(templates: Templates, prompt: str) -> list[str]:
    if templates == "none":
        return [prompt]
    if isinstance(templates, tuple):
        return [text.replace("{}", prompt) for text in templates]
    from open_clip import OPENAI_IMAGENET_TEMPLATES, SIMPLE_IMAGENET_TEMPLATES

    named = SIMPLE_IMAGENET_TEMPLATES if templates == "simple" else OPENAI_IMAGENET_TEMPLATES
    return [template(prompt) for template in named]
