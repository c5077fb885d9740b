"""Stored results against results computed again."""

import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import open_results
from pipeline.errors import UsageError
from pipeline.results.reproduce import recompute, source_config
from tests.conftest import DemoRun
from tests.data import jpeg, mini_config, read_all, samples, tar_bytes
from tests.in_process import run


@pytest.fixture
def copy(demo_run: DemoRun, tmp_path: Path) -> Path:
    return Path(shutil.copytree(demo_run.output, tmp_path / "out"))


def test_results_are_found_again(demo_run: DemoRun) -> None:
    found = recompute(open_results(demo_run.output), 20)
    assert found.images == 20
    assert found.agree, found


def test_changed_maps_and_scores_are_noticed(copy: Path) -> None:
    for part in (copy / "images").glob("*.parquet"):
        table = pq.read_table(part)
        place = table.schema.get_field_index("heatmap__bird")
        cells = table["heatmap__bird"].combine_chunks()
        turned = pa.array([c.as_py()[::-1] for c in cells], cells.type)
        pq.write_table(table.set_column(place, table.schema.field(place), turned), part)
    found = recompute(open_results(str(copy)), 5)
    assert found.map_steps > 20
    assert found.score < found.tolerance
    assert not found.agree


def test_images_that_are_gone_are_named(demo_run: DemoRun, tmp_path: Path) -> None:
    results = open_results(demo_run.output, source=str(tmp_path))
    found = recompute(results, 3)
    assert (found.images, len(found.unreadable)) == (0, 3)
    assert not found.agree


def test_other_weights_are_refused(copy: Path) -> None:
    manifest = copy / "_run" / "manifest.json"
    digest = open_results(str(copy)).run["identity"]["model.weights_sha256"]
    manifest.write_text(manifest.read_text().replace(digest, "0" * 64))
    with pytest.raises(UsageError, match="other weights"):
        recompute(open_results(str(copy)), 1)


LAYOUTS: dict[str, dict[str, Any]] = {
    "webdataset": {"carry": {"site": "int"}},
    "folder": {},
    "parquet": {},
    "list": {"image_root": "", "key_field": "name", "label_field": "what"},
}


@pytest.mark.parametrize(("kind", "more"), LAYOUTS.items())
def test_the_source_of_a_run_is_opened_again(
    kind: str, more: dict[str, Any], tmp_path: Path
) -> None:
    """Also where columns have no captions or labels, and a table's paths have another root."""
    place = tmp_path / "in"
    (place / "cat").mkdir(parents=True)
    images = {f"k{n}": jpeg(n) for n in range(3)}
    for name, data in images.items():
        (place / "cat" / f"{name}.jpg").write_bytes(data)
    more = more | ({"image_root": str(place)} if "image_root" in more else {})
    files = {"folder": "in", "webdataset": "a.tar", "parquet": "a.parquet", "list": "a.csv"}
    uri = tmp_path / files[kind]
    if kind == "webdataset":
        uri.write_bytes(tar_bytes(samples(list(images))))
    elif kind == "parquet":
        pq.write_table(pa.table({"image": list(images.values())}), uri)
    elif kind == "list":
        rows = [f"cat/{name}.jpg,{name},cat" for name in images]
        uri.write_text("\n".join(["filename,name,what", *rows]))
    run(mini_config({"format": kind, "uri": str(uri), **more}, tmp_path / "out"))
    results = open_results(str(tmp_path / "out"))
    ids = list(results.images().index)
    table = tmp_path / "ids.csv"
    pd.DataFrame({"image_id": ids[1:]}).to_csv(table, index=False)
    again = source_config(results.run, {}, str(table))
    assert [row["image_id"] for row in read_all(again)] == ids[1:]
    for name, value in more.items():
        assert getattr(again, name) == value
