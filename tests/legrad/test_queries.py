"""Queries: names, roles, prompts, templates, and their text features."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.numpy import save_file

from legrad import Query, from_open_clip
from legrad.queries.query import Role, encode_queries, query_digests
from tests.builders import tiny_clip, tokenize
from tests.data import picture


def query(name: Any = "wet_dog", role: Any = "cue", **fields: Any) -> Query:
    return Query(name=name, role=role, **fields)


@pytest.mark.parametrize("name", ["a", "dog", "wet_dog", "dog_2", "a" * 48])
def test_names(name: str) -> None:
    assert query(name).name == name


@pytest.mark.parametrize(
    "name", ["", "Dog", "2dogs", "_dog", "a dog", "dög", "a-b", "a" * 49, "a\n"]
)
def test_names_that_are_no_column_names(name: str) -> None:
    with pytest.raises(ValidationError, match="is not a query name"):
        query(name)


@pytest.mark.parametrize("name", [None, True, False, 1, 1.5])
def test_names_that_yaml_read_as_something_else(name: Any) -> None:
    with pytest.raises(ValidationError, match=r"expected text.*put the name in quotes"):
        query(name)


@pytest.mark.parametrize("role", ["class", "cue", "baseline", "decoy"])
def test_roles(role: str) -> None:
    assert query(role=role).role == Role(role) == role


def test_unknown_role() -> None:
    with pytest.raises(ValidationError, match="'class', 'cue', 'baseline' or 'decoy'"):
        query(role="label")


def test_the_prompt_is_the_name_in_words() -> None:
    assert query().prompts == ("wet dog",)
    assert query().texts() == ["wet dog"]


@pytest.mark.parametrize("prompts", ["a wet dog", ["a wet dog"], ("a wet dog",)])
def test_one_prompt(prompts: Any) -> None:
    assert query(prompts=prompts).prompts == ("a wet dog",)


@pytest.mark.parametrize("prompts", [[], "", " ", ["dog", "\t"]])
def test_empty_prompts(prompts: Any) -> None:
    with pytest.raises(ValidationError, match="empty prompt"):
        query(prompts=prompts)


def test_labels() -> None:
    assert query(role="class").label == "wet_dog"
    assert query(role=Role.CLASS).label == "wet_dog"
    assert query(role="class", label="Wet Dog").label == "Wet Dog"
    assert query(role="cue").label is None
    with pytest.raises(ValidationError, match="only a class has a label"):
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


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Two exemplars and vectors of 32 numbers."""
    for number in (0, 1):
        picture(number).save(tmp_path / f"{number}.png")
    rows = np.random.default_rng(0).standard_normal((3, 32)).astype(np.float32)
    np.save(tmp_path / "rows.npy", rows)
    np.save(tmp_path / "row.npy", rows[1].astype(np.float64))
    save_file({"probe": rows[1], "other": rows[2]}, tmp_path / "named.safetensors")
    save_file({"probe": rows[1:2]}, tmp_path / "one.safetensors")
    return tmp_path


def test_directions_of_all_kinds(files: Path) -> None:
    model = from_open_clip(tiny_clip(0, dtype=torch.float32), tokenizer=tokenize)
    queries = [
        query("wet_minus_dry", difference=["wet", "dry"]),
        query("wet"),
        query("dry", prompts=["dry", "arid"]),
        query("looks", images=[f"{files}/0.png", f"{files}/1.png"]),
        query("probe", vector=f"{files}/rows.npy#1"),
        query("against", difference=["looks", "probe"]),
    ]
    seen = dict(zip([q.name for q in queries], encode_queries(model, queries), strict=True))
    text = encode_queries(model, queries[1:3])
    torch.testing.assert_close(seen["wet_minus_dry"], text[0] - text[1])
    pixels = torch.stack([torch.from_numpy(model.preprocess(picture(n))) for n in (0, 1)])
    with torch.no_grad():
        own = model.model.encode_image(model.normalise(pixels), normalize=True).mean(dim=0)
    torch.testing.assert_close(seen["looks"], own / own.norm())
    expected = torch.from_numpy(np.load(files / "rows.npy")[1])
    assert torch.equal(seen["probe"], expected)
    torch.testing.assert_close(seen["against"], seen["looks"] - expected)


