"""Stored results against results computed again."""

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import open_results
from pipeline.errors import UsageError
from pipeline.results.reproduce import recompute
from tests.conftest import DemoRun


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
