"""Several runs over the same images, and frames of one's own, as one."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from PIL import Image

from legrad.heatmaps import FigureRow
from pipeline import open_results
from pipeline.errors import UsageError
from pipeline.results import Results, drawing
from pipeline.results.joined_rows import FrameRows
from pipeline.results.joined_run import as_one
from pipeline.schema import SCHEMA_VERSION, output_schema
from tests.parts import ids, make_run, ray_name

GRID = (2, 3)


def write(
    place: Path,
    keys: Sequence[str],
    names: Sequence[str],
    weights: str = "w",
    resize: str = "squash",
    **about: Any,
) -> str:
    """A run of one part; the score of query i and key k is 100 i + k."""
    folder = make_run(place)
    metadata = {
        "schema_version": SCHEMA_VERSION,
        "grid": list(GRID),
        "model": {"weights_sha256": weights, "layers": 2},
        "preprocess": {"size": [32, 32], "mode": resize, "interpolation": "bicubic"},
        "queries": [{"name": n, "role": "cue", "prompts": [f"a {n}"]} for n in names],
    }
    manifest = json.loads(folder.manifest.read()) | {"metadata": metadata}
    folder.manifest.write(json.dumps(manifest).encode())
    schema = output_schema({}, names, embeddings=False, metadata=metadata)
    rows = []
    for key in keys:
        row = {"image_id": f"a/{key}", "key": key, "status": "ok", "label": "x", **about}
        row |= {"width": 32, "height": 32}
        for number, name in enumerate(names):
            row[f"score__{name}"] = 100.0 * number + int(key)
            row[f"heatmap__{name}"] = bytes([number + 1] * 3 + [int(key)] * 3)
            row[f"heatmap_max__{name}"] = 255.0
        rows.append(row)
    path = Path(folder.images.path)
    path.mkdir(parents=True)
    table = pa.Table.from_pylist(rows, schema=schema)
    pq.write_table(table, path / f"{ray_name(0)}-0.parquet", row_group_size=2)
    ids(folder, ray_name(0), rows)
    return folder.uri


@pytest.fixture
def both(tmp_path: Path) -> Results:
    """The second run has a shared query, one image less and one more, in another order."""
    first = write(tmp_path / "1", ["03", "01", "04", "02"], ["dog", "leash"])
    second = write(tmp_path / "2", ["05", "04", "03", "02"], ["dog", "grass"])
    return open_results([first, second])


EVERY = ["a/03", "a/01", "a/04", "a/02", "a/05"]


def test_one_row_an_image_of_either(both: Results) -> None:
    assert [query.name for query in both.queries] == ["dog", "leash", "grass"]
    assert len(both) == 5
    scores = both.scores()
    assert list(scores.index) == EVERY
    np.testing.assert_array_equal(scores["dog"], [3, 1, 4, 2, 5])
    np.testing.assert_array_equal(scores["leash"], [103, 101, 104, 102, np.nan])
    np.testing.assert_array_equal(scores["grass"], [103, np.nan, 104, 102, 105])
    images = both.images()
    assert list(images["key"]) == ["03", "01", "04", "02", "05"]
    assert list(images.columns).count("label") == 1


def test_maps_come_from_the_run_that_has_them(both: Results) -> None:
    _, maps = both.maps("grass", ["a/05", "a/01", "a/03"])
    np.testing.assert_allclose(maps[0], [[2] * 3, [5] * 3])
    assert np.isnan(maps[1]).all()
    np.testing.assert_allclose(maps[2], [[2] * 3, [3] * 3])
    everything = [(list(i), m.shape) for i, m in both.iter_maps(["dog", "leash", "grass"])]
    assert everything == [(EVERY, (5, 3, 2, 3))]
    found = both.compare("leash", "grass")
    assert found["cosine"].notna().to_list() == [True, False, True, True, False]
    assert found.loc["a/03", "cosine"] == pytest.approx(1)


def test_each_query_is_placed_as_its_own_run_resizes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a wide picture, the crop of the second run covers the middle only."""
    whole = write(tmp_path / "1", ["01"], ["dog"])
    middle = write(tmp_path / "2", ["01"], ["grass"], resize="center_crop")
    picture = Image.new("RGB", (96, 32), "white")
    monkeypatch.setattr(drawing, "original", lambda results, image_id: picture)
    drawn: dict[str, FigureRow] = {}
    monkeypatch.setattr(
        drawing, "grid_figure", lambda rows, columns, scale: drawn.update(row=rows[0])
    )
    for uris, queries in (([whole, middle], ["dog", "grass"]), ([middle, whole], ["dog", "grass"])):
        results = open_results(uris)
        results.figure("a/01", queries)
        assert drawn["row"].boxes == [(0, 0, 96, 32), (32, 0, 64, 32)]
        with pytest.raises(UsageError, match="preprocess"):
            _ = results.preprocess
        with pytest.raises(UsageError, match="compare"):
            results.compare(*queries)
    assert open_results([whole, whole]).preprocess.mode == "squash"


def test_conditions_over_both(both: Results) -> None:
    where = "score__leash > 101 and score__grass < 104"
    assert list(both.images(["key"], where=where).index) == ["a/03", "a/02"]
    assert list(both.images(["key"], where=pc.field("score__grass") > 103).index) == EVERY[2::2]
    assert list(both.top("grass", 2).index) == ["a/05", "a/04"]
    assert list(both.top("grass", 2, where="score__leash is not null").index) == ["a/04", "a/03"]
    with pytest.raises(UsageError, match="SQL"):
        both.images(where=(pc.field("score__leash") > 1) & (pc.field("score__grass") > 1))
    answer = both.sql("select count(*) n, count(score__leash) l, count(score__grass) g from images")
    assert answer.to_dict("records") == [{"n": 5, "l": 4, "g": 4}]
    long = both.to_long(where="key = '05'")
    assert long["score"].isna().to_list() == [False, True, False]


