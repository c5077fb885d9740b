"""Runs that keep a selection of maps, that pad images, and that have queries without texts."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from legrad import LeGrad, load_model
from pipeline import open_results
from pipeline.audit.evidence import heat_enrichment
from pipeline.config import RunConfig
from pipeline.errors import UsageError
from pipeline.results import Results
from pipeline.schema import read_metadata
from pipeline.stages.explain import pixels_of
from tests.data import mini_config, picture
from tests.in_process import run

pytestmark = pytest.mark.starts  # one run is made in isolated processes

SIZES = ((40, 30), (30, 60), (64, 64))
QUERIES = (
    {"name": "fish", "role": "class", "prompts": "a fish"},
    {"name": "bird", "role": "class", "prompts": "a bird"},
    {"name": "car", "role": "class", "prompts": "a car"},
    {"name": "watermark", "role": "cue", "prompts": "a watermark"},
    {"name": "fish_not_bird", "role": "cue", "difference": ["fish", "bird"]},
    {"name": "an_image", "role": "baseline", "prompts": "an image"},
)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of several aspects of fish and birds, one of a label that no class has, one broken."""
    folder = tmp_path_factory.mktemp("pictures")
    for number, label in enumerate(["fish", "bird", "fish", "horse", "bird"]):
        (folder / label).mkdir(exist_ok=True)
        picture(number, SIZES[number % 3]).save(folder / label / f"{number}.png")
    (folder / "fish" / "broken.png").write_bytes(b"no image")
    return folder


def config_for(pictures: Path, output: Path, **more: Any) -> RunConfig:
    source = {"format": "folder", "uri": str(pictures)}
    return mini_config(source, output, **({"queries": list(QUERIES)} | more))


def finished(config: RunConfig, maps: int | None = None) -> Results:
    """Results of a run, which must have computed a number of maps if it is given."""
    summary = run(config)
    assert summary.statuses == {"ok": 5, "not_an_image": 1}
    assert maps in (None, summary.progress.maps)
    return open_results(config.output)


