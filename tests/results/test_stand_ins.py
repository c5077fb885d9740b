"""Maps of another class in each image: of the predicted one and of the one that is the label."""

from pathlib import Path

import numpy as np
import pytest

from pipeline import open_results
from pipeline.results import Results
from tests.audit.worlds import GRID, World, labels

COUNT = 60
CLASSES = ["red fox", "dog", "eel"]
QUERIES = [name.replace(" ", "_") for name in CLASSES]


def write(folder: Path, kept: str) -> Results:
    """A classifier's run that keeps the maps of all classes, or of one class in each image."""
    predicted = labels(COUNT, CLASSES, seed=1)
    world = World(labels(COUNT, CLASSES), columns={"predicted_label": [str(p) for p in predicted]})
    world.scores = {name: np.random.default_rng(0).normal(size=COUNT) for name in QUERIES}
    maps = np.random.default_rng(2).random((COUNT, len(CLASSES), *GRID))
    if kept == "all":
        world.maps = {name: maps[:, i] for i, name in enumerate(QUERIES)}
    else:
        chosen = predicted if kept == "predicted" else world.labels
        classes = [CLASSES.index(str(name)) for name in chosen]
        world.maps = {kept: maps[np.arange(COUNT), classes]}
    return open_results(world.write(folder / kept, {}, QUERIES))


@pytest.mark.parametrize("kept", ["predicted", "own_label"])
@pytest.mark.parametrize("query", ["predicted", "own_label", *QUERIES])
def test_one_column_holds_what_all_columns_hold_for_its_class(
    tmp_path: Path, kept: str, query: str
) -> None:
    every, single = write(tmp_path, "all"), write(tmp_path, kept)
    frame = every.images(["label", "predicted_label"])
    class_of = {"predicted": frame["predicted_label"], "own_label": frame["label"]}
    wanted = class_of.get(query, query.replace("_", " "))
    there = np.asarray(class_of[kept] == wanted)
    assert there.all() == (query == kept)
    ids, expected = every.maps(query)
    assert np.isfinite(expected).all()
    found_ids, found = single.maps(query)
    assert list(found_ids) == list(ids) == list(frame.index)
    assert np.isfinite(found).all(axis=(1, 2)).tolist() == there.tolist()
    np.testing.assert_array_equal(found[there], expected[there])
    if query in QUERIES:
        peaks = single.to_long([query])["heatmap_max"].to_numpy()
        assert np.isfinite(peaks).tolist() == there.tolist()
        of_all = every.to_long([query])["heatmap_max"].to_numpy()
        np.testing.assert_array_equal(peaks[there], of_all[there])


def test_a_stand_in_has_no_score(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="predicted has maps but no scores"):
        write(tmp_path, "predicted").scores(["predicted"])


def test_without_predictions_there_is_no_predicted_class(tmp_path: Path) -> None:
    world = World(labels(COUNT, CLASSES), scores={"dog": np.zeros(COUNT)})
    world.maps = {"dog": np.ones((COUNT, *GRID))}
    results = open_results(world.write(tmp_path / "out", {}, ["dog"]))
    with pytest.raises(KeyError, match="no query 'predicted'"):
        results.maps("predicted")
