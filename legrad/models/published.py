"""What open_clip's tags say about the weights of an architecture: activation and normalisation.

A weights file says neither, and open_clip then takes GELU and CLIP's mean and standard deviation,
which are wrong for many architectures. So what all tags of a name agree on is taken.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import open_clip
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD

from legrad.models.definition import MINI, Definition, define
from legrad.settings import WEIGHTS_SUFFIXES, is_weights_uri

QUICK_GELU = "quick_gelu"
PREPROCESSING: Mapping[str, Any] = {
    "mean": OPENAI_DATASET_MEAN,
    "std": OPENAI_DATASET_STD,
    "interpolation": "bicubic",
}
"""What open_clip takes where nothing says it."""
_PROPERTIES: Mapping[str, tuple[str, ...]] = {
    "activation": (QUICK_GELU,),
    "mean and standard deviation": ("mean", "std"),
    "interpolation": ("interpolation",),
}
"""Property -> its keys in open_clip's tags."""
_SHOWN_TAGS = 4


def require_tag(definition: Definition, tag: str) -> None:
    """Check that open_clip has a tag of published weights; nothing is fetched.

    Raises:
        ValueError: there is no such tag.
    """
    tags = open_clip.list_pretrained_tags_by_model(definition.name)
    if tag not in tags:
        listed = f"tags: {', '.join(tags) or 'none'}"
        if not definition.built_in:
            listed = "only names of open_clip have tags"
        raise ValueError(
            f"{tag!r}: no such tag for {definition.name!r} and not a weights file "
            f"({', '.join(WEIGHTS_SUFFIXES)}); {listed}"
        )


def as_published(
    definition: Definition, pretrained: str | None, tag: str | None = None
) -> tuple[Definition, tuple[str, ...]]:
    """Complete a definition by what open_clip's tags say about its weights.

    Args:
        definition: the model.
        pretrained: the tag or the weights file that is loaded; None for the model's own weights.
        tag: the tag whose activation and normalisation a weights file has; None if unknown.

    Returns:
        The definition, in which activation, mean, standard deviation and interpolation are those
        of the tag, or those that all tags agree on; and one note for each of these that is a guess.

    Raises:
        ValueError: there is no such tag, or ``tag`` is given for other weights than a file.
    """
    from_tag = pretrained is not None and not is_weights_uri(pretrained)
    if tag is not None and (from_tag or pretrained is None):
        raise ValueError(f"tag {tag!r}: it describes a weights file; name that as pretrained")
    if definition.name == MINI:
        return definition, ()
    if from_tag:
        tag = pretrained
    if tag is not None:
        require_tag(definition, tag)
    if not definition.built_in:
        return definition, _unsaid(definition)
    tags = [tag] if tag else open_clip.list_pretrained_tags_by_model(definition.name)
    published = {name: _values(definition, name) for name in tags}
    chosen, notes = _assumed(definition), []
    for words, keys in _PROPERTIES.items():
        values = {tuple(said[key] for key in keys) for said in published.values()}
        if len(values) == 1:
            chosen |= zip(keys, values.pop(), strict=True)
        elif values:
            notes.append(_note(definition.name, words, chosen, published))
    config = {**definition.config, QUICK_GELU: chosen.pop(QUICK_GELU)}
    return replace(definition, config=config, preprocessing=chosen), tuple(notes)


def definition_digest(name: str, pretrained: str | None, tag: str | None) -> str | None:
    """Digest of what the model's name, its weights and the tag of the weights leave open.

    Returns:
        SHA-256 (hex) of a definition from a file, a folder or a repository, and of one that takes
        its activation or normalisation from other tags than open_clip would; None for others.
    """
    named = define(name)
    completed, _ = as_published(named, pretrained, tag)
    from_tag = pretrained is not None and not is_weights_uri(pretrained)
    quick = bool(named.config.get(QUICK_GELU)), bool(completed.config.get(QUICK_GELU))
    if named.built_in and (from_tag or (tag is None and quick[0] == quick[1])):
        return None
    return completed.digest


def _assumed(definition: Definition) -> dict[str, Any]:
    return {QUICK_GELU: bool(definition.config.get(QUICK_GELU)), **PREPROCESSING}


def _values(definition: Definition, tag: str) -> dict[str, Any]:
    """What a tag says; what it leaves open is as assumed."""
    said = open_clip.get_pretrained_cfg(definition.name, tag)
    values = {key: said.get(key) or default for key, default in _assumed(definition).items()}
    return {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}


def _note(
    name: str, words: str, chosen: Mapping[str, Any], published: Mapping[str, Mapping[str, Any]]
) -> str:
    keys = _PROPERTIES[words]
    others = [tag for tag, said in published.items() if any(said[k] != chosen[k] for k in keys)]
    listed = ", ".join(others[:_SHOWN_TAGS]) + (", ..." if len(others) > _SHOWN_TAGS else "")
    assumed, other = (_in_words(keys[0], said) for said in (chosen, published[others[0]]))
    return (
        f"the weights file does not say its {words}: {assumed} is assumed, as in "
        f"{len(published) - len(others)} of the {len(published)} tags of {name}; the others have "
        f"{other} ({listed}). If it was trained from one of these, set model.tag (--tag) to it"
    )


def _in_words(key: str, values: Mapping[str, Any]) -> str:
    if key == QUICK_GELU:
        return "QuickGELU" if values[key] else "GELU"
    return f"{key} {values[key]}"


def _unsaid(definition: Definition) -> tuple[str, ...]:
    """A note if a file or folder leaves its normalisation open."""
    if all(key in definition.preprocessing for key in ("mean", "std")):
        return ()
    activation = "" if QUICK_GELU in definition.config else " and GELU"
    return (
        f"model {definition.name} does not say how pixels are normalised: CLIP's mean and standard "
        f'deviation{activation} are assumed. Its JSON file says otherwise by "model_cfg": '
        '{"quick_gelu": true, ...} and "preprocess_cfg": {"mean": [...], "std": [...]}',
    )