def test_what_each_run_has_of_its_own(both: Results) -> None:
    assert both.grid == GRID
    assert [len(run.rows) for run in both.runs] == [4, 4]
    for attribute in ("run", "dataset", "origin", "folder"):
        with pytest.raises(UsageError, match=rf"{attribute}: 2 .*runs\[0\]"):
            getattr(both, attribute)


def test_runs_that_do_not_go_together(tmp_path: Path) -> None:
    one = write(tmp_path / "1", ["01"], ["dog"])
    other = write(tmp_path / "2", ["01"], ["dog"], weights="other")
    with pytest.raises(UsageError, match="'dog'"):
        open_results([one, other])
    with pytest.raises(UsageError, match=r"\[\]"):
        open_results([])


def test_columns_of_ones_own(both: Results) -> None:
    frame = pd.DataFrame({"split": ["test", "train", "test"]}, index=["a/05", "a/03", "zz"])
    mine = both.join(frame)
    assert len(mine) == 5
    assert list(mine.images(["split"])["split"].dropna()) == ["train", "test"]
    for where in ("split = 'test'", pc.field("split") == "test"):
        assert list(mine.scores(["grass"], where=where).index) == ["a/05"]
        assert mine.maps("grass", where=where)[1].shape == (1, 2, 3)
    assert mine.sql(
        "select split, count(*) n from images group by 1 order by 1 nulls last"
    ).to_dict("list")["n"] == [1, 1, 3]
    with pytest.raises(UsageError, match="'label'"):
        both.join(pd.DataFrame({"label": ["x"]}, index=["a/01"]))
    with pytest.raises(UsageError, match=r"image_id.*'id'"):
        both.join(pd.DataFrame({"id": ["a/01"]}))
    assert list(both.join(frame["split"]).images(where="split = 'train'").index) == ["a/03"]
    with pytest.raises(UsageError, match=r"'x'.*'a/0"):
        both.join(pd.DataFrame({"more": [1, 2]}, index=["x", "y"]))
    for wrong, word in (({"a/01": 1}, "dict"), (pd.Series([1], ["a/01"]), "name")):
        with pytest.raises(UsageError, match=word):
            both.join(wrong)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="'a/01'"):
        both.join(pd.DataFrame({"more": [1, 2]}, index=["a/01", "a/01"]))


def test_as_one_run_it_has_the_images_of_all_runs_and_the_columns_of_each(both: Results) -> None:
    one = as_one(both)
    assert [query.name for query in one.queries] == ["dog", "leash", "grass"]
    assert one.folder.uri == both.runs[0].folder.uri
    assert {q["name"] for q in one.run["metadata"]["queries"]} == {"dog", "leash", "grass"}
    names = ["image_id", "score__leash", "score__grass", "heatmap__grass"]
    table = one.dataset.to_table(columns=names)
    assert table["image_id"].to_pylist() == ["a/03", "a/04", "a/02"]
    assert table["score__leash"].to_pylist() == [103, 104, 102]
    assert table["score__grass"].to_pylist() == [103, 104, 102]
    wanted = pc.field("score__grass") > 102.5
    small = one.dataset.to_table(columns=["image_id"], filter=wanted, batch_size=2)
    assert small["image_id"].to_pylist() == ["a/03", "a/04"]
    ids, heat = one.maps("grass", ["a/04"])
    assert ids == ["a/04"]
    assert heat[0, 1, 0] == 4
    assert as_one(one) is one


def test_rows_are_taken_by_their_positions(both: Results) -> None:
    joined = as_one(both).rows
    every = joined.table(["image_id", "score__grass"])
    positions = np.array([2, -1, 0])
    frame = pd.DataFrame({"more": [1, 2, 3]}, index=["a/01", "a/02", "a/03"])
    for rows in (joined, both.runs[0].rows, FrameRows(frame)):
        columns = ["image_id"] if rows is not joined else ["image_id", "score__grass"]
        ids = rows.table(["image_id"])["image_id"].to_pylist()
        taken = rows.take(positions, columns)
        assert taken["image_id"].to_pylist() == [ids[2], None, ids[0]]
    assert joined.take(positions, ["score__grass"])["score__grass"].to_pylist() == [
        every["score__grass"][2].as_py(),
        None,
        every["score__grass"][0].as_py(),
    ]


def test_an_image_that_a_later_run_could_not_explain(tmp_path: Path) -> None:
    first = write(tmp_path / "1", ["01", "02"], ["dog"])
    second = write(tmp_path / "2", ["02", "01"], ["grass"], status="decode_error")
    table = as_one(open_results([first, second])).dataset.to_table(columns=["status", "label"])
    assert table.to_pylist() == [{"status": "decode_error", "label": "x"}] * 2


def test_runs_of_different_models_are_not_one(tmp_path: Path) -> None:
    first = write(tmp_path / "1", ["01"], ["dog"])
    second = write(tmp_path / "2", ["01"], ["grass"], weights="other")
    with pytest.raises(UsageError, match="weights"):
        as_one(open_results([first, second]))
