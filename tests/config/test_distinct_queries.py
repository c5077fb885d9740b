"""Distinct queries in a run: its settings, its identity, and the directions of its audit."""

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from legrad import load_model
from legrad.queries.query import Query, encode_queries
from pipeline.audit import directions
from pipeline.config import RunConfig
from pipeline.config.loading import validated
from pipeline.errors import UsageError


def config(*queries: dict[str, Any]) -> RunConfig:
    data = {
        "model": {"name": "mini"},
        "source": {"format": "folder", "uri": "/data/images", "alias": "demo"},
        "queries": [{"name": "boat", "role": "class"}, {"name": "water", "role": "cue"}, *queries],
        "output": "/data/out",
    }
    return validated(RunConfig, data, "run.yaml")


def test_the_settings_of_a_run_name_what_a_query_is_distinct_from() -> None:
    border = {"name": "border", "role": "cue", "distinct": True}
    assert config(border).queries[2].distinct == ("boat", "water")
    sand = {"name": "sand", "role": "cue"}
    assert config(border, sand).queries[2].distinct == ("boat", "water", "sand")
    with pytest.raises(UsageError, match=r"'border' is to be distinct from 'snow'.*boat, water"):
        config(border | {"distinct": ["snow"]})


def test_the_audit_has_the_same_directions() -> None:
    model = load_model("mini")
    queries = config(
        {"name": "border", "role": "cue", "prompts": "a border", "distinct": True},
        {"name": "sand", "role": "cue", "distinct": ["water"]},
        {"name": "wet", "role": "cue", "difference": ["border", "sand"]},
    ).queries
    expected = encode_queries(model, queries).numpy()
    texts = [text for query in queries for text in query.texts()]
    features = model.encode_text(texts).numpy().astype(np.float64)
    results = cast(Any, SimpleNamespace(queries=queries))
    found = directions._directions(results, features)
    for row, query in zip(expected, queries, strict=True):
        assert found[query.name] == pytest.approx(row, abs=1e-5), query.name
    plain = [Query.model_validate(q.model_dump() | {"distinct": False}) for q in queries]
    assert not np.allclose(encode_queries(model, plain).numpy()[2], expected[2], atol=0.01)
