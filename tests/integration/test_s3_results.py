"""Results in a bucket: conditions, SQL, and commands that are told how to get there."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.compute as pc
import pytest
import s3fs

from pipeline import open_results
from tests.jobs.command import legrad

GOLDEN = Path(__file__).parents[1] / "golden" / "v1"
URI = "s3://results/run 1"


@pytest.fixture(scope="module")
def options(s3: dict[str, Any]) -> dict[str, Any]:
    fs = s3fs.S3FileSystem(**s3)
    fs.mkdir("results")
    fs.put(f"{GOLDEN}/", f"{URI}/", recursive=True)
    return s3


def given(options: dict[str, Any], **other: str) -> list[str]:
    client = options["client_kwargs"]
    values = {
        "key": options["key"],
        "secret": options["secret"],
        **{f"client_kwargs.{name}": value for name, value in client.items()},
        **other,
    }
    return [f"--storage-option={name}={value}" for name, value in values.items()]


def test_questions_to_a_bucket(options: dict[str, Any]) -> None:
    there, here = open_results(URI, options), open_results(str(GOLDEN))
    pd.testing.assert_frame_equal(there.scores(), here.scores())
    for where in ("score__watermark > 0", pc.field("score__watermark") > 0):
        ids, maps = there.maps("fish", where=where)
        assert list(ids) == list(here.maps("fish", where=where)[0])
        np.testing.assert_array_equal(maps, here.maps("fish", list(ids))[1])
    query = "select image_id, list_sum(decode_map(heatmap__fish, heatmap_max__fish)) as heat, "
    query += "embedding[1] as first from images order by image_id"
    pd.testing.assert_frame_equal(there.sql(query), here.sql(query))
    assert sum(len(ids) for ids, _ in there.iter_maps("fish")) == 12


def test_commands_take_storage_options_and_never_print_them(options: dict[str, Any]) -> None:
    told = given(options)
    scores = legrad("scores", URI, "-q", "fish", *told)
    assert scores.returncode == 0, scores.stderr
    compacted = legrad("compact", URI, "--output", f"{URI} sorted", *told)
    assert compacted.returncode == 0, compacted.stderr
    checked = legrad("check", f"{URI} sorted", *told)
    assert checked.returncode == 0, checked.stderr
    wrong = legrad("scores", URI, *given(options, secret="not-the-secret"))
    assert wrong.returncode == 2
    missing = legrad("scores", f"{URI} 2", *told)
    assert "manifest.json is missing" in missing.stderr
    odd = legrad("check", URI, *told, "--storage-option", "not-the-secret")
    assert "number 5: expected KEY=VALUE" in odd.stderr
    for done in (scores, compacted, checked, wrong, missing, odd):
        text = done.stdout + done.stderr
        assert options["secret"] not in text
        assert "not-the-secret" not in text
