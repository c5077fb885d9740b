"""`legrad init` on data sets as tools write them: format, labels, and that a run reads the same."""

from pathlib import Path

import pytest

from pipeline.config import ModelConfig
from pipeline.config.loading import load_config
from pipeline.starter import write_starter
from tests.data import read_all
from tests.starter.layouts import LAYOUTS

MODEL = ModelConfig(name="ViT-B-32", pretrained="laion2b_s34b_b79k")


@pytest.mark.slow
@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout(tmp_path: Path, name: str) -> None:
    root = tmp_path / "data"
    root.mkdir()
    expected = LAYOUTS[name](root)
    place = f"{root}/{expected.below}".rstrip("/")
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
