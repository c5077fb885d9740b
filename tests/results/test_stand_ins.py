"""Maps of another class in each image: of the predicted one and of the one that is the label."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from pipeline import open_results
from pipeline.errors import UsageError
from pipeline.results import Results
from tests.audit.worlds import GRID, World, labels

COUNT = 60
CLASSES = ["red fox", "dog", "eel"]
QUERIES = [name.replace(" ", "_") for name in CLASSES]


def made(kept: str, *, queries: Sequence[str] = QUERIES, seed: int = 1) -> World:
    """A classifier's run that keeps the maps of all classes, or of one class in each image."""
    predicted = labels(COUNT, CLASSES, seed=seed)
    world = World(labels(COUNT, CLASSES), columns={"predicted_label": list(predicted)})
    world.labels[3] = world.columns["predicted_label"][5] = None
    world.statuses[7] = "decode_error"
    world.scores = {name: np.random.default_rng(0).normal(size=COUNT) for name in queries}
    maps = np.random.default_rng(2).random((COUNT, len(CLASSES), *GRID))
    if kept == "all":
        world.maps = {name: maps[:, i] for i, name in enumerate(queries)}
    else:
        chosen = world.columns["predicted_label"] if kept == "predicted" else world.labels
        classes = [CLASSES.index(name or CLASSES[0]) for name in chosen]
        world.maps = {kept: maps[np.arange(COUNT), classes]}
    return world


def write(folder: Path, kept: str) -> Results:
    return open_results(made(kept).write(folder / kept, {}, QUERIES))


@pytest.mark.parametrize("kept", ["predicted", "own_label"])
@pytest.mark.parametrize("query", ["predicted", "own_label", *QUERIES])
def test_one_column_holds_what_all_columns_hold_for_its_class(
    tmp_path: Path, kept: str, query: str
) -> None:
    every, single = write(tmp_path, "all"), write(tmp_path, kept)
    frame = every.images(["label", "predicted_label"])
    class_of = {"predicted": frame["predicted_label"], "own_label": frame["label"]}
    wanted = class_of.get(query, query.replace("_", " "))
    fine = every.images(["status"])["status"] == "ok"
    there = np.asarray((class_of[kept] == wanted) & fine)
    ids, expected = every.maps(query)
    assert np.isfinite(expected[there]).all()
    assert 0 < there.sum() < COUNT
    found_ids, found = single.maps(query)
    assert list(found_ids) == list(ids) == list(frame.index)
    if query != kept:
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


def test_other_labels_change_the_own_class_and_not_the_predicted_one(tmp_path: Path) -> None:
    results = write(tmp_path, "predicted")
    frame = results.images(["label", "predicted_label", "status"])
    table = tmp_path / "labels.csv"
    frame["predicted_label"].rename("label").dropna().to_csv(table)
    relabelled = open_results(str(tmp_path / "predicted"), class_labels=str(table))
    _, before = results.maps("predicted")
    np.testing.assert_array_equal(relabelled.maps("predicted")[1], before)
    same = np.asarray(frame["predicted_label"].notna())
    np.testing.assert_array_equal(relabelled.maps("own_label")[1][same], before[same])


def test_images_with_several_labels(tmp_path: Path) -> None:
    world = made("predicted")
    world.sets = [[str(name), "eel"] for name in world.columns["predicted_label"]]
    results = open_results(world.write(tmp_path / "out", {}, QUERIES))
    same = np.asarray(results.images(["predicted_label"])["predicted_label"].notna())
    own, predicted = (results.maps(name)[1][same] for name in ("own_label", "predicted"))
    np.testing.assert_array_equal(own, predicted)


def test_a_query_that_is_called_predicted_is_a_query(tmp_path: Path) -> None:
    """Earlier versions took that name."""
    world = World(labels(COUNT, CLASSES), scores={"predicted": np.zeros(COUNT)})
    world.maps = {"predicted": np.random.default_rng(0).random((COUNT, *GRID))}
    outputs = [world.write(tmp_path / name, {}, []) for name in ("a", "b")]
    for results in (open_results(outputs[0]), open_results(outputs)):
        assert np.isfinite(results.maps("predicted")[1]).all()
        assert results.scores(["predicted"]).notna().all(axis=None)
        assert results.to_long()["heatmap_max"].notna().all()
        batches = list(results.batches(["predicted"]))
        assert all("score__predicted" in batch.column_names for batch in batches)


def test_joined_runs_of_which_one_keeps_a_map_per_image(tmp_path: Path) -> None:
    """Predictions are read from the joined rows, which hold those of one run."""
    other = made("all", queries=["x_red_fox", "x_dog", "x_eel"], seed=3)
    first, second = tmp_path / "predicted", tmp_path / "other"
    made("predicted").write(first, {}, QUERIES)
    other.write(second, {}, list(other.scores))
    with pytest.raises(UsageError, match="'predicted' would be another class in each"):
        open_results([str(first), str(second)])
    other.columns = {}
    cues = other.write(tmp_path / "cues", {}, list(other.scores))
    joined = open_results([cues, str(first)])
    np.testing.assert_array_equal(
        joined.maps("predicted")[1], open_results(str(first)).maps("predicted")[1]
    )
