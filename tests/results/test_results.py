"""What a run wrote, read by us and by plain pandas, DuckDB and Polars."""

import subprocess
import sys
from dataclasses import replace

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow.parquet as pq
import pytest
import torch

from legrad import LeGrad, load_model
from pipeline import open_results
from pipeline.demo.dataset import BACKGROUNDS, PLANTED
from pipeline.demo.planted_rows import planted_rows
from pipeline.errors import UsageError
from pipeline.report import draw_sheet
from pipeline.results import Results
from pipeline.schema import SCHEMA_VERSION, read_metadata
from pipeline.sources.fetch import Origin
from tests.conftest import DemoRun


@pytest.fixture(scope="module")
def results(demo_run: DemoRun) -> Results:
    return open_results(demo_run.output)


def test_summary_and_rows(demo_run: DemoRun, results: Results) -> None:
    summary = demo_run.summary
    assert summary.rows == summary.statuses["ok"] == len(results) == 260
    assert summary.progress.maps == 260 * 37
    assert not summary.failures
    assert summary.parts == len(list((demo_run.folder / "out" / "images").iterdir()))
    images = results.images()
    assert images.index.is_unique
    assert images.index[0].startswith("demo/demo-0000")
    assert set(images["background"]) == set(BACKGROUNDS)
    assert images["has_watermark"].dtype == bool
    assert (images["width"] == 192).all()
    assert list(results.images(["label"]).columns) == ["label"]


def test_only_parquet_lies_beside_the_data(demo_run: DemoRun) -> None:
    files = list((demo_run.folder / "out" / "images").rglob("*"))
    assert files
    assert all(file.suffix == ".parquet" for file in files)


def test_plain_pandas_duckdb_and_polars_agree(demo_run: DemoRun, results: Results) -> None:
    folder = f"{demo_run.output}/images"
    ours = results.scores(["watermark", "bird"]).sort_index()
    columns = ["image_id", "score__watermark", "score__bird"]
    frames = [
        pd.read_parquet(folder, columns=columns),
        duckdb.sql(f"select {', '.join(columns)} from '{folder}/*.parquet'").df(),
        pl.read_parquet(f"{folder}/*.parquet", columns=columns).to_pandas(),
    ]
    for frame in frames:
        theirs = frame.set_index("image_id").sort_index()
        assert list(theirs.index) == list(ours.index)
        np.testing.assert_array_equal(theirs.to_numpy(), ours.to_numpy())


def test_maps_by_hand_equal_ours(demo_run: DemoRun, results: Results) -> None:
    frame = pd.read_parquet(f"{demo_run.output}/images").set_index("image_id")
    ids, maps = results.maps("bird")
    for image_id, ours in list(zip(ids, maps, strict=True))[:5]:
        row = frame.loc[image_id]
        cells = np.frombuffer(row["heatmap__bird"], np.uint8).reshape(results.grid)
        by_hand = cells / 255 * row["heatmap_max__bird"]
        np.testing.assert_allclose(ours, by_hand, rtol=1e-6)


def test_stored_maps_are_what_the_engine_gives(demo_run: DemoRun, results: Results) -> None:
    model = load_model("mini")
    image_ids = list(results.images().index[[3, 100, 250]])
    pixels = np.stack([model.preprocess(results.image(i)) for i in image_ids])
    text = model.encode_text(["a bird", "a watermark"])
    direct = LeGrad(model).explain(torch.from_numpy(pixels), text)
    scores = results.scores(["bird", "watermark"]).loc[image_ids]
    np.testing.assert_allclose(scores, direct.scores, atol=2e-4)
    for q, name in enumerate(("bird", "watermark")):
        ids, maps = results.maps(name, image_ids)
        assert list(ids) == image_ids
        expected = direct.maps[:, q].numpy()
        bound = expected.max(axis=(1, 2), keepdims=True) * (1 / 510 + 2e-3)
        assert (np.abs(maps - expected) <= bound).all()
    embedding = pd.read_parquet(f"{demo_run.output}/images", columns=["image_id", "embedding"])
    stored = np.stack(embedding.set_index("image_id").loc[image_ids, "embedding"])
    np.testing.assert_allclose(stored, direct.image_features, atol=2e-3)