@pytest.mark.parametrize(
    "place", ["row.npy", "rows.npy#1", "named.safetensors#probe", "one.safetensors"]
)
def test_a_vector_wherever_it_lies(files: Path, place: str) -> None:
    model = from_open_clip(tiny_clip(0, dtype=torch.float32))
    one = query(vector=f"{files}/{place}")
    assert torch.equal(
        encode_queries(model, [one])[0], torch.from_numpy(np.load(files / "rows.npy")[1])
    )
    assert query_digests([one]) == query_digests([query(vector=f"{files}/row.npy")])
    assert query_digests([one]) != query_digests([query(vector=f"{files}/rows.npy#2")])


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("rows.npy", r"found float32 \(3, 32\)"),
        ("rows.npy#3", "not a row of a .npy file"),
        ("named.safetensors", "other, probe"),
        ("0.png#x.npy", "expected a file ending in .npy or .safetensors"),
        ("broken.npy", "not a row of a .npy file"),
        ("broken.safetensors", "not a .safetensors file"),
        ("short.npy", "expected 32 .*'custom', found 5"),
        ("nan.npy", "expected one row of finite floats"),
    ],
)
def test_vectors_that_do_not_fit(files: Path, place: str, words: str) -> None:
    (files / "broken.npy").write_bytes(b"x")
    (files / "broken.safetensors").write_bytes(b"x")
    np.save(files / "short.npy", np.ones(5))
    np.save(files / "nan.npy", np.full(32, np.nan))
    model = from_open_clip(tiny_clip(0, dtype=torch.float32))
    with pytest.raises(ValueError, match=words):
        encode_queries(model, [query(vector=f"{files}/{place}")])


def test_missing_and_broken_files(files: Path) -> None:
    model = from_open_clip(tiny_clip(0, dtype=torch.float32))
    for fields in ({"vector": f"{files}/no.npy"}, {"images": f"{files}/no.png"}):
        with pytest.raises(FileNotFoundError, match=r"no file at .*/no\.png|no file at .*/no\.npy"):
            encode_queries(model, [query(**fields)])
    with pytest.raises(ValueError, match=r"rows\.npy: not an image"):
        encode_queries(model, [query(images=f"{files}/rows.npy")])


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"images": ["a.png"], "prompts": "a"}, "has prompts and images: expected one of"),
        ({"vector": "a.npy", "difference": ["a", "b"]}, "has difference and vector"),
        ({"vector": "a.npy", "templates": "simple"}, "templates but no prompts"),
        ({"difference": ["wet_dog", "a"]}, "is a difference with itself"),
        ({"difference": ["a"]}, "difference"),
        ({"difference": ["A", "b"]}, "is not a query name"),
    ],
)
def test_directions_that_are_refused(fields: Any, words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        query(**fields)


def test_a_difference_is_of_queries_that_are_there() -> None:
    model = from_open_clip(tiny_clip(0), tokenizer=tokenize)
    two = [query("a"), query("b"), query("c", difference=["a", "b"])]
    for strange in ("d", "c"):
        with pytest.raises(ValueError, match=f"difference with '{strange}'"):
            encode_queries(model, [*two, query("x", difference=["a", strange])])


def test_a_moved_exemplar_has_the_same_digest(files: Path) -> None:
    (files / "copy.png").write_bytes((files / "0.png").read_bytes())
    digests = [query_digests([query(images=f"{files}/{n}.png")]) for n in ("0", "copy", "1")]
    assert digests[0] == digests[1] != digests[2]
    assert query_digests([query()]) == {}
