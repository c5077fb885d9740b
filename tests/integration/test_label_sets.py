"""A run over images with several labels, from Parquet to the audit and the report."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import open_results
from pipeline.auditor import Audit
from pipeline.report.site import build_report
from pipeline.results import Results
from tests.data import jpeg, mini_config
from tests.in_process import run

SETS = [["cat"], ["cat", "dog"], [], None, ["cow", "dog"]]
QUERIES = (
    {"name": "cat", "role": "class", "prompts": "a cat"},
    {"name": "dog", "role": "class", "prompts": "a dog"},
    {"name": "watermark", "role": "cue", "prompts": "a watermark"},
    {"name": "an_image", "role": "baseline", "prompts": "an image"},
)


def finished(place: Path, maps: str) -> Results:
    pictures = [jpeg(number) for number in range(len(SETS))]
    pq.write_table(pa.table({"image": pictures, "label": SETS}), place / "a.parquet")
    source = {"format": "parquet", "uri": str(place / "a.parquet")}
    store = {"maps": maps}
    config = mini_config(source, place / "out", queries=list(QUERIES), store=store)
    assert run(config).statuses == {"ok": len(SETS)}
    return open_results(config.output)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return finished(tmp_path_factory.mktemp("sets"), "own_labels")


def there(results: Results, query: str) -> list[bool]:
    _, maps = results.maps(query, sorted(results.images().index))
    return [bool(np.isfinite(heat).all()) for heat in maps]


def test_every_class_of_an_image_has_its_map(results: Results) -> None:
    frame = results.images(["label", "labels"]).sort_index()
    assert [None if v is None else list(v) for v in frame["labels"]] == SETS
    assert frame["label"].astype(object).where(frame["label"].notna(), None).tolist() == [
        "cat", "cat|dog", None, None, "cow|dog",
    ]  # fmt: skip
    assert there(results, "cat") == [True, True, False, False, False]
    assert there(results, "dog") == [False, True, False, False, True]
    assert all(there(results, "watermark"))
    assert there(results, "own_label") == [True, True, False, False, True]


def test_one_column_holds_the_first_class(tmp_path: Path) -> None:
    single = finished(tmp_path, "own_label")
    assert there(single, "own_label") == [True, True, False, False, True]
    assert there(single, "cat") == [True, True, False, False, False]
    assert there(single, "dog") == [False, False, False, False, True]
    table = single.dataset.to_table(["labels"])
    assert table["labels"].null_count == 1


def test_audit_and_report(results: Results, tmp_path: Path) -> None:
    audit = Audit.from_results(results.folder.uri, settings={"suspicions": False})
    population = audit.findings.population
    assert dict(zip(population.classes, population.sizes.tolist(), strict=True)) == {
        "cat": 2, "dog": 2, "cow": 1, "(other labels)": 1,
    }  # fmt: skip
    assert (population.total, population.unlabelled) == (4, 1)
    assert np.isfinite(audit.mean_map("dog", "dog")).all()
    build_report(audit, tmp_path / "report")
    assert (tmp_path / "report" / "index.html").exists()
