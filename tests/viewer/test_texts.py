"""The run's model answers texts as the run did: the same scores, and the same heat."""

import io
import json
import threading
import time
from zipfile import ZipFile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from legrad.heatmaps.codec import decode_maps
from pipeline import open_results
from pipeline.errors import UsageError
from pipeline.report.shown_images import PICTURE_COLUMNS
from pipeline.viewer.embeddings import Embeddings
from pipeline.viewer.search import Filters, ImageIndex
from pipeline.viewer.texts import TextModel
from tests.conftest import DemoRun
from tests.viewer.client import client

QUERY = "watermark"


def test_scores_and_heat_of_a_text_are_those_of_its_query(demo_run: DemoRun) -> None:
    results = open_results(demo_run.output)
    prompts = next(query.prompts for query in results.queries if query.name == QUERY)
    assert len(prompts) == 1
    texts, index = TextModel(results), ImageIndex.read(results)
    scores = Embeddings.read(results).similarity(texts.direction(prompts[0]))
    stored = index.query_scores(QUERY)
    known = ~np.isnan(stored)
    np.testing.assert_allclose(scores[known], stored[known], atol=2e-3)  # float16 embeddings
    top = index.ranked(stored, Filters(), 3)
    ids = index.ids.take(top.rows).to_pylist()
    _, maps = results.maps(QUERY, ids)
    rows = results.rows.select(ids, list(PICTURE_COLUMNS)).to_pylist()
    for (_, grid), stored_map in zip(texts.heat(["a kite", prompts[0]], rows), maps, strict=True):
        cells = np.frombuffer(grid.cells, np.uint8).reshape(1, *results.grid)
        heat = decode_maps(cells, np.array([grid.peak], np.float32))[0]
        np.testing.assert_allclose(heat, stored_map, atol=2 * float(stored_map.max()) / 255)


def test_heat_of_several_images_is_that_of_each(demo_run: DemoRun) -> None:
    results = open_results(demo_run.output)
    rows = results.rows.table(list(PICTURE_COLUMNS), "status = 'ok'").slice(0, 4).to_pylist()
    rows[1] |= {"shard": "gone.tar"}
    together = TextModel(results).heat(["a kite", "a pond"], rows)
    assert [len(grids) for grids in together] == [2, 0, 2, 2]
    alone = TextModel(results)
    alone.heat(["a pond"], rows[2:])
    for row, grids in ((rows[0], together[0]), (rows[3], together[3])):
        for grid, again in zip(grids, alone.heat(["a kite", "a pond"], [row])[0], strict=True):
            assert again.peak == pytest.approx(grid.peak, rel=1e-3)
            steps = np.frombuffer(again.cells, np.uint8).astype(int)
            assert np.abs(steps - np.frombuffer(grid.cells, np.uint8)).max() <= 1


def test_pages_show_pictures_and_late_heat(demo_run: DemoRun) -> None:
    with client(demo_run.output, read_only=True) as web:
        text = web.get("/search?q=a+red+kite&than=watermark").text
        assert "heat?q=a+red+kite" in text
        assert web.view.texts.problem == ""
        image_id = web.run(web.view.index()).ids[0].as_py()
        picture = web.get("/picture", params={"side": "192", "id": image_id})
        assert (picture.status, picture.headers["content-type"]) == (200, "image/webp")
        full = web.get("/image", params={"q": "a red kite", "id": image_id}).text
        assert '<option value="late">a red kite</option>' in full
        stored = web.get("/image", params={"q": QUERY, "id": image_id}).text
        assert f'<option value="{QUERY}" selected>' in stored
        asked = [("q", "a red kite"), ("q", "a pond"), ("id", image_id)]
        heat = web.get("/heat", params=asked)
        assert heat.status == 200
        ((kite, pond),) = json.loads(heat.body)
        assert [kite[2], pond[2]] == ["a red kite", "a pond"]
        assert web.get("/heat", params={"q": "a red kite", "id": "nothing"}).status == 404
        assert web.get("/heat", params={"q": "a red kite"}).status == 400
        assert web.get("/heat", params=[*asked, *asked]).status == 400


def test_a_selection_with_its_pictures(demo_run: DemoRun) -> None:
    with client(demo_run.output, read_only=True) as web:
        ids = web.run(web.view.index()).ids[:3].to_pylist()
        chosen = [("id", ids[0]), ("id", ids[2])]
        atlas = web.get("/export", params=[*chosen, ("format", "atlas")]).body
        table = pq.read_table(pa.BufferReader(atlas))
        assert table["image_id"].to_pylist() == [ids[0], ids[2]]
        assert all(picture.as_py()[8:12] == b"WEBP" for picture in table["image"])
        for query, heats in (("watermark", 2), ("", 0)):
            asked = [*chosen, ("format", "fiftyone"), ("q", query)]
            archive = ZipFile(io.BytesIO(web.get("/export", params=asked).body))
            samples = json.loads(archive.read("samples.json"))["samples"]
            assert {sample["image_id"] for sample in samples} == {ids[0], ids[2]}
            assert sum(sample.get("heat_watermark") is not None for sample in samples) == heats
            assert {sample["filepath"] for sample in samples} <= set(archive.namelist())


def test_other_weights_are_refused(demo_run: DemoRun, monkeypatch: pytest.MonkeyPatch) -> None:
    results = open_results(demo_run.output)
    monkeypatch.setitem(results.run["identity"], "model.weights_sha256", "0" * 64)
    texts = TextModel(results)
    with pytest.raises(UsageError, match="weights"):
        texts.direction("a kite")
    texts.load()
    assert "weights" in texts.problem


def test_a_search_has_its_turn_before_the_next_words(demo_run: DemoRun) -> None:
    """It comes while the first words are encoded."""
    texts = TextModel(open_results(demo_run.output))
    encoded: list[list[str]] = []
    search = threading.Thread(target=texts.direction, args=("a kite",), daemon=True)

    class Model:
        def encode_text(self, asked: list[str]) -> torch.Tensor:
            encoded.append(asked)
            if len(encoded) == 1:
                search.start()
                end = time.monotonic() + 60
                while not texts._turn.locked():
                    assert time.monotonic() < end, "the search did not ask for its turn"
                    time.sleep(0.01)
            return torch.zeros(len(asked), 2)

    texts._model = Model()  # type: ignore[assignment]
    words = [f"word {number}" for number in range(20)]
    assert texts._encode(words).shape == (20, 2)
    search.join(60)
    assert not search.is_alive()
    assert encoded[1] == ["a kite"]
    assert [text for part in encoded for text in part if text != "a kite"] == words
