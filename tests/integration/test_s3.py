"""Input and output on a real S3 server."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import s3fs

from pipeline import open_results
from pipeline.demo import write_demo
from pipeline.errors import UsageError
from pipeline.flow import run
from pipeline.sources.listing import list_files
from tests.data import mini_config
from tests.integration.s3 import s3_server


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    with s3_server(tmp_path_factory.mktemp("s3")) as found:
        s3fs.S3FileSystem(**found).mkdir("pictures")
        yield found


def test_a_run_from_bucket_to_bucket(
    ray_session: None, options: dict[str, Any], tmp_path: Path
) -> None:
    write_demo("s3://pictures/train", 40, seed=1, options=options)
    write_demo(str(tmp_path / "train"), 40, seed=1)
    output = "s3://pictures/results/run 1"
    config = mini_config(
        {"format": "webdataset", "uri": "s3://pictures/train", "options": options},
        output,
        output_options=options,
    )
    summary = run(config)
    assert summary.rows == summary.statuses["ok"] == 40
    assert run(config).already_complete
    there = open_results(output, options)
    local = run(
        mini_config({"format": "webdataset", "uri": str(tmp_path / "train")}, tmp_path / "o")
    )
    here = open_results(local.output)
    scores = here.scores().sort_index()
    np.testing.assert_allclose(there.scores().sort_index(), scores, atol=1e-5)
    image_id = scores.index[0]
    assert there.image(image_id).tobytes() == here.image(image_id).tobytes()
    assert there.overlay(image_id, "watermark").size == (192, 192)
    manifest = s3fs.S3FileSystem(**options).cat(f"{output}/_run/manifest.json").decode()
    for secret in (options["key"], options["secret"]):
        assert secret not in manifest


@pytest.mark.parametrize(
    ("uri", "change", "words"),
    [
        ("s3://no-such-bucket/x", {}, "not found|no files"),
        ("s3://pictures/nowhere", {}, "not found|no files"),
        ("s3://pictures", {"secret": "wrong"}, "permission denied"),
        ("s3://pictures", {"key": "stranger"}, "permission denied"),
    ],
)
def test_storage_faults_are_clear(
    options: dict[str, Any], uri: str, change: dict[str, str], words: str
) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        list_files(uri, options | change, (".tar",))
    assert uri in str(caught.value)
    assert "test-secret" not in str(caught.value)


def test_no_credentials(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    bare = {"client_kwargs": options["client_kwargs"], "skip_instance_cache": True}
    with pytest.raises(UsageError, match=r"credentials|permission denied"):
        list_files("s3://pictures", bare, (".tar",))
