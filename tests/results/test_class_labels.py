"""Labels from a table in place of the stored ones: everything is as if the run had had them."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.compute as pc
import pytest

from pipeline import Audit, open_results
from pipeline.errors import UsageError
from pipeline.results import Results
from tests.audit.worlds import GRID, World, labels

COUNT = 600
CLASSES = ["red fox", "dog"]


def world() -> World:
    """A class with a tag; only the map of each image's own class is stored."""
    made = World(labels(COUNT, CLASSES))
    made.cue("tag", {"red fox": 0.7}).cue("ruler", {}, elsewhere=0.0)
    rng = np.random.default_rng(0)
    for name in ("red_fox", "dog"):
        made.scores[name] = rng.normal(0.2, 0.01, COUNT)
    made.maps = {name: rng.random((COUNT, *GRID)) for name in ("tag", "own_label")}
    return made


@pytest.fixture(scope="module")
def right(tmp_path_factory: pytest.TempPathFactory) -> str:
    place = tmp_path_factory.mktemp("right") / "out"
    return world().write(place, {"ruler": "decoy"}, ["red_fox", "dog"])


@pytest.fixture(scope="module")
def wrong(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The same images with the name of a shard for a label."""
    place = tmp_path_factory.mktemp("wrong") / "out"
    mistaken = replace(world(), labels=["dog"] * (COUNT // 2) + ["00001"] * (COUNT // 2))
    return mistaken.write(place, {"ruler": "decoy"}, ["red_fox", "dog"])


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> str:
    made = world()
    place = tmp_path_factory.mktemp("table") / "labels.csv"
    frame = pd.DataFrame({"filename": made.ids, "class": made.labels})
    frame.to_csv(place, index=False, sep=";")
    return str(place)


QUESTIONS: dict[str, Callable[[Results], pd.DataFrame]] = {
    "images": lambda r: r.images(["label"]),
    "by sql": lambda r: r.images(["label", "key"], where="label = 'dog' and score__tag > 0.2"),
    "by expression": lambda r: r.images(["label"], where=pc.field("label") == "red fox"),
    "without labels": lambda r: r.scores(["tag"], where="score__tag > 0.2"),
    "top": lambda r: r.top("tag", 9, where="label = 'dog'", columns=["label"]),
    "sql": lambda r: r.sql("select label, avg(score__tag) from images group by label order by 1"),
    "long": lambda r: r.to_long(["tag"]).sort_values(["image_id", "query"]),
    "dataset": lambda r: r.dataset.to_table(
        columns=["image_id", "label"], filter=pc.field("label") == "dog"
    ).to_pandas(),
}


@pytest.mark.parametrize("question", QUESTIONS)
def test_results(right: str, wrong: str, table: str, question: str) -> None:
    ask = QUESTIONS[question]
    mended = ask(open_results(wrong, class_labels=table))
    pd.testing.assert_frame_equal(mended, ask(open_results(right)), check_dtype=False)


def test_the_audit(right: str, wrong: str, table: str) -> None:
    mended = Audit.from_results(wrong, class_labels=table, settings={"seed": 0})
    expected = Audit.from_results(right, settings={"seed": 0})
    columns = [name for name in expected.rank().columns if name.startswith("association")]
    mine, theirs = (audit.rank()[["class", "cue", *columns]] for audit in (mended, expected))
    pd.testing.assert_frame_equal(mine, theirs)
    assert mine["association__flag"].any()
    assert mended.summary.classes == expected.summary.classes


def test_maps_of_a_class_that_changed_are_left_out(right: str, wrong: str, table: str) -> None:
    mended, expected = open_results(wrong, class_labels=table), open_results(right)
    ids, maps = mended.maps("own_label")
    _, whole = expected.maps("own_label", list(ids))
    kept = np.isfinite(maps).all(axis=(1, 2))
    stored = open_results(wrong).images(["label"])["label"].loc[list(ids)]
    now = expected.images(["label"])["label"].loc[list(ids)]
    assert kept.tolist() == (stored == now).tolist()
    assert 0 < kept.sum() < COUNT
    np.testing.assert_array_equal(maps[kept], whole[kept])
    frame = mended.sql("select image_id from images where heatmap__own_label is not null")
    assert set(frame["image_id"]) == set(np.array(ids)[kept])


def test_a_table_of_some_images_leaves_the_others_without_a_label(
    wrong: str, tmp_path: Path
) -> None:
    (tmp_path / "l.csv").write_text("key,label\n000007,cat\nw/000008,cat|dog\n")
    results = open_results(wrong, class_labels=tmp_path / "l.csv")
    assert results.images(["label"])["label"].dropna().to_dict() == {
        "w/000007": "cat",
        "w/000008": "cat|dog",
    }
    (tmp_path / "l.csv").write_text("key,label\nnobody.jpg,cat\n")
    with pytest.raises(UsageError, match=r"nobody\.jpg.*w/000000"):
        open_results(wrong, class_labels=tmp_path / "l.csv")
