"""`legrad init` on data sets as tools write them: format, labels, and that a run reads the same."""

import re
from pathlib import Path

import pytest

from pipeline.config import ModelConfig
from pipeline.config.loading import load_config
from pipeline.errors import UsageError
from pipeline.starter.files import write_starter
from pipeline.starter.survey import survey
from tests.data import read_all
from tests.starter import layouts, packed_layouts  # noqa: F401 - they fill LAYOUTS
from tests.starter.layout import LAYOUTS

MODEL = ModelConfig(name="ViT-B-32", pretrained="laion2b_s34b_b79k")


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout(tmp_path: Path, name: str) -> None:
    root = tmp_path / "data"
    root.mkdir()
    expected = LAYOUTS[name](root)
    place = f"{root}/{expected.below}".rstrip("/")
    if expected.refused:
        with pytest.raises(UsageError, match=re.escape(expected.refused)):
            write_starter(place, MODEL, tmp_path / "run" / "run.yaml")
        assert not (tmp_path / "run").exists()
        return
    done = write_starter(place, MODEL, tmp_path / "run" / "run.yaml")
    config = load_config(done.config)
    assert config.source.format == expected.format
    rows = read_all(config.source)
    assert {row["status"] for row in rows} == {"ok"}
    assert len(rows) == expected.images
    labels = {label for row in rows for label in row["labels"] or [row["label"]]} - {None}
    assert labels == expected.labels
    assert set(done.survey.labels) == expected.labels
    assert set(config.labels) == expected.labels
    assert all(row["caption"] for row in rows) is expected.captions


@pytest.mark.parametrize("name", ["yolo", "pascal_voc"])
def test_boxes_that_are_not_read_are_told(tmp_path: Path, name: str) -> None:
    LAYOUTS[name](tmp_path)
    assert any("COCO" in note for note in survey(str(tmp_path)).notes)
