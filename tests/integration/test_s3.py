"""Input and output on a real S3 server."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import s3fs

from pipeline import open_results
from pipeline.config import RunConfig
from pipeline.demo.dataset import write_demo
from pipeline.errors import UsageError
from pipeline.flow import run
from pipeline.runs import lease
from pipeline.runs.check import check
from pipeline.runs.lease import Holder, hold_lease
from pipeline.runs.ledger import Ledger
from pipeline.runs.manifest import run_folder
from pipeline.runs.parts import committed_parts
from pipeline.sources.fetch import Origin
from pipeline.sources.listing import list_files
from tests.conftest import DEMO_SEED, DemoRun
from tests.data import hugging_face, jpeg, mini_config, read_all, settings

IMAGES = 40


@pytest.fixture(scope="module")
def options(s3: dict[str, Any]) -> dict[str, Any]:
    s3fs.S3FileSystem(**s3).mkdir("pictures")
    return s3


@pytest.fixture
def bucket_run(ray_session: None, options: dict[str, Any]) -> RunConfig:
    """A finished run from bucket to bucket, over the first images of `demo_run`."""
    write_demo("s3://pictures/train", IMAGES, seed=DEMO_SEED, options=options, per_shard=20)
    config = mini_config(
        {"format": "webdataset", "uri": "s3://pictures/train", "options": options},
        "s3://pictures/results/run 1",
        output_options=options,
        runtime={"rows_per_part": 20, "batch_size": 20},
    )
    summary = run(config)
    assert summary.rows == summary.statuses["ok"] == IMAGES
    return config


def test_a_run_from_bucket_to_bucket(
    bucket_run: RunConfig, demo_run: DemoRun, options: dict[str, Any]
) -> None:
    """The same results as of local files; then a part is lost, and a shard changes."""
    assert run(bucket_run).already_complete
    in_bucket, local = open_results(bucket_run.output, options), open_results(demo_run.output)
    keys = local.images(["key"])["key"].sort_values()[:IMAGES]
    ids = in_bucket.images(["key"]).reset_index().set_index("key")["image_id"][keys]
    for query in ("watermark", "an_image"):
        bucket_scores = in_bucket.scores([query]).loc[ids, query]
        local_scores = local.scores([query]).loc[keys.index, query]
        np.testing.assert_allclose(bucket_scores, local_scores, atol=1e-5)
    there, here = ids.iloc[0], keys.index[0]
    assert in_bucket.image(there).tobytes() == local.image(here).tobytes()
    assert in_bucket.overlay(there, "watermark").size == (192, 192)
    manifest = s3fs.S3FileSystem(**options).cat(f"{bucket_run.output}/_run/manifest.json").decode()
    for secret in (options["key"], options["secret"]):
        assert secret not in manifest

    a_part_is_lost_and_a_shard_changes(bucket_run, options)


def a_part_is_lost_and_a_shard_changes(bucket_run: RunConfig, options: dict[str, Any]) -> None:
    """The last use of the run: it is no longer whole afterwards."""
    folder = run_folder(bucket_run.output, options)
    lost, copied, *_ = committed_parts(folder)
    lost.delete()
    there = Ledger(folder).refresh().rows
    folder.root.fs.copy(copied.path, folder.images.child(f"part-{'f' * 32}.parquet").path)
    summary = run(bucket_run)
    assert (summary.rows, summary.resumed) == (IMAGES, there)
    assert summary.progress.rows == IMAGES - there
    assert check(folder).sound
    folder.root.fs.pipe_file("s3://pictures/train/demo-00001.tar", b"other bytes")
    with pytest.raises(UsageError, match=r"demo-00001"):
        run(bucket_run)


def test_one_driver_a_bucket(options: dict[str, Any]) -> None:
    folder = run_folder("s3://pictures/results/leased", options)
    with hold_lease(folder) as fence:
        fence.require()
        assert not lease._create(folder.lease, Holder.here())
        folder.root.fs.invalidate_cache()
        with pytest.raises(UsageError, match=Holder.here().user), hold_lease(folder):
            raise AssertionError("two drivers")
    assert folder.root.sizes() == {}


def test_tables_in_a_bucket(options: dict[str, Any], tmp_path: Path) -> None:
    store = s3fs.S3FileSystem(**options)
    hugging_face(tmp_path / "x.parquet", [{"image": {"bytes": jpeg(i)}} for i in range(9)])
    store.put_file(str(tmp_path / "x.parquet"), "pictures/tables/x.parquet")
    store.pipe_file("pictures/tables/deep/a.jpg", jpeg(20))
    lines = "uri\ndeep/a.jpg\ns3://pictures/tables/deep/a.jpg\ngone.jpg\ns3://nowhere/b.jpg\n"
    store.pipe_file("pictures/tables/l.csv", lines.encode())
    store.pipe_file("pictures/tables/labels.csv", b"key,label\n3,cat\ndeep/a.jpg,dog\n")
    labels = {"uri": "s3://pictures/tables/labels.csv"}
    for kind, name in (("parquet", "x.parquet"), ("list", "l.csv")):
        uri = f"s3://pictures/tables/{name}"
        rows = read_all(settings(kind, uri, options={"s3": options}, labels=labels))
        origin = Origin.of({"format": kind, "uri": [uri]}, None, options)
        if kind == "parquet":
            assert [row["bytes"] for row in rows] == [jpeg(i) for i in range(9)]
            assert [row["label"] for row in rows] == [*[None] * 3, "cat", *[None] * 5]
        else:
            found = [(row["status"], row["label"]) for row in rows]
            assert found == [("ok", "dog"), ("ok", None), *[("read_error", None)] * 2]
        for row in [row for row in rows if row["bytes"]]:
            assert origin.fetch(row | {"sha256": sha256(row["bytes"])}) == row["bytes"]


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


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