@pytest.fixture(scope="module")
def whole(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Results:
    return finished(config_for(pictures, tmp_path_factory.mktemp("whole")))


@pytest.fixture(scope="module")
def own(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Made in isolated processes. Three queries without a class have a map of each image."""
    runtime = {"actors": 1, "threads_per_actor": 1, "isolate": True}
    output = tmp_path_factory.mktemp("own")
    config = config_for(pictures, output, store={"maps": "own_label"}, runtime=runtime)
    return finished(config, maps=4 + 5 * 3)  # one label has no class


def test_own_label_has_one_column_for_all_classes(own: Results, whole: Results) -> None:
    heat = [name for name in own.dataset.schema.names if name.startswith("heatmap__")]
    assert heat == [
        *("heatmap__watermark", "heatmap__fish_not_bird", "heatmap__an_image"),
        "heatmap__own_label",
    ]
    assert "heatmap_max__own_label" in own.dataset.schema.names
    pd.testing.assert_frame_equal(
        own.scores().sort_index(), whole.scores().sort_index(), atol=1e-5, check_exact=False
    )
    frame = pd.read_parquet(f"{own.folder.uri}/images").set_index("image_id")
    unknown = frame["label"].eq("horse") | frame["status"].ne("ok")
    assert frame["heatmap__own_label"].isna().equals(unknown)
    assert frame["heatmap_max__own_label"].isna().equals(unknown)


@pytest.mark.parametrize("query", ["own_label", "fish", "bird", "watermark", "fish_not_bird"])
def test_reading_own_label_equals_reading_all(query: str, own: Results, whole: Results) -> None:
    ids = sorted(own.images().index)
    (_, kept), (_, full) = own.maps(query, ids), whole.maps(query, ids)
    labels = own.images().loc[ids, "label"].to_numpy()
    if query in ("fish", "bird"):
        full[labels != query] = np.nan
    assert np.isfinite(kept).any()
    np.testing.assert_allclose(kept, full, rtol=0.02, atol=1e-9)


def test_overlay_of_a_map_that_was_left_out(own: Results) -> None:
    labels = own.images()["label"]
    fish = labels.index[labels.eq("fish") & own.images()["status"].eq("ok")][0]
    assert own.overlay(fish, "fish").size == own.image(fish).size
    with pytest.raises(UsageError, match="no map of bird, the run kept others"):
        own.overlay(fish, "bird")


def test_best_classes_and_a_vector(pictures: Path, tmp_path: Path, whole: Results) -> None:
    """A vector's values, and not its file, are part of the run."""

    def config(file: str, **store: Any) -> RunConfig:
        probe = {"name": "probe", "role": "cue", "vector": str(tmp_path / file)}
        queries = [*QUERIES, probe]
        return config_for(pictures, tmp_path / "out", store={"maps": store}, queries=queries)

    width = load_model("mini").tower.embed_dim
    np.save(tmp_path / "v.npy", np.ones(width))
    best_of_each = {"mode": "top_k", "k": 1}
    results = finished(config("v.npy", **best_of_each), maps=5 + 5 * 4)
    ids = list(results.scores().dropna().index)
    best = results.scores(["fish", "bird", "car"]).loc[ids].idxmax(axis=1)
    for query in ("fish", "bird", "car", "watermark"):
        _, maps = results.maps(query, ids)
        there = np.isfinite(maps).all(axis=(1, 2))
        assert list(there) == [query in (best[i], "watermark") for i in ids]
    with pytest.raises(UsageError, match=r"store\.maps: .*top_k.*above"):
        run(config("v.npy", mode="above", threshold=1))
    np.save(tmp_path / "w.npy", np.ones(width))
    assert run(config("w.npy", **best_of_each)).already_complete
    np.save(tmp_path / "v.npy", np.full(width, 2.0))
    with pytest.raises(UsageError, match=r"query\.probe: .*sha256"):
        run(config("v.npy", **best_of_each))


def test_padding_has_no_heat_and_anyone_can_place_a_map(pictures: Path, tmp_path: Path) -> None:
    config = config_for(
        pictures, tmp_path / "out", model={"name": "mini", "resize": "pad", "image_size": [96, 96]}
    )
    results = finished(config)
    frame = results.images()
    ids = list(frame.index[frame["status"] == "ok"])
    _, maps = results.maps("watermark", ids)
    table = results.dataset.to_table(columns=["image_id", "width", "height"]).to_pandas()
    part = next((tmp_path / "out" / "images").glob("*.parquet"))
    metadata = read_metadata(pq.read_schema(part))
    assert metadata is not None
    for image_id, heat in zip(ids, maps, strict=True):
        row = table.set_index("image_id").loc[image_id]
        size = int(row["width"]), int(row["height"])
        cells = results.preprocess.cells(*size, results.grid)
        outside = np.ones(results.grid, bool)
        outside[cells] = False
        assert heat[outside].sum() == 0
        assert heat[cells].max() > 0
        assert outside.any() == (size[0] != size[1])
        formulas = metadata["preprocess"]["grid_in_original_pixels"]
        names = {"width": size[0], "height": size[1], "min": min, "max": max}
        box = [eval(formulas[side], names) for side in ("left", "top", "right", "bottom")]
        assert box == pytest.approx(results.preprocess.box(*size))
    model = load_model("mini", image_size=96, resize="pad")
    image = Image.open(pictures / "fish" / "0.png")
    direct = LeGrad(model).explain(
        torch.from_numpy(model.preprocess(image))[None],
        model.encode_text(["a watermark"]),
        sizes=[image.size],
    )
    np.testing.assert_allclose(
        maps[[i.endswith("0.png") for i in ids]][0], direct.maps[0, 0], rtol=0.02, atol=1e-4
    )


def test_enrichment_counts_shown_cells_only() -> None:
    heat = np.zeros((1, 10, 10), np.float32)
    heat[:, :5] = np.arange(50).reshape(1, 5, 10)
    shown = np.zeros((1, 10, 10), bool)
    shown[:, :5] = True
    top = heat[0, :5].ravel()
    by_hand = np.sort(top)[-5:].mean() / top.mean()
    assert heat_enrichment(heat, heat, shown=shown)[0] == pytest.approx(by_hand)
    everywhere = np.sort(heat.ravel())[-10:].mean() / heat.mean()
    assert heat_enrichment(heat, heat)[0] == pytest.approx(everywhere)
    assert np.isnan(heat_enrichment(np.full_like(heat, np.nan), heat)[0])


def test_a_query_file_that_does_not_fit_stops_the_run(pictures: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", np.ones(3))
    queries = [{"name": "probe", "role": "cue", "vector": str(tmp_path / "v.npy")}]
    with pytest.raises(UsageError, match=r"v\.npy: .*128.*3"):
        run(config_for(pictures, tmp_path / "out", queries=queries))


def test_pixels_of_a_batch_that_is_a_part_of_several_blocks() -> None:
    rows = [np.full(3 * 4 * 5, number, np.uint8).tobytes() for number in range(6)]
    blocks = [pa.table({"pixels": pa.array(part, pa.binary())}) for part in (rows[:2], rows[2:])]
    batch = pa.concat_tables(blocks).slice(1, 4)
    assert pixels_of(batch, (4, 5)).shape == (4, 3, 4, 5)
    assert pixels_of(batch, (4, 5))[:, 0, 0, 0].tolist() == [1, 2, 3, 4]
