"""What other tools read."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from legrad.preprocess import Preprocess
from pipeline.auditor import Audit
from pipeline.errors import UsageError
from pipeline.export import export
from pipeline.export.heat import bounding_box, hot_region, run_lengths
from tests.conftest import DemoRun
from tests.jobs.command import legrad


@pytest.fixture(scope="module")
def audit(demo_run: DemoRun) -> Audit:
    return Audit.from_results(demo_run.output)


@pytest.fixture(scope="module")
def pair(audit: Audit) -> tuple[str, str]:
    measured = audit.rank()
    first = measured[measured["with_cue"] > 3].iloc[0]
    return str(first["class"]), str(first["cue"])


def test_ids_are_the_images_with_the_cue(
    audit: Audit, pair: tuple[str, str], tmp_path: Path
) -> None:
    out = tmp_path / "ids.csv"
    count = export(audit, "ids", str(out), [pair])
    table = pd.read_csv(out, dtype={"image_id": str})
    assert count == len(table) == len(audit.images(*pair, present=True)) > 0
    assert (table["presence"] > 0.5).all()
    assert export(audit, "ids", str(out), [pair], limit=2) == 2
    assert export(audit, "ids", str(out), pair, limit=2) == 2
    with pytest.raises(UsageError, match="'ab'"):
        export(audit, "ids", str(out), ["ab", "cd", "ef"])  # type: ignore[list-item]


def test_groups_hold_every_image_once(audit: Audit, pair: tuple[str, str], tmp_path: Path) -> None:
    out = tmp_path / "groups.parquet"
    export(audit, "groups", str(out), cues=pair[1])
    table = pd.read_parquet(out)
    sizes = table.groupby(["label", f"has_{pair[1]}"])["group"].nunique()
    assert table["image_id"].is_unique
    assert len(table) == audit.summary.images
    assert (sizes == 1).all()
    assert table["group"].nunique() == len(sizes)
    assert len(table[(table["label"] == pair[0]) & table[f"has_{pair[1]}"]]) == len(
        audit.images(*pair, present=True)
    )
    with pytest.raises(UsageError, match="'nothing'"):
        export(audit, "groups", str(out), cues=["nothing"])


def test_hugging_face_datasets_reads_them(
    audit: Audit, pair: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    datasets = pytest.importorskip("datasets")
    out = tmp_path / "groups.parquet"
    export(audit, "groups", str(out), cues=[pair[1]])
    found = datasets.load_dataset(
        "parquet", data_files=str(out), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert found.num_rows == audit.summary.images
    hard = found.filter(lambda row: row["label"] == pair[0] and not row[f"has_{pair[1]}"])
    assert 0 < hard.num_rows < found.num_rows


def test_low_scores_are_issues(audit: Audit, pair: tuple[str, str], tmp_path: Path) -> None:
    out = tmp_path / "issues.csv"
    export(audit, "issues", str(out), [pair])
    table = pd.read_csv(out)
    bad = table[table["is_spurious_issue"]]
    assert len(table) == audit.summary.images
    assert set(bad["spurious_cue"]) == {pair[1]}
    assert bad["spurious_score"].max() < 0.5 <= table["spurious_score"].max() == 1.0


def test_coco_is_read_by_its_own_tools(audit: Audit, pair: tuple[str, str], tmp_path: Path) -> None:
    tools = pytest.importorskip("pycocotools.coco")
    out = tmp_path / "coco.json"
    count = export(audit, "coco", str(out), [pair], limit=3, threshold=0.6)
    found = tools.COCO(str(out))
    assert count == len(found.anns) == 3
    for one in found.anns.values():
        mask = found.annToMask(one).astype(bool)
        name = found.imgs[one["image_id"]]["file_name"]
        _, heat = audit.results.maps(pair[1], [name])
        size = found.imgs[one["image_id"]]["width"], found.imgs[one["image_id"]]["height"]
        assert np.array_equal(mask, hot_region(heat[0], size, audit.results.preprocess, 0.6))
        assert one["area"] == mask.sum()
        assert one["bbox"] == list(bounding_box(mask))


def test_run_lengths_begin_with_zeros_and_go_down_columns() -> None:
    mask = np.array([[True, False], [True, True]])
    assert run_lengths(mask) == [0, 2, 1, 1]
    assert run_lengths(~mask) == [2, 1, 1]
    nothing = np.zeros((2, 2), np.float32)
    assert not hot_region(nothing, (4, 4), Preprocess((4, 4)), 0.5).any()


def test_fiftyone_has_pictures_heat_and_tags(
    audit: Audit, pair: tuple[str, str], tmp_path: Path
) -> None:
    assert export(audit, "fiftyone", str(tmp_path), [pair], limit=2) == 2
    data = json.loads((tmp_path / "samples.json").read_text())
    for sample in data["samples"]:
        heat = sample[f"heat_{pair[1]}"]
        assert Path(sample["filepath"]).is_file()
        assert Path(heat["map_path"]).is_file()
        assert heat["range"] == [0, 255]
        assert sample["tags"] == [f"{pair[1]} in {pair[0]}"]


def test_command_says_what_it_wrote(
    demo_run: DemoRun, pair: tuple[str, str], tmp_path: Path
) -> None:
    out = str(tmp_path / "ids.parquet")
    done = legrad("export", demo_run.output, "-f", "ids", "-o", out, "--pair", ",".join(pair))
    assert done.returncode == 0, done.stderr
    assert f"ids: {out}" in done.stdout
    wrong = legrad("export", demo_run.output, "-f", "voc", "-o", out)
    assert wrong.returncode == 2
    assert "expected one of ids" in wrong.stderr
