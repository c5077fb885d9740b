"""What other tools read."""

import contextlib
import io
import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from legrad.preprocess import Preprocess
from pipeline.auditor import Audit
from pipeline.errors import UsageError
from pipeline.export import export
from pipeline.export.coco import (
    _file_name,
    _written,
    bounding_box,
    compressed,
    hot_region,
    run_lengths,
)
from pipeline.storage.location import open_location
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


@pytest.mark.parametrize(
    ("kind", "out", "options", "told"),
    [
        ("groups", "g.csv", {"limit": 3}, "limit"),
        ("ids", "i.csv", {"cues": ["x"]}, "cue"),
        ("issues", "i.csv", {"pictures": True}, "pictures"),
        ("ids", "i.csv", {"threshold": 0.7}, "threshold"),
        ("coco", "c.csv", {}, ".json"),
        ("ids", "i.txt", {}, ".parquet"),
        ("fiftyone", "s3://bucket/f", {}, "s3://bucket/f"),
    ],
)
def test_what_a_format_does_not_use_is_refused(
    audit: Audit, kind: str, out: str, options: dict[str, Any], told: str
) -> None:
    with pytest.raises(UsageError, match=told):
        export(audit, kind, out, **options)


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
    count = export(audit, "coco", str(out), [pair], limit=3, threshold=0.6, pictures=True)
    found = tools.COCO(str(out))
    assert count == len(found.anns) == 3
    for one in found.anns.values():
        mask = found.annToMask(one).astype(bool)
        image = found.imgs[one["image_id"]]
        _, heat = audit.results.maps(pair[1], [image["legrad_image_id"]])
        size = image["width"], image["height"]
        assert np.array_equal(mask, hot_region(heat[0], size, audit.results.preprocess, 0.6))
        assert one["area"] == mask.sum()
        assert one["bbox"] == list(bounding_box(mask))
        assert one["image_label"] == pair[0]
        with Image.open(tmp_path / image["file_name"]) as picture:
            assert picture.size == size
    again = found.loadRes(list(found.anns.values()))
    assert len(again.anns) == 3


def test_supervision_reads_pictures_and_masks(
    audit: Audit, pair: tuple[str, str], tmp_path: Path
) -> None:
    supervision = pytest.importorskip("supervision", reason="pip install supervision")
    out = tmp_path / "coco.json"
    export(audit, "coco", str(out), [pair], limit=2, pictures=True)
    data = supervision.DetectionDataset.from_coco(str(tmp_path), str(out), force_masks=True)
    assert (data.classes, len(data)) == ([pair[1]], 2)
    areas = {entry["area"] for entry in json.loads(out.read_text())["annotations"]}
    for _, picture, detections in data:
        (mask,) = detections.mask
        assert mask.shape == picture.shape[:2]
        assert mask.sum() in areas


def test_cleanlab_reports_the_issues(audit: Audit, pair: tuple[str, str], tmp_path: Path) -> None:
    """With the code in the documentation."""
    pytest.importorskip("cleanlab", reason="pip install 'cleanlab[datalab]'")
    export(audit, "issues", str(tmp_path / "issues.csv"), [pair])
    text = (Path(__file__).parents[2] / "docs" / "report.md").read_text()
    code = text.split("```python\n")[1].split("```")[0]
    assert "IssueManager" in code
    with contextlib.chdir(tmp_path):
        names: dict[str, Any] = {}
        exec(code, names)
    issues = names["lab"].get_issues("spurious")
    expected = pd.read_csv(tmp_path / "issues.csv")
    assert issues["is_spurious_issue"].tolist() == expected["is_spurious_issue"].tolist()
    assert issues["spurious_score"].tolist() == pytest.approx(expected["spurious_score"].tolist())


def test_pictures_are_upright_and_stay_below_the_folder(tmp_path: Path) -> None:
    drawn = Image.new("RGB", (6, 4), "red")
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    buffer = io.BytesIO()
    drawn.save(buffer, "JPEG", exif=exif)
    results = SimpleNamespace(
        origin=SimpleNamespace(format="list", fetch=lambda row: buffer.getvalue(), max_pixels=99)
    )
    folder = open_location(str(tmp_path / "pictures"))
    name = _written(results, {"image_id": "a/../../../x"}, folder)  # type: ignore[arg-type]
    assert name == "x.jpeg"
    with Image.open(tmp_path / "pictures" / name) as image:
        assert image.size == (4, 6)


def test_file_names_of_an_image_folder_are_paths_in_it() -> None:
    for kind, name in (("folder", "cats/1.jpg"), ("webdataset", "pets/cats/1.jpg")):
        results = SimpleNamespace(origin=SimpleNamespace(format=kind))
        row = {"image_id": "pets/cats/1.jpg", "key": "cats/1.jpg"}
        assert _file_name(results, row) == name  # type: ignore[arg-type]


def test_run_lengths_begin_with_zeros_and_go_down_columns() -> None:
    mask = np.array([[True, False], [True, True]])
    assert run_lengths(mask) == [0, 2, 1, 1]
    assert run_lengths(~mask) == [2, 1, 1]
    nothing = np.zeros((2, 2), np.float32)
    assert not hot_region(nothing, (4, 4), Preprocess((4, 4)), 0.5).any()


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 1.0])
def test_compressed_run_lengths_are_those_of_pycocotools(share: float) -> None:
    tools = pytest.importorskip("pycocotools.mask")
    mask = np.random.default_rng(0).random((300, 200)) < share
    expected = tools.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
    assert compressed(run_lengths(mask)) == expected


def test_fiftyone_has_pictures_heat_and_tags(
    audit: Audit, pair: tuple[str, str], tmp_path: Path
) -> None:
    assert export(audit, "fiftyone", str(tmp_path / "made"), [pair], limit=2) == 2
    folder = (tmp_path / "made").rename(tmp_path / "moved")
    data = json.loads((folder / "samples.json").read_text())
    heat_field = f"heat_{pair[1]}"
    for sample in data["samples"]:
        heat = sample[heat_field]
        assert Path(heat["map_path"]).parent == Path("fields", heat_field)
        with (
            Image.open(folder / sample["filepath"]) as a,
            Image.open(folder / heat["map_path"]) as b,
        ):
            assert a.size == b.size
        assert heat["range"] == [0, 255]
        assert sample["tags"] == [f"{pair[1]} in {pair[0]}"]
        assert set(sample) == set(data["sample_fields"])


@pytest.mark.starts
def test_fiftyone_itself_reads_the_exports(
    audit: Audit, pair: tuple[str, str], tmp_path: Path
) -> None:
    """With `secantus`, a server of MongoDB's protocol, in place of FiftyOne's own database."""
    for package in ("fiftyone", "secantus"):
        if find_spec(package) is None:
            pytest.skip(f"{package} is not installed: pip install fiftyone secantusdb")
    export(audit, "fiftyone", str(tmp_path / "fiftyone"), [pair], limit=2)
    export(audit, "coco", str(tmp_path / "coco" / "cues.json"), [pair], limit=2, pictures=True)
    script = Path(__file__).with_name("read_with_fiftyone.py")
    command = [sys.executable, str(script), str(tmp_path), pair[1]]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr


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
