"""Directions of texts that say only themselves."""

from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from sklearn.linear_model import orthogonal_mp

from legrad import Query, from_open_clip
from legrad.queries.distinct import ATOMS, make_distinct, residual
from legrad.queries.query import encode_queries, with_distinct_names
from tests.builders import tiny_clip, tokenize


def query(name: str, role: str = "cue", **fields: Any) -> Query:
    return Query.model_validate({"name": name, "role": role, **fields})


def unit(rows: int, width: int = 48, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(rows, width)) + 0.4
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.parametrize("atoms", [1, 3, ATOMS, 30])
def test_the_residual_is_that_of_scikit_learns_matching_pursuit(atoms: int) -> None:
    for seed in range(5):
        direction, *others = unit(41, seed=seed)
        dictionary = np.stack(others).T
        weights = orthogonal_mp(dictionary, direction, n_nonzero_coefs=atoms)
        expected = direction - dictionary @ weights
        found = residual(direction, np.stack(others), atoms)
        assert found == pytest.approx(expected / np.linalg.norm(expected), abs=1e-9)
        assert np.linalg.norm(found) == pytest.approx(1)


def test_the_residual_is_orthogonal_to_the_texts_it_was_freed_from() -> None:
    direction, *others = unit(5)
    assert np.stack(others) @ residual(direction, np.stack(others)) == pytest.approx(0, abs=1e-12)


def test_a_text_that_is_the_same_to_the_model_is_not_subtracted() -> None:
    direction, other, _ = unit(3)
    same = np.stack([direction, other, direction])
    assert residual(direction, same) == pytest.approx(residual(direction, other[None]))
    with pytest.raises(ValueError, match="does not distinguish"):
        residual(direction, direction[None])


def test_nothing_remains_of_a_text_that_others_say() -> None:
    first, second, _ = unit(3)
    both = (first + second) / np.linalg.norm(first + second)
    with pytest.raises(ValueError, match="query 'both' cannot be made distinct"):
        make_distinct(
            {"both": both, "first": first, "second": second}, {"both": ["first", "second"]}
        )


def test_queries_are_made_distinct_from_plain_texts() -> None:
    model = from_open_clip(tiny_clip(0, dtype=torch.float32), tokenizer=tokenize)
    queries = [
        query("dog", "class", distinct=["snow"]),
        query("snow", distinct=["dog", "ice"]),
        query("ice"),
        query("dog_minus_ice", difference=["dog", "ice"]),
    ]
    found = dict(zip([q.name for q in queries], encode_queries(model, queries), strict=True))
    plain = model.encode_text(["dog", "snow", "ice"]).numpy().astype(float)
    dog, snow = residual(plain[0], plain[[1]]), residual(plain[1], plain[[0, 2]])
    assert found["dog"].numpy() == pytest.approx(dog, abs=1e-6)
    assert found["snow"].numpy() == pytest.approx(snow, abs=1e-6)
    assert found["ice"].numpy() == pytest.approx(plain[2])
    assert torch.equal(found["dog_minus_ice"], found["dog"] - found["ice"])


def test_true_stands_for_the_other_classes_cues_and_decoys() -> None:
    queries = [
        query("dog", "class", distinct=True),
        query("snow"),
        query("unicorn", "decoy"),
        query("photo", "baseline", prompts="a photo"),
        query("looks", images=["a.png"]),
        query("against", difference=["dog", "snow"]),
    ]
    named = with_distinct_names(queries)
    assert named[0].distinct == ("snow", "unicorn")
    assert named[1:] == tuple(queries[1:])
    assert with_distinct_names(named) == named


@pytest.mark.parametrize(
    ("others", "words"),
    [
        ([query("a", distinct=True), query("b", images=["b.png"])], "from no other text"),
        ([query("a", distinct=["c"]), query("b")], "from 'c': expected names of other.*: b"),
        ([query("a", distinct=["b"]), query("b", images=["b.png"])], "expected names of other"),
    ],
)
def test_names_that_are_no_texts(others: list[Query], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        with_distinct_names(others)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"images": ["a.png"], "distinct": True}, "only texts can be made distinct"),
        ({"distinct": ["a"]}, "distinct from itself"),
        ({"distinct": ["A"]}, "is not a query name"),
        ({"distinct": 1}, "distinct"),
    ],
)
def test_distinct_that_is_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        query("a", **fields)


def test_queries_that_are_not_distinct_are_stored_as_before() -> None:
    assert "distinct" not in query("a").model_dump(mode="json")
    stored = query("a", distinct="b").model_dump(mode="json")
    assert stored["distinct"] == ["b"]
    assert Query.model_validate(stored) == query("a", distinct=["b"])
