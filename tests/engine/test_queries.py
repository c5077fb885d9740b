"""Queries: names, roles, prompts, templates, and their text features."""

from typing import Any

import pytest
import torch
from pydantic import ValidationError

from legrad import Query, from_open_clip
from legrad.queries import Role, encode_queries
from tests.builders import tiny_clip, tokenize


def query(name: Any = "wet_dog", role: Any = "cue", **fields: Any) -> Query:
    return Query(name=name, role=role, **fields)


@pytest.mark.parametrize("name", ["a", "dog", "wet_dog", "dog_2", "a" * 48])
def test_names(name: str) -> None:
    assert query(name).name == name


@pytest.mark.parametrize(
    "name", ["", "Dog", "2dogs", "_dog", "a dog", "dög", "a-b", "a" * 49, "a\n"]
)
def test_names_that_are_no_column_names(name: str) -> None:
    with pytest.raises(ValidationError, match="is not a query name: lower-case"):
        query(name)


@pytest.mark.parametrize("name", [None, True, False, 1, 1.5])
def test_names_that_yaml_read_as_something_else(name: Any) -> None:
    with pytest.raises(ValidationError, match=r"expected text.*put the name in quotes"):
        query(name)


@pytest.mark.parametrize("role", ["class", "cue", "baseline"])
def test_roles(role: str) -> None:
    assert query(role=role).role == Role(role) == role


def test_unknown_role() -> None:
    with pytest.raises(ValidationError, match="'class', 'cue' or 'baseline'"):
        query(role="label")


def test_the_prompt_is_the_name_in_words() -> None:
    assert query().prompts == ("wet dog",)
    assert query().texts() == ["wet dog"]


@pytest.mark.parametrize("prompts", ["a wet dog", ["a wet dog"], ("a wet dog",)])
def test_one_prompt(prompts: Any) -> None:
    assert query(prompts=prompts).prompts == ("a wet dog",)


@pytest.mark.parametrize("prompts", [[], "", " ", ["dog", "\t"]])
def test_empty_prompts(prompts: Any) -> None:
    with pytest.raises(ValidationError, match="query 'wet_dog' has an empty prompt"):
        query(prompts=prompts)


def test_labels() -> None:
    assert query(role="class").label == "wet_dog"
    assert query(role=Role.CLASS).label == "wet_dog"
    assert query(role="class", label="Wet Dog").label == "Wet Dog"
    assert query(role="cue").label is None
    with pytest.raises(ValidationError, match="is a cue: only a class has a label"):
        query(role="cue", label="dog")


def test_own_templates_around_every_prompt() -> None:
    seen = query(prompts=["dog", "hound {}"], templates=["a {}.", "{} and {}"])
    assert seen.texts() == ["a dog.", "dog and dog", "a hound {}.", "hound {} and hound {}"]


@pytest.mark.parametrize(("templates", "count"), [("none", 1), ("simple", 7), ("imagenet", 80)])
def test_named_templates(templates: str, count: int) -> None:
    texts = query(prompts=["dog", "cat"], templates=templates).texts()
    assert len(texts) == len(set(texts)) == 2 * count
    assert all("dog" in text for text in texts[:count])
    assert all("cat" in text for text in texts[count:])


@pytest.mark.parametrize(
    ("templates", "words"),
    [
        ("all", "templates 'all': expected none, simple, imagenet"),
        ("a photo of {}", "expected none, simple, imagenet"),
        (["a photo"], r"every template must contain \{\}"),
        ([], r"every template must contain \{\}"),
    ],
)
def test_wrong_templates(templates: Any, words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        query(templates=templates)


def test_unknown_fields_are_refused_with_a_hint() -> None:
    with pytest.raises(ValidationError, match=r"unknown key 'prompt'.*did you mean 'prompts'"):
        query(prompt="a dog")


def test_queries_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        query().name = "dog"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_features_are_averaged_and_normalised_again(dtype: torch.dtype) -> None:
    model = from_open_clip(tiny_clip(0, dtype=dtype), tokenizer=tokenize)
    queries = [
        query("dog", "class"),
        query("snow", prompts=["snow", "ice"], templates=["a {}", "{}!", "the {}"]),
        query("null", "baseline", prompts="?"),
    ]
    seen = encode_queries(model, queries)
    assert seen.shape == (3, 32)
    assert seen.dtype == dtype
    for row, one in zip(seen, queries, strict=True):
        with torch.no_grad():
            texts = model.model.encode_text(tokenize(one.texts()))
        units = texts / texts.norm(dim=-1, keepdim=True)
        mean = units.mean(dim=0)
        torch.testing.assert_close(row, mean / mean.norm())
        assert mean.norm() < 0.999 or len(one.texts()) == 1
    torch.testing.assert_close(seen.norm(dim=-1), torch.ones(3, dtype=dtype))


def test_a_text_does_not_depend_on_its_company() -> None:
    model = from_open_clip(tiny_clip(0), tokenizer=tokenize)
    texts = ["a dog", "snow", "a wet dog"]
    together = model.encode_text(texts)
    for row, text in zip(together, texts, strict=True):
        torch.testing.assert_close(model.encode_text([text])[0], row)
    assert not together.requires_grad
