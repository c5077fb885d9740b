"""Class queries whose label no image has."""

import pytest

from legrad.queries.query import Query, Role
from pipeline.config import unmatched_labels

QUERIES = (
    Query(name="cat", role=Role.CLASS),
    Query(name="dog", role=Role.CLASS, label="Dog"),
    Query(name="leash", role=Role.CUE),
)


@pytest.mark.parametrize(
    ("labels", "said", "unsaid"),
    [
        (["cat", "dog"], ["dog", "'Dog'", "did you mean 'dog'"], ["leash", "cat ("]),
        (["bird"], ["2 class queries", "cat ('cat')", "dog ('Dog')", "bird"], ["did you"]),
        ([], ["cat, dog"], []),
    ],
)
def test_labels_that_no_image_has(labels: list[str], said: list[str], unsaid: list[str]) -> None:
    (note,) = unmatched_labels(QUERIES, labels)
    assert all(text in note for text in said)
    assert not any(text in note for text in unsaid)


def test_nothing_is_said_where_every_label_occurs() -> None:
    assert unmatched_labels(QUERIES, {"cat", "Dog", "bird"}) == ()
    assert unmatched_labels(QUERIES[2:], ()) == ()
