"""Which run an output belongs to: the first that commits a row."""

from pathlib import Path

import numpy as np
import pytest

from legrad.preprocess import Preprocess
from pipeline.config import RunConfig
from pipeline.errors import UsageError
from pipeline.runs.manifest import claim_folder, read_manifest, run_folder
from pipeline.runs.model_facts import Prepared
from tests.data import mini_config

PREPARED = Prepared(
    grid=(12, 12),
    layers=4,
    digest="0" * 64,
    definition=None,
    tokenizer=None,
    logit={"scale": 1.0, "bias": None},
    preprocess=Preprocess((96, 96), "squash"),
    text_features=np.zeros((3, 8), np.float32),
    query_digests={},
    warnings=(),
    images_per_second=1.0,
    batch_size=4,
)


def config(out: Path, label_field: str) -> RunConfig:
    source = {"format": "list", "uri": "in.csv", "label_field": label_field}
    return mini_config(source, out)


def test_a_run_without_rows_leaves_the_output_to_other_settings(tmp_path: Path) -> None:
    folder = run_folder(str(tmp_path / "out"))
    claim_folder(folder, config(tmp_path / "out", "labl"), PREPARED)
    folder.ends.write(b"{}\n")
    claim_folder(folder, config(tmp_path / "out", "label"), PREPARED)
    assert read_manifest(folder)["identity"]["source.label_field"] == "label"
    assert not folder.ends.exists()
    folder.images.child("part-0.parquet").write(b"rows")
    claim_folder(folder, config(tmp_path / "out", "label"), PREPARED)
    with pytest.raises(UsageError, match=r"label_field: stored 'label', now 'labl'"):
        claim_folder(folder, config(tmp_path / "out", "labl"), PREPARED)