def test_file_metadata(demo_run: DemoRun) -> None:
    part = next((demo_run.folder / "out" / "images").iterdir())
    found = read_metadata(pq.read_schema(part))
    assert found is not None
    assert found["schema_version"] == SCHEMA_VERSION
    assert found["model"]["name"] == "mini"
    assert found["model"]["weights_sha256"] == load_model("mini").digest
    assert found["model"]["layers"] == load_model("mini").default_layers
    assert len(found["queries"]) == 37
    assert set(found["software"]) >= {"torch", "ray", "open_clip_torch"}
    chunk = pq.read_metadata(part).row_group(0)
    by_name = {chunk.column(i).path_in_schema: chunk.column(i) for i in range(chunk.num_columns)}
    assert by_name["score__bird"].is_stats_set
    assert not by_name["heatmap__bird"].is_stats_set
    assert by_name["heatmap__bird"].compression == "ZSTD"


def test_overlay_is_the_picture_with_heat(results: Results) -> None:
    image_id = results.images().index[0]
    picture, heat = results.image(image_id), results.overlay(image_id, "an_image")
    assert picture.size == heat.size == (192, 192)
    assert np.abs(np.asarray(picture, int) - np.asarray(heat, int)).max() > 20


def test_a_grid_for_a_notebook(results: Results) -> None:
    found = results.view("watermark", n=4)
    best = results.top("watermark", 4)
    assert [cell.image_id for cell in found.cells] == list(best.index)
    assert [cell.score for cell in found.cells] == pytest.approx(list(best["score"]))
    page = found._repr_html_()
    assert page.count("data:image/jpeg;base64,") == 8
    assert page.count("<figure>") == 4
    image_id = results.images().index[0]
    (faint,) = results.view("watermark", [image_id]).cells
    assert faint.picture is not None
    assert faint.heat is not None
    assert faint.label in repr(results.view("watermark", [image_id]))
    for ids in ([], [image_id] * 61):
        with pytest.raises(UsageError, match="1 to 60"):
            results.view("watermark", ids)
    with pytest.raises(UsageError, match="found both"):
        results.view("watermark", [image_id], where="label = 'fish'")
    with pytest.raises(KeyError):
        results.view("dragon")


def test_a_grid_says_which_files_are_gone(results: Results) -> None:
    (run,) = results.runs
    origin = Origin.of({**run.manifest["source"], "uri": ["/nowhere/x.tar"]}, None, {})
    moved = replace(results, runs=(replace(run, origin=origin),))
    page = moved.view("watermark", n=2)._repr_html_()
    assert page.count("can no longer be read") == 2
    assert "<img" not in page


def test_sheet(demo_run: DemoRun, results: Results) -> None:
    rows = planted_rows(demo_run.config, results.images(), seed=3)
    assert len(rows) == len(PLANTED) + 2
    path = demo_run.folder / "sheet.png"
    draw_sheet(results, rows, ("class", "cue", "baseline"), path, "test")
    assert path.stat().st_size > 100_000
    with pytest.raises(ValueError, match="row"):
        draw_sheet(results, [], ("class",), path, "test")


def test_no_run_there(tmp_path: object) -> None:
    with pytest.raises(UsageError, match="nothing"):
        open_results(f"{tmp_path}/nothing")


@pytest.mark.starts
def test_reading_needs_neither_ray_nor_torch(demo_run: DemoRun) -> None:
    code = (
        "import sys; from pipeline import open_results; r = open_results(sys.argv[1]);"
        "r.scores(); r.maps('bird'); r.overlay(r.images().index[0], 'bird');"
        "assert not {'ray', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, demo_run.output], check=True)
